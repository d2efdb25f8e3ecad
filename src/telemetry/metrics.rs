//! EVERY metric, in one typed struct; the comment of a field is its HELP text.
//!
//! Names and buckets of the `vllm:` family are vLLM's, so that its dashboards, KEDA and the Gateway
//! API inference extension read them unchanged. The `pensieve_` family is ours: lifecycle, memory,
//! the gateway. `model` is always an id of the registry, so label values are bounded.
//!
//! Each server has a registry of its own; a scrape reads numbers and wakes nothing.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{
    Encoder, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

const TTFT: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
];
const INTER_TOKEN: &[f64] =
    &[0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0];
const LATENCY: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
];
const TOKENS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5];
const LOAD: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

/// Declares the struct, its construction and the registration of every field in one place.
macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $field:ident: $type:ident($name:literal $(, [$($label:literal),*])? $(, $buckets:ident)?)),* $(,)?) => {
        /// All metrics of one server.
        #[derive(Clone, Debug)]
        pub struct Metrics {
            registry: Registry,
            /// One scrape at a time: counters that others keep are raised to what those say.
            scrape: Arc<Mutex<()>>,
            $($(#[doc = $help])+ pub $field: $type,)*
        }

        impl Metrics {
            /// # Errors
            /// Two metrics have one name; a test rules it out.
            pub fn new() -> Result<Self, prometheus::Error> {
                let registry = Registry::new();
                $(
                    let help = concat!($($help),+).trim();
                    let $field = metrics!(@new $type, $name, help $(, [$($label),*])? $(, $buckets)?)?;
                    registry.register(Box::new($field.clone()))?;
                )*
                Ok(Self { registry, scrape: Arc::default(), $($field),* })
            }

            #[cfg(test)]
            fn names() -> &'static [&'static str] {
                &[$($name),*]
            }
        }
    };
    (@new HistogramVec, $name:literal, $help:ident, [$($label:literal),*], $buckets:ident) => {
        HistogramVec::new(HistogramOpts::new($name, $help).buckets($buckets.to_vec()), &[$($label),*])
    };
    (@new IntGauge, $name:literal, $help:ident) => {
        IntGauge::new($name, $help)
    };
    (@new $type:ident, $name:literal, $help:ident, [$($label:literal),*]) => {
        $type::new(Opts::new($name, $help), &[$($label),*])
    };
}

metrics! {
    /// Sequences running on the model.
    requests_running: IntGaugeVec("vllm:num_requests_running", ["model_name"]),
    /// Requests waiting for the model, in its queue or for its load.
    requests_waiting: IntGaugeVec("vllm:num_requests_waiting", ["model_name"]),
    /// Prompt tokens processed.
    prompt_tokens: IntCounterVec("vllm:prompt_tokens_total", ["model_name"]),
    /// Prompt tokens of requests that ended, looked up in the prefix cache.
    prefix_cache_queries: IntCounterVec("vllm:prefix_cache_queries_total", ["model_name"]),
    /// Prompt tokens of requests that ended, found in the prefix cache.
    prefix_cache_hits: IntCounterVec("vllm:prefix_cache_hits_total", ["model_name"]),
    /// Tokens generated.
    generation_tokens: IntCounterVec("vllm:generation_tokens_total", ["model_name"]),
    /// Requests that ran to their end, by reason.
    request_success: IntCounterVec("vllm:request_success_total", ["model_name", "finished_reason"]),
    /// Seconds from arrival to the first token, queue included.
    time_to_first_token: HistogramVec("vllm:time_to_first_token_seconds", ["model_name"], TTFT),
    /// Seconds between two tokens of one sequence.
    inter_token_latency: HistogramVec("vllm:inter_token_latency_seconds", ["model_name"], INTER_TOKEN),
    /// Seconds from arrival to the last token.
    e2e_latency: HistogramVec("vllm:e2e_request_latency_seconds", ["model_name"], LATENCY),
    /// Seconds from arrival to dispatch.
    queue_time: HistogramVec("vllm:request_queue_time_seconds", ["model_name"], LATENCY),
    /// Prompt tokens of a request.
    request_prompt_tokens: HistogramVec("vllm:request_prompt_tokens", ["model_name"], TOKENS),
    /// Tokens generated for a request.
    request_generation_tokens: HistogramVec("vllm:request_generation_tokens", ["model_name"], TOKENS),

    /// Blocks of keys and values that sequences hold, as a part of all, from 0 to 1.
    kv_cache_usage: GaugeVec("vllm:kv_cache_usage_perc", ["model_name"]),
    /// Sequences put back to make room for others.
    preemptions: IntCounterVec("vllm:num_preemptions_total", ["model_name"]),

    /// Blocks of keys and values of a model: used by sequences, cached for prefixes, and how many the pool could hold.
    kv_blocks: IntGaugeVec("pensieve_kv_blocks", ["model_name", "state"]),
    /// Steps of the engine for a model.
    engine_steps: IntCounterVec("pensieve_engine_steps_total", ["model_name"]),
    /// Tokens of all steps of the engine for a model, prompts and answers.
    engine_tokens: IntCounterVec("pensieve_engine_tokens_total", ["model_name"]),
    /// Always 1; the labels say what runs.
    build_info: IntGaugeVec("pensieve_build_info", ["version", "engines"]),
    /// 1 for the state each model is in, 0 for the others.
    model_state: IntGaugeVec("pensieve_model_state", ["model", "state"]),
    /// Seconds a load took, by outcome.
    load_seconds: HistogramVec("pensieve_model_load_seconds", ["model", "outcome"], LOAD),
    /// Models put out of memory, by reason.
    unloads: IntCounterVec("pensieve_model_unloads_total", ["model", "reason"]),
    /// Swaps, by outcome.
    swaps: IntCounterVec("pensieve_swaps_total", ["outcome"]),
    /// Bytes on the books of a model, by line.
    ledger_bytes: IntGaugeVec("pensieve_ledger_bytes", ["model", "line"]),
    /// Bytes that models may take together.
    budget_bytes: IntGauge("pensieve_memory_budget_bytes"),
    /// Bytes reserved for loads that run and committed to models that are loaded.
    used_bytes: IntGauge("pensieve_memory_used_bytes"),
    /// Resident memory of the process, as the system counts it.
    resident_bytes: IntGauge("process_resident_memory_bytes"),
    /// Requests refused before they ran, by error code.
    rejected: IntCounterVec("pensieve_requests_rejected_total", ["model", "code"]),
    /// Requests whose client left before the end, by where they were.
    cancelled: IntCounterVec("pensieve_requests_cancelled_total", ["model", "phase"]),
    /// Requests that failed after they had begun.
    failed: IntCounterVec("pensieve_requests_failed_total", ["model"]),
    /// Answers of the HTTP listeners, by route and status.
    http_requests: IntCounterVec("pensieve_http_requests_total", ["route", "status"]),
}

