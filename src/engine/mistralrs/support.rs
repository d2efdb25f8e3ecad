//! Which models mistral.rs 0.8.1 can run on a CPU, decided before it sees them.
//!
//! It panics on architectures it does not know and on headers that lack a key it wants, and ignores
//! tensors it does not ask for; these checks stand before every such place, so that the operator reads
//! a sentence and not a backtrace, or a wrong answer.

use gguf::{Header, Summary, TensorType, Value};

use crate::engine::Support;

const ARCHITECTURES: [&str; 7] = ["llama", "mistral3", "phi2", "phi3", "starcoder2", "qwen2", "qwen3"];
/// Those whose loader refuses key heads that are not as wide as value heads.
const EQUAL_HEADS: [&str; 4] = ["llama", "mistral3", "qwen2", "qwen3"];

/// What the summary alone can tell.
pub fn supports(model: &Summary) -> Support {
    match refusal(model) {
        Some(reason) => Support::No(reason),
        None => Support::Yes,
    }
}

fn refusal(model: &Summary) -> Option<String> {
    let architecture = model.architecture.as_str();
    if architecture == "qwen3moe" {
        return Some(
            "mistral.rs 0.8.1 has no CPU kernel for the experts of qwen3moe and panics at the first token".into(),
        );
    }
    if !ARCHITECTURES.contains(&architecture) {
        return Some(format!(
            "mistral.rs 0.8.1 does not know the architecture `{architecture}` (it knows {}): use another engine or model",
            ARCHITECTURES.join(", ")
        ));
    }
    if !matches!(model.tokenizer.as_str(), "gpt2" | "llama") {
        return Some(format!(
            "mistral.rs 0.8.1 cannot build the tokenizer `{}` from a GGUF file, only `gpt2` and `llama`",
            model.tokenizer
        ));
    }
    if EQUAL_HEADS.contains(&architecture) && model.key_length != model.value_length {
        return Some(format!(
            "mistral.rs 0.8.1 wants key heads and value heads of one width; here they are {} and {} wide",
            model.key_length, model.value_length
        ));
    }
    if let Some(tensor) = &model.rope_factors {
        return Some(format!(
            "mistral.rs 0.8.1 ignores the factors of tensor `{tensor}` and would answer wrongly: use `engine: paged`"
        ));
    }
    let floats = model.main_type().filter(|kind| matches!(kind, TensorType::F32 | TensorType::F16 | TensorType::BF16));
    if let ("phi3", Some(kind)) = (architecture, floats) {
        return Some(format!(
            "mistral.rs 0.8.1 panics at phi3 in {kind}, it reads quantized types only: use `engine: paged`"
        ));
    }
    let unreadable = model.bytes_by_type.keys().find(|kind| !is_readable(**kind))?;
    Some(unreadable_type(*unreadable))
}

fn unreadable_type(kind: TensorType) -> String {
    let remedy = match kind {
        // What llama-quantize silently puts in place of Q3_K where rows are no multiple of 256.
        TensorType::IQ4_NL => {
            "llama-quantize writes it where rows are no multiple of 256: quantize to Q4_0, Q5_0 or Q8_0 instead"
        }
        _ => "quantize the model again, for example to Q4_K_M or Q8_0",
    };
    format!("mistral.rs 0.8.1 cannot read tensors of type {kind}; {remedy}")
}

fn is_readable(kind: TensorType) -> bool {
    use TensorType::*;
    matches!(kind, F32 | F16 | BF16 | Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 | Q2_K | Q3_K | Q4_K | Q5_K | Q6_K)
}

/// What takes the whole header to tell. `Err` says why the model cannot be loaded.
pub fn check_header(header: &Header, model: &Summary) -> Result<(), String> {
    let key = |name: &str| format!("{}.{name}", model.architecture);
    // Its `ContentConfig` indexes this key and unwraps the number.
    let kv_heads = header.metadata.get(&key("attention.head_count_kv"));
    if kv_heads.and_then(Value::as_u64).is_none() {
        return Err(format!("mistral.rs 0.8.1 wants one number at key `{}`", key("attention.head_count_kv")));
    }
    // Its tokenizer indexes the token list with these.
    for name in ["tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id", "tokenizer.ggml.unknown_token_id"] {
        let id = header.metadata.get(name).and_then(Value::as_u64);
        if id.is_some_and(|id| id >= model.vocabulary) {
            return Err(format!("key `{name}` is beyond the vocabulary of {} tokens", model.vocabulary));
        }
    }
    let rows = header.tensor("token_embd.weight").and_then(|tensor| tensor.dims.get(1).copied());
    match rows {
        None => Err("tensor `token_embd.weight` is missing or is no matrix".into()),
        Some(rows) if rows < model.vocabulary => {
            Err(format!("tensor `token_embd.weight` has {rows} rows for a vocabulary of {} tokens", model.vocabulary))
        }
        Some(_) => Ok(()),
    }
}

