use std::path::PathBuf;

use gguf::{Array, TensorType, Writer};
use tempfile::TempDir;

use super::*;
use crate::engine::fake::Fake;
use crate::engine::{Engine, KvType};

/// An engine for GGUF files, so that `auto` has something to take: the fake under another name.
struct Reads(Fake);

#[async_trait::async_trait]
impl Engine for Reads {
    fn name(&self) -> &'static str {
        "reads"
    }
    fn supports(&self, model: &Summary) -> crate::engine::Support {
        match model.architecture.as_str() {
            "llama" => crate::engine::Support::Yes,
            other => crate::engine::Support::No(format!("architecture `{other}` is not supported")),
        }
    }
    fn estimate(&self, spec: &LoadSpec) -> Footprint {
        Footprint { weights_private: 1000, kv: u64::from(spec.context), ..Footprint::default() }
    }
    async fn load(&self, spec: LoadSpec) -> Result<Arc<dyn crate::engine::LoadedModel>, crate::engine::Error> {
        self.0.load(spec).await
    }
}

struct House(TempDir);

impl House {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn check(&self, yaml: &str) -> Result<Catalog, Problems> {
        let engines = Engines::new(vec![Arc::new(Reads(Fake::default())), Arc::new(Fake::default())]);
        Catalog::read(&self.file("registry.yaml", yaml.as_bytes()), &engines)
    }

    /// The problems of a file, one a line, without the file's own path in front.
    fn problems(&self, yaml: &str) -> String {
        let problems = self.check(yaml).err().expect("the file has a mistake");
        problems.to_string().replace(&format!("{}/", self.0.path().display()), "")
    }
}

fn model(architecture: &str) -> Vec<u8> {
    let key = |name: &str| format!("{architecture}.{name}");
    Writer::new()
        .key("general.architecture", architecture)
        .key(&key("context_length"), 1024u32)
        .key(&key("block_count"), 1u32)
        .key(&key("embedding_length"), 256u32)
        .key(&key("attention.head_count"), 4u32)
        .key("tokenizer.ggml.model", "gpt2")
        .key("tokenizer.ggml.tokens", Array::String(vec!["a".into()]))
        .tensor("token_embd.weight", TensorType::Q3_K, &[256], vec![0; 110])
        .to_bytes()
}

#[test]
fn defaults_are_filled_in_and_own_keys_win() {
    let house = House::new();
    house.file("a.gguf", &model("llama"));
    let catalog = house
        .check(
            "version: 1\nmemory: { budget: 1MiB, headroom: 1KiB }\n\
             defaults: { context: 512, queue: { depth: 3 }, sampling: { temperature: 0 } }\n\
             models:\n  a: { source: a.gguf, aliases: [first], queue: { timeout: 5s }, preload: true }\n  \
             b: { source: a.gguf, context: 1024, sampling: { temperature: 0.5 } }\n",
        )
        .unwrap();
    assert_eq!((catalog.mode, catalog.budget), (Mode::Fleet, 1023 * 1024));
    let a = catalog.resolve("first").unwrap();
    assert_eq!((a.id.as_str(), a.spec.context, a.preload), ("a", 512, true));
    assert_eq!(a.queue, QueueConfig { depth: 3, timeout: Duration::from_secs(5) });
    let b = catalog.resolve("b").unwrap();
    assert_eq!((a.sampling.temperature, b.sampling.temperature), (Some(0.0), Some(0.5)));
    assert_eq!((b.spec.context, b.estimate.total()), (1024, 2024));
    assert_eq!(b.choice.engine.name(), "reads");
    assert!(catalog.resolve("c").is_none());
}

#[test]
fn single_mode_keeps_one_model_and_preloads_it() {
    let house = House::new();
    house.file("a.gguf", &model("llama"));
    let models = "memory: { budget: 1MiB }\nmodels:\n  a: { source: a.gguf }\n  b: { source: a.gguf }\n";
    let catalog =
        house.check(&format!("version: 1\nmode: single\nsingle: {{ model: b, sequences: 7 }}\n{models}")).unwrap();
    assert_eq!(catalog.models.len(), 1);
    assert!(catalog.models["b"].preload);
    assert_eq!(catalog.models["b"].spec.sequences, 7);
    assert!(house.problems(&format!("version: 1\nmode: single\n{models}")).contains("several models are listed"));
    let missing = house.problems(&format!("version: 1\nmode: single\nsingle: {{ model: c }}\n{models}"));
    assert_eq!(missing, "registry.yaml:3: single.model: there is no model `c`");
    let none = house.problems(&format!("version: 1\nmode: single\nsingle: {{ model: b, sequences: 0 }}\n{models}"));
    assert_eq!(none, "registry.yaml:3: single.sequences: must be at least 1");
}

#[test]
fn what_is_declared_of_a_file_is_no_nothing() {
    let declared = "weights: 1MB, type: Q3_K, layers: 1, embedding: 1, heads: 1, kv_heads: 1, head: 0, vocabulary: 1";
    let yaml = format!(
        "version: 1\nmemory: {{ budget: 1GiB }}\nmodels:\n  a: {{ source: gone.gguf, declared: {{ {declared} }} }}\n"
    );
    let problem = House::new().problems(&yaml);
    assert!(problem.contains("nonzero"), "{problem}");
}

