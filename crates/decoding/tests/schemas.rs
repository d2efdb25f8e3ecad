//! Whatever the model says: an answer held to a schema is JSON, and the schema accepts it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use decoding::grammar::{Grammar, TokenText, Vocabulary};
use decoding::{Chooser, Sampling};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value, json};

const SCHEMAS: u64 = 300;
const END: u32 = 256;
/// Some tokens of several bytes, over the borders of what JSON is made of.
const MERGED: [&str; 12] = ["\": ", "\", \"", "{\"", "\"}", "},", "[]", "tr", "ue", "null", "12", "a\"", "\n  "];

fn words() -> Vec<Vec<u8>> {
    let bytes = (0..=255u8).map(|byte| vec![byte]);
    bytes.chain([Vec::new()]).chain(MERGED.iter().map(|word| word.as_bytes().to_vec())).collect()
}

fn vocabulary() -> Vocabulary {
    let words = words();
    let text = |(id, word): (usize, &'_ Vec<u8>)| match id == END as usize {
        true => TokenText::Special("<end>"),
        // The vocabulary does not outlive the words, so they may be lent.
        false => TokenText::Bytes(Box::leak(word.clone().into_boxed_slice())),
    };
    Vocabulary::new(words.iter().enumerate().map(text), &[END]).unwrap()
}

/// A schema that bounds all it allows, so that a model without sense comes to an end.
fn schema(random: &mut StdRng, depth: u32) -> Value {
    let kinds = if depth == 0 { 6 } else { 9 };
    match random.random_range(0..kinds) {
        0 => json!({"type": "boolean"}),
        1 => json!({"type": "null"}),
        2 => {
            json!({"type": "integer", "minimum": random.random_range(-999..0), "maximum": random.random_range(0..5000)})
        }
        3 => json!({"type": "string", "minLength": random.random_range(0..3), "maxLength": random.random_range(3..12)}),
        4 => json!({"enum": ["red", "é", 7, null, [1, "x"], true]}),
        5 => json!({"type": "string", "pattern": "^[a-f]{2,4}-[0-9]{1,3}$"}),
        6 => {
            json!({"type": "array", "items": schema(random, depth - 1), "minItems": random.random_range(0..2), "maxItems": random.random_range(2..4)})
        }
        7 => json!({"anyOf": [schema(random, depth - 1), schema(random, depth - 1)]}),
        _ => object(random, depth),
    }
}

