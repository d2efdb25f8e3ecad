//! A strict reader of Prometheus' text format: what it does not understand is a failure.

use std::collections::BTreeMap;

/// A scrape.
#[derive(Debug)]
pub struct Exposition {
    /// Family name to its type.
    pub types: BTreeMap<String, String>,
    pub samples: Vec<Sample>,
}

#[derive(Debug)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Exposition {
    pub fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line has no end");
        let (mut helps, mut types, mut samples) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("no help text: {line}"));
                assert!(!help.trim().is_empty(), "no help text: {line}");
                assert!(helps.insert(name.to_owned(), help.to_owned()).is_none(), "two HELP lines: {line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("no type: {line}"));
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "two TYPE lines: {line}");
            } else {
                let sample = Sample::parse(line);
                let family = sample.family(&types);
                assert!(helps.contains_key(&family), "no HELP before: {line}");
                samples.push(sample);
            }
        }
        Self { types, samples }
    }

    /// The sum of all samples with this name and these labels; 0 if there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let wanted = |sample: &&Sample| {
            sample.name == name
                && labels.iter().all(|(label, value)| sample.labels.get(*label).is_some_and(|own| own == value))
        };
        self.samples.iter().filter(wanted).map(|sample| sample.value).fold(0.0, |sum, value| sum + value)
    }
}

impl Sample {
    fn parse(line: &str) -> Self {
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
        let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').unwrap_or_else(|| panic!("no }}: {line}"))),
            None => (series, ""),
        };
        let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        assert!(!name.is_empty() && name.chars().all(good), "a bad name: {line}");
        // No label value of ours holds a comma or a quote.
        let labels = labels.split(',').filter(|label| !label.is_empty()).map(|label| {
            let (name, value) = label.split_once('=').unwrap_or_else(|| panic!("a bad label: {line}"));
            let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            (name.to_owned(), value.unwrap_or_else(|| panic!("a bad label: {line}")).to_owned())
        });
        Self { name: name.to_owned(), labels: labels.collect(), value }
    }

    /// The name under which HELP and TYPE stand.
    pub fn family(&self, types: &BTreeMap<String, String>) -> String {
        if types.contains_key(&self.name) {
            return self.name.clone();
        }
        let parts = ["_bucket", "_sum", "_count"].iter().filter_map(|part| self.name.strip_suffix(part));
        let family = parts.into_iter().find(|family| types.get(*family).is_some_and(|kind| kind == "histogram"));
        family.unwrap_or_else(|| panic!("no TYPE before {}", self.name)).to_owned()
    }
}