#[test]
fn keys_and_values_are_halves_unless_the_file_says_codes() {
    let house = House::new();
    house.file("a.gguf", &model("llama"));
    let yaml = |defaults: &str, kv_type: &str| {
        let models = format!("models:\n  a: {{ source: a.gguf }}\n  b: {{ source: a.gguf{kv_type} }}\n");
        format!("version: 1\nmemory: {{ budget: 1MiB }}\n{defaults}{models}")
    };
    let kinds = |yaml: &str| {
        let catalog = house.check(yaml).unwrap();
        (catalog.models["a"].spec.kv_type, catalog.models["b"].spec.kv_type)
    };
    assert_eq!(kinds(&yaml("", "")), (KvType::F16, KvType::F16));
    assert_eq!(kinds(&yaml("defaults: { kv_type: q8_0 }\n", ", kv_type: f16")), (KvType::Q8_0, KvType::F16));
    let unknown = house.problems(&yaml("", ", kv_type: q4"));
    assert!(unknown.contains("models.b.kv_type") && unknown.contains("q8_0"), "{unknown}");
}

#[test]
fn mistakes_in_the_text_name_line_and_path() {
    let house = House::new();
    house.file("a.gguf", &model("llama"));
    let unknown =
        house.problems("version: 1\nmemory: { budget: 1GiB }\nmodels:\n  a:\n    source: a.gguf\n    prelaod: true\n");
    assert!(unknown.starts_with("registry.yaml:6: models.a"), "{unknown}");
    assert!(unknown.contains("prelaod") && unknown.contains("preload"), "{unknown}");
    let twice = house
        .problems("version: 1\nmemory: { budget: 1GiB }\nmodels:\n  a: { source: a.gguf }\n  a: { source: a.gguf }\n");
    assert!(twice.starts_with("registry.yaml:5: models") && twice.contains("duplicate"), "{twice}");
    let size = house.problems("version: 1\nmemory: { budget: lots }\nmodels: {}\n");
    assert!(size.starts_with("registry.yaml:2: memory.budget"), "{size}");
    let time = house
        .problems("version: 1\nmemory: { budget: 1GiB }\nmodels:\n  a: { source: a.gguf, queue: { timeout: soon } }\n");
    assert!(time.contains("models.a.queue.timeout") && time.contains("write it as 30s"), "{time}");
    let version = house.problems("version: 2\nmemory: { budget: 1GiB }\nmodels:\n  a: { source: a.gguf }\n");
    assert_eq!(version, "registry.yaml:1: version: version 2 is not known: write `version: 1`");
}

#[test]
fn files_that_cannot_serve_are_named_with_the_remedy() {
    let house = House::new();
    let good = model("llama");
    house.file("cut.gguf", &good[..good.len() - 8]);
    house.file("text.gguf", b"this is no model");
    house.file("mamba.gguf", &model("mamba"));
    let problems = house.problems(
        "version: 1\nmemory: { budget: 1GiB }\nmodels:\n  gone: { source: gone.gguf }\n  cut: { source: cut.gguf }\n  \
         text: { source: text.gguf }\n  mamba: { source: mamba.gguf }\n  none: {}\n",
    );
    let lines: Vec<&str> = problems.lines().collect();
    assert_eq!(lines.len(), 5, "{problems}");
    assert!(
        lines[0].starts_with("registry.yaml:4: models.gone.source: gone.gguf: the file is not there"),
        "{problems}"
    );
    assert!(lines[1].contains("truncated") && lines[1].contains("token_embd.weight"), "{problems}");
    assert!(lines[2].contains("not a GGUF file"), "{problems}");
    assert!(lines[3].contains("architecture `mamba` is not supported"), "{problems}");
    assert!(lines[4].contains("`source` is missing"), "{problems}");
}

#[test]
fn what_can_never_fit_is_said_with_the_numbers() {
    let house = House::new();
    house.file("a.gguf", &model("llama"));
    let alone = house.problems("version: 1\nmemory: { budget: 1KiB }\nmodels:\n  a: { source: a.gguf }\n");
    assert!(alone.starts_with("registry.yaml:4: models.a: it needs 2.0 KiB"), "{alone}");
    let together = house.problems(
        "version: 1\nmemory: { budget: 3KiB }\nmodels:\n  a: { source: a.gguf, preload: true }\n  b: { source: a.gguf, pin: true }\n",
    );
    assert!(together.starts_with("registry.yaml:2: memory.budget: the preloaded and pinned"), "{together}");
}

#[test]
fn names_are_checked_and_belong_to_one_model() {
    let house = House::new();
    house.file("a.gguf", &model("llama"));
    let problems = house.problems(
        "version: 1\nmemory: { budget: 1GiB }\nmodels:\n  a: { source: a.gguf, aliases: [b, x] }\n  \
         b: { source: a.gguf, aliases: [x, \"has space\"] }\n",
    );
    assert!(problems.contains("`b` is the id of a model"), "{problems}");
    assert!(problems.contains("`x` is an alias of `a` already"), "{problems}");
    assert!(problems.contains("a name has 1 to 64"), "{problems}");
}

#[test]
fn the_fake_engine_needs_no_file_but_must_be_named() {
    let house = House::new();
    let catalog = house.check("version: 1\nmemory: { budget: 1GiB }\nmodels:\n  a: { engine: fake }\n").unwrap();
    assert_eq!(catalog.models["a"].choice.engine.name(), "fake");
    let unknown =
        house.problems("version: 1\nmemory: { budget: 1GiB }\nmodels:\n  a: { engine: vllm, source: a.gguf }\n");
    assert!(unknown.contains("the file is not there"), "{unknown}");
    house.file("a.gguf", &model("llama"));
    let unknown =
        house.problems("version: 1\nmemory: { budget: 1GiB }\nmodels:\n  a: { engine: vllm, source: a.gguf }\n");
    assert!(unknown.contains("there is no engine `vllm`"), "{unknown}");
}