/// Tokens a sequence may truly hold. The KV cache of mistral.rs grows by 512 tokens from 512 on and
/// fails, with the whole step, where the next 512 would pass the model's context.
pub fn usable_context(model: &Summary) -> u64 {
    const GROWTH: u64 = 512;
    match model.context_length {
        short @ ..=GROWTH => short,
        long => long - long % GROWTH,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> Summary {
        let tokens = gguf::Array::String((0..300).map(|n| n.to_string()).collect());
        let bytes = gguf::Writer::new()
            .key("general.architecture", "llama")
            .key("llama.context_length", 2048u32)
            .key("llama.embedding_length", 64u32)
            .key("llama.block_count", 2u32)
            .key("llama.attention.head_count", 4u32)
            .key("llama.attention.head_count_kv", 2u32)
            .key("tokenizer.ggml.model", "gpt2")
            .key("tokenizer.ggml.tokens", tokens)
            .tensor("output_norm.weight", TensorType::F32, &[64], vec![0; 256])
            .tensor("output.weight", TensorType::Q3_K, &[256, 1], vec![0; 110])
            .to_bytes();
        Summary::of(&Header::parse(bytes.as_slice(), bytes.len() as u64).unwrap()).unwrap()
    }

    fn reason(model: &Summary) -> String {
        match supports(model) {
            Support::No(reason) => reason,
            Support::Yes => panic!("supported: {model:?}"),
        }
    }

    #[test]
    fn a_plain_llama_is_supported() {
        assert_eq!(supports(&model()), Support::Yes);
    }

    #[test]
    fn what_would_panic_upstream_is_refused_with_its_reason() {
        assert!(reason(&Summary { architecture: "gemma3".into(), ..model() }).contains("`gemma3`"));
        assert!(reason(&Summary { architecture: "qwen3moe".into(), ..model() }).contains("no CPU kernel"));
        assert!(reason(&Summary { tokenizer: "bert".into(), ..model() }).contains("`bert`"));
        assert!(reason(&Summary { value_length: 32, ..model() }).contains("16 and 32"));
    }

    #[test]
    fn what_it_would_compute_wrongly_is_refused_with_the_engine_that_can() {
        let factors = reason(&Summary { rope_factors: Some("rope_freqs.weight".into()), ..model() });
        assert!(factors.contains("`rope_freqs.weight`") && factors.contains("`engine: paged`"), "{factors}");
        let phi3 = |kind| Summary { architecture: "phi3".into(), bytes_by_type: [(kind, 1)].into(), ..model() };
        for kind in [TensorType::F32, TensorType::F16, TensorType::BF16] {
            let floats = reason(&phi3(kind));
            assert!(floats.contains(kind.name()) && floats.contains("`engine: paged`"), "{floats}");
        }
        assert_eq!(supports(&phi3(TensorType::Q4_K)), Support::Yes);
    }

    #[test]
    fn heads_may_differ_where_the_loader_does_not_care() {
        assert_eq!(supports(&Summary { architecture: "phi2".into(), value_length: 32, ..model() }), Support::Yes);
    }

    #[test]
    fn tensor_types_are_named_with_the_remedy() {
        let with = |kind| Summary { bytes_by_type: [(kind, 1)].into(), ..model() };
        assert!(reason(&with(TensorType::IQ4_NL)).contains("IQ4_NL; llama-quantize"));
        assert!(reason(&with(TensorType::MXFP4)).contains("MXFP4; quantize"));
        assert_eq!(supports(&with(TensorType::BF16)), Support::Yes);
    }

    #[test]
    fn the_context_is_cut_to_what_the_cache_can_grow_to() {
        let usable = |context_length| usable_context(&Summary { context_length, ..model() });
        assert_eq!([usable(300), usable(512), usable(1000), usable(2048)], [300, 512, 512, 2048]);
    }
}