fn object(random: &mut StdRng, depth: u32) -> Value {
    let names = ["a", "name", "with space", "ümlaut", "q\"uote"];
    let properties: Map<String, Value> = names
        .iter()
        .take(random.random_range(1..=names.len()))
        .map(|name| (String::from(*name), schema(random, depth - 1)))
        .collect();
    let required: Vec<&String> = properties.keys().filter(|name| name.len() % 2 == 1).collect();
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

/// Whether a schema of the kinds above accepts a value, read from
/// <https://json-schema.org/draft/2020-12/json-schema-validation>. The crates that know all kinds turn
/// on features beneath mistral.rs, which would then be built once more for the tests.
fn accepts(root: &Value, schema: &Value, value: &Value) -> bool {
    let within = |least: &str, most: &str, number: i64| {
        let bound = |name: &str| schema[name].as_i64();
        bound(least).is_none_or(|least| number >= least) && bound(most).is_none_or(|most| number <= most)
    };
    let length = |length: usize| i64::try_from(length).unwrap();
    if let Some(name) = schema["$ref"].as_str() {
        return accepts(root, root.pointer(name.trim_start_matches('#')).unwrap(), value);
    }
    if let Some(choices) = schema["enum"].as_array() {
        return choices.contains(value);
    }
    if let Some(ways) = schema["anyOf"].as_array() {
        return ways.iter().any(|way| accepts(root, way, value));
    }
    match (schema["type"].as_str().unwrap(), value) {
        ("boolean", Value::Bool(_)) | ("null", Value::Null) => true,
        // `-0.0` is an integer too.
        ("integer", Value::Number(number)) => {
            let whole = number.as_f64().filter(|number| number.fract() == 0.0);
            whole.is_some_and(|number| within("minimum", "maximum", number as i64))
        }
        ("string", Value::String(text)) if schema["pattern"].is_string() => is_letters_and_digits(text),
        ("string", Value::String(text)) => within("minLength", "maxLength", length(text.chars().count())),
        ("array", Value::Array(items)) => {
            let each = items.iter().all(|item| accepts(root, &schema["items"], item));
            each && within("minItems", "maxItems", length(items.len()))
        }
        ("object", Value::Object(members)) => {
            let known = |(name, value): (&String, &Value)| {
                schema["properties"].get(name).is_some_and(|schema| accepts(root, schema, value))
            };
            let required = schema["required"].as_array().unwrap();
            members.iter().all(known) && required.iter().all(|name| members.contains_key(name.as_str().unwrap()))
        }
        _ => false,
    }
}

/// `^[a-f]{2,4}-[0-9]{1,3}$`, the one pattern above.
fn is_letters_and_digits(text: &str) -> bool {
    text.split_once('-').is_some_and(|(letters, digits)| {
        let right = letters.chars().all(|c| ('a'..='f').contains(&c)) && digits.chars().all(|c| c.is_ascii_digit());
        right && (2..=4).contains(&letters.len()) && (1..=3).contains(&digits.len())
    })
}

#[test]
fn the_check_itself_refuses_what_it_should() {
    let schema = object(&mut StdRng::seed_from_u64(3), 1);
    assert!(!accepts(&schema, &schema, &json!({"stranger": 1})) && !accepts(&schema, &schema, &json!([])));
    let bounded = json!({"type": "array", "items": {"type": "integer", "minimum": 2}, "minItems": 1});
    for (value, expected) in [(json!([2]), true), (json!([1]), false), (json!([]), false), (json!(["2"]), false)] {
        assert_eq!(accepts(&bounded, &bounded, &value), expected, "{value}");
    }
}

/// The answer of a model that wants anything.
fn answer(vocabulary: &Vocabulary, grammar: &Grammar, seed: u64) -> Vec<u8> {
    let words = words();
    let sampling = Sampling { seed: Some(seed), temperature: 1.5, ..Default::default() };
    let mut chooser = Chooser::new(sampling, &[], None, Some(vocabulary.compile(grammar).unwrap()));
    let mut random = StdRng::seed_from_u64(seed);
    let mut bytes = Vec::new();
    for _ in 0..5000 {
        let mut logits: Vec<f32> = words.iter().map(|_| random.random_range(-4.0..4.0)).collect();
        let chosen = chooser.next(&mut logits).unwrap();
        if chosen.token != END {
            bytes.extend(&words[chosen.token as usize]);
        }
        if chosen.complete {
            return bytes;
        }
    }
    panic!("no end: {}", String::from_utf8_lossy(&bytes));
}

#[test]
fn every_answer_is_json_that_its_schema_accepts() {
    let vocabulary = vocabulary();
    for seed in 0..SCHEMAS {
        let schema = schema(&mut StdRng::seed_from_u64(seed), 3);
        let bytes = answer(&vocabulary, &Grammar::JsonSchema(schema.clone()), seed);
        let value: Value = serde_json::from_slice(&bytes)
            .unwrap_or_else(|error| panic!("{schema}: {error}: {}", String::from_utf8_lossy(&bytes)));
        assert!(accepts(&schema, &schema, &value), "{schema}: {value}");
    }
}

#[test]
fn references_within_a_schema_are_followed() {
    let schema = json!({
        "$defs": {"node": {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9},
            "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}}, "required": ["n", "next"], "additionalProperties": false}},
        "$ref": "#/$defs/node"
    });
    let vocabulary = vocabulary();
    for seed in 0..20 {
        let bytes = answer(&vocabulary, &Grammar::JsonSchema(schema.clone()), seed);
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        assert!(accepts(&schema, &schema, &value), "{value}");
    }
}

#[test]
fn an_expression_and_a_lark_grammar_are_kept_to() {
    let vocabulary = vocabulary();
    for seed in 0..20 {
        let text = String::from_utf8(answer(&vocabulary, &Grammar::Regex("(yes|no)[.!]{1,3}".into()), seed)).unwrap();
        let rest = text.strip_prefix("yes").or_else(|| text.strip_prefix("no")).unwrap();
        assert!((1..=3).contains(&rest.len()) && rest.chars().all(|c| ".!".contains(c)), "{text:?}");
        let lark = "start: \"(\" DIGITS \"+\" DIGITS \")\"\nDIGITS: /[0-9]{1,4}/".to_owned();
        let text = String::from_utf8(answer(&vocabulary, &Grammar::Lark(lark), seed)).unwrap();
        let (left, right) = text.strip_prefix('(').unwrap().strip_suffix(')').unwrap().split_once('+').unwrap();
        assert!(left.parse::<u16>().is_ok() && right.parse::<u16>().is_ok(), "{text:?}");
    }
}

#[test]
fn mistakes_in_a_grammar_are_told_in_its_compilers_words() {
    let vocabulary = vocabulary();
    let error = |grammar: Grammar| vocabulary.compile(&grammar).unwrap_err().to_string();
    assert!(error(Grammar::JsonSchema(json!({"type": "wizard"}))).contains("wizard"));
    assert!(error(Grammar::JsonSchema(json!({"type": "string", "pattern": "("}))).contains("regex"));
    assert!(error(Grammar::Regex("(".into())).contains("regex"));
    assert!(error(Grammar::Lark("start: missing".into())).contains("missing"));
}

#[test]
fn a_model_without_an_end_keeps_to_no_grammar() {
    let tokens = || [b"a".as_slice(), b"b"].map(TokenText::Bytes).into_iter();
    assert!(Vocabulary::new(tokens(), &[]).is_err());
    assert!(Vocabulary::new(tokens(), &[9]).is_err());
}
