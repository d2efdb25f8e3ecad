//! Small models for which llama.cpp's answers are known: every architecture, every way to stretch
//! positions, every type.
//!
//! The answers are greedy tokens after [`PROMPT`] and the logits of the last step, from llama.cpp
//! of October 2026 on a CPU, without flash attention, keys and values in half precision. The seeds
//! are such that the likeliest token leads by more than rounding can turn.

use gguf::{TensorType, Writer};

use crate::{Factors, Quant, Shape, model};

/// What is asked.
pub const PROMPT_TEXT: &str = "help me";
/// Its tokens.
pub const PROMPT: [u32; 7] = [104, 101, 108, 112, 32, 109, 101];
/// The context that models are loaded for.
pub const CONTEXT: u64 = 512;

/// All cases. `types` is a small llama, for types that round.
pub const NAMES: [&str; 14] = [
    "types",
    "llama",
    "llama-factors",
    "llama-linear",
    "mistral3",
    "qwen2",
    "qwen2-yarn",
    "qwen3",
    "phi3-short",
    "phi3-long",
    "gemma2",
    "gemma2-27b",
    "gemma3",
    "gemma3-plain",
];

/// As `types`, for every other architecture. Heads of qwen3 and gemma make rows that no k-quant fits:
/// what stands in for it there is part of the case.
pub const TYPES: [&str; 6] =
    ["types-mistral3", "types-qwen2", "types-qwen3", "types-phi3-short", "types-gemma2", "types-gemma3"];

/// What llama.cpp made of one file.
#[derive(Clone, Debug, PartialEq)]
pub struct Golden {
    pub case: &'static str,
    pub kind: TensorType,
    pub seed: u64,
    pub tokens: Vec<u32>,
    /// Of the spoken tokens, at the last step.
    pub logits: Vec<f32>,
}

/// All answers that are known.
pub fn golden() -> Vec<Golden> {
    lines().filter_map(parse).collect()
}

fn lines() -> impl Iterator<Item = &'static str> {
    include_str!("../golden/llama_cpp.txt").lines().filter(|line| !line.starts_with('#'))
}

/// `case type seed token,token,... logit,logit,...`
fn parse(line: &'static str) -> Option<Golden> {
    let mut fields = line.split(' ');
    Some(Golden {
        case: fields.next()?,
        kind: kind(fields.next()?)?,
        seed: fields.next()?.parse().ok()?,
        tokens: fields.next()?.split(',').map(|token| token.parse().ok()).collect::<Option<_>>()?,
        logits: fields.next()?.split(',').map(|logit| logit.parse().ok()).collect::<Option<_>>()?,
    })
}

/// The tensor type of this name.
pub fn kind(name: &str) -> Option<TensorType> {
    (0..64).filter_map(TensorType::from_id).find(|kind| kind.name() == name)
}

/// The file of a case; `None` if there is no such case.
pub fn file(case: &str, kind: TensorType, seed: u64) -> Option<Writer> {
    Some(with_keys(case, model(&shape(case, seed)?, Quant::Plain(kind))))
}

/// The shape of a case; `None` if there is no such case.
pub fn shape(case: &str, seed: u64) -> Option<Shape> {
    let base = Shape {
        layers: 4,
        hidden: 256,
        head: 64,
        feed_forward: 512,
        context: CONTEXT,
        spoken: (97, 123),
        seed,
        ..Shape::default()
    };
    let qwen = Shape { rope_base: 1e6, ..base };
    let gemma = Shape { tied: true, head: 32, ..qwen };
    if let Some(of) = case.strip_prefix("types-") {
        return Some(Shape { layers: 2, spoken: (97, 105), ..shape(of, seed)? });
    }
    Some(match case {
        "types" => Shape { layers: 2, spoken: (97, 105), ..base },
        "llama" | "llama-linear" => base,
        "llama-factors" => Shape { factors: Factors::One, tied: true, rope_base: 500_000.0, ..base },
        "mistral3" => Shape { architecture: "mistral3", ..base },
        "qwen2" | "qwen2-yarn" => Shape { architecture: "qwen2", ..qwen },
        "qwen3" => Shape { architecture: "qwen3", tied: true, head: 96, ..qwen },
        "phi3-short" | "phi3-long" => Shape { architecture: "phi3", factors: Factors::ShortAndLong, ..base },
        "gemma2" => Shape { architecture: "gemma2", window: Some(8), head: 128, rope_base: 1e4, ..gemma },
        "gemma2-27b" => Shape { architecture: "gemma2", layers: 46, rope_base: 1e4, ..gemma },
        "gemma3" => Shape { architecture: "gemma3", window: Some(8), layers: 7, ..gemma },
        "gemma3-plain" => Shape { architecture: "gemma3", ..gemma },
        _ => return None,
    })
}

/// Adds a case's own keys. Windows are short and caps low, so that 64 tokens feel them.
pub fn with_keys(case: &str, writer: Writer) -> Writer {
    match case.trim_start_matches("types-") {
        "llama-linear" => writer.key("llama.rope.scaling.type", "linear").key("llama.rope.scaling.factor", 4.0f32),
        "mistral3" => writer
            .key("mistral3.rope.scaling.type", "yarn")
            .key("mistral3.rope.scaling.factor", 8.0f32)
            .key("mistral3.rope.scaling.original_context_length", 32u32)
            .key("mistral3.rope.scaling.yarn_beta_fast", 16.0f32)
            .key("mistral3.rope.scaling.yarn_log_multiplier", 0.5f32)
            .key("mistral3.attention.temperature_scale", 0.5f32),
        "qwen2-yarn" => writer
            .key("qwen2.rope.scaling.type", "yarn")
            .key("qwen2.rope.scaling.factor", 4.0f32)
            .key("qwen2.rope.scaling.original_context_length", 128u32),
        "phi3-short" | "phi3-long" => {
            let original = if case == "phi3-long" { 128u32 } else { 512 };
            writer
                .key("phi3.rope.scaling.attn_factor", 1.2f32)
                .key("phi3.rope.scaling.original_context_length", original)
        }
        "gemma2" => writer.key("gemma2.attn_logit_softcapping", 2.0f32).key("gemma2.final_logit_softcapping", 3.0f32),
        "gemma3" => writer
            .key("gemma3.rope.scaling.type", "linear")
            .key("gemma3.rope.scaling.factor", 8.0f32)
            .key("gemma3.final_logit_softcapping", 3.0f32),
        _ => writer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_golden_file_is_read() {
        assert_eq!(golden().len(), lines().count());
        assert!(golden().iter().all(|golden| golden.tokens.len() == 64 && shape(golden.case, 1).is_some()));
    }

    #[test]
    fn every_case_has_a_file() {
        for case in NAMES.into_iter().chain(TYPES) {
            assert!(file(case, TensorType::Q8_0, 1).is_some(), "{case}");
        }
    }
}