/// What an engine says of one model when it is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineReading {
    pub blocks_used: u64,
    pub blocks_cached: u64,
    pub blocks_total: u64,
    /// Since the server started, like the two below.
    pub preemptions: u64,
    pub steps: u64,
    pub tokens: u64,
}

impl Metrics {
    /// All metrics in Prometheus' text format, with these readings of every model, by its id.
    ///
    /// # Errors
    /// A metric cannot be encoded.
    pub fn render<'m>(
        &self,
        readings: impl IntoIterator<Item = (&'m str, EngineReading)>,
    ) -> Result<String, prometheus::Error> {
        // Nothing is left half done by a panic in here: every number stands for itself.
        let _alone = self.scrape.lock().unwrap_or_else(PoisonError::into_inner);
        readings.into_iter().for_each(|(model, reading)| self.engine(model, reading));
        if let Some(bytes) = resident_bytes() {
            self.resident_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        let mut out = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut out)?;
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    fn engine(&self, model: &str, reading: EngineReading) {
        let part = reading.blocks_used as f64 / reading.blocks_total.max(1) as f64;
        self.kv_cache_usage.with_label_values(&[model]).set(part);
        let blocks =
            [("used", reading.blocks_used), ("cached", reading.blocks_cached), ("total", reading.blocks_total)];
        for (state, count) in blocks {
            self.kv_blocks.with_label_values(&[model, state]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let counters = [
            (&self.preemptions, reading.preemptions),
            (&self.engine_steps, reading.steps),
            (&self.engine_tokens, reading.tokens),
        ];
        for (counter, total) in counters {
            let counter = counter.with_label_values(&[model]);
            counter.inc_by(total.saturating_sub(counter.get()));
        }
    }
}

/// Adds one to a gauge while it lives.
#[derive(Debug)]
pub struct Gauged(IntGauge);

impl Gauged {
    pub fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Gauged {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Bytes of physical memory this process holds. `None` where the system does not tell.
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_a_name_of_its_own_and_a_help_text() {
        let metrics = Metrics::new().unwrap();
        metrics.prompt_tokens.with_label_values(&["m"]).inc();
        let text = metrics.render([]).unwrap();
        assert!(text.contains("# HELP vllm:prompt_tokens_total Prompt tokens processed.\n"), "{text}");
        assert!(text.contains("# TYPE vllm:prompt_tokens_total counter"));
        let mut names = Metrics::names().to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Metrics::names().len());
    }

    #[test]
    fn an_engines_counters_rise_to_what_it_says_and_its_gauges_follow_it() {
        let metrics = Metrics::new().unwrap();
        let busy =
            EngineReading { blocks_used: 3, blocks_cached: 2, blocks_total: 4, preemptions: 1, steps: 7, tokens: 90 };
        metrics.render([("m", busy)]).unwrap();
        let text = metrics.render([("m", EngineReading { steps: 9, ..busy })]).unwrap();
        for line in [
            "vllm:kv_cache_usage_perc{model_name=\"m\"} 0.75",
            "vllm:num_preemptions_total{model_name=\"m\"} 1",
            "pensieve_kv_blocks{model_name=\"m\",state=\"cached\"} 2",
            "pensieve_engine_steps_total{model_name=\"m\"} 9",
            "pensieve_engine_tokens_total{model_name=\"m\"} 90",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
        let idle = EngineReading { blocks_used: 0, blocks_total: 0, ..busy };
        assert!(metrics.render([("m", idle)]).unwrap().contains("vllm:kv_cache_usage_perc{model_name=\"m\"} 0\n"));
    }

    #[test]
    fn a_gauge_falls_with_its_guard() {
        let gauge = IntGauge::new("g", "g").unwrap();
        let guard = Gauged::new(gauge.clone());
        assert_eq!(gauge.get(), 1);
        drop(guard);
        assert_eq!(gauge.get(), 0);
    }
}
