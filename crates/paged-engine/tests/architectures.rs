//! Every architecture, way of stretching positions and tensor type against llama.cpp, whose tokens
//! and logits for the same files stand beside the generator (`synthetic::cases`).
//!
//! In floats both compute the same up to half-precision keys and values, and to llama.cpp's rounding
//! of queries (and GELU) to half precision. In quantized types both round activations to 8 bits,
//! each at its own places: a model amplifies that to about 3 % of the logits' deviation, ours as
//! much as theirs. The seeds are such that choices are farther apart than that.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use gguf::{TensorType, Writer};
use paged_engine::Error;
use paged_engine::model::{ARCHITECTURES, estimate};
use support::{Run, decoder};
use synthetic::cases::{self, PROMPT, golden, shape};

/// Largest difference of any logit to llama.cpp's in a model of floats; logits deviate by about 1.
const FLOAT_BOUND: f32 = 0.005;
/// The same in quantized types.
const QUANTIZED_BOUND: f32 = 0.15;

fn writer(case: &str, kind: TensorType, seed: u64) -> Writer {
    cases::file(case, kind, seed).unwrap()
}

#[test]
fn greedy_tokens_and_logits_are_those_of_llama_cpp() {
    for golden in golden() {
        let name = format!("{}-{}", golden.case, golden.kind);
        let writer = writer(golden.case, golden.kind, golden.seed);
        let decoder = decoder(&name, &writer).unwrap();
        let steps = Run::new(&decoder).greedy(&PROMPT, golden.tokens.len());
        let tokens: Vec<u32> = steps.iter().map(|(token, _)| *token).collect();
        assert_eq!(tokens, golden.tokens, "{name}");
        let spoken = shape(golden.case, golden.seed).unwrap().spoken;
        let ours = &steps.last().unwrap().1[spoken.0 as usize..spoken.1 as usize];
        let bound = if golden.kind == TensorType::F32 { FLOAT_BOUND } else { QUANTIZED_BOUND };
        for (ours, theirs) in ours.iter().zip(&golden.logits) {
            assert!((ours - theirs).abs() < bound, "{name}: {ours} and {theirs}");
        }
    }
}

#[test]
fn the_golden_file_covers_every_architecture_and_type() {
    let golden = golden();
    for architecture in ARCHITECTURES {
        let there = golden.iter().any(|golden| shape(golden.case, 1).unwrap().architecture == architecture.name);
        assert!(there, "{}", architecture.name);
    }
    let kinds = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL"];
    for kind in kinds.iter().chain(&["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]) {
        assert!(golden.iter().any(|golden| golden.kind.name() == *kind), "{kind}");
    }
    assert!(golden.iter().all(|golden| golden.tokens.len() == 64));
}

#[test]
fn prompts_in_chunks_give_the_same_logits_bit_for_bit() {
    for case in cases::NAMES {
        let decoder = decoder(&format!("chunks-{case}"), &writer(case, TensorType::Q8_0, 3)).unwrap();
        let prompt: Vec<u32> = (0..40).map(|at| 97 + at * 7 % 26).collect();
        let whole = Run::new(&decoder).read(&prompt);
        let mut run = Run::new(&decoder);
        run.read(&prompt[..13]);
        run.read(&prompt[13..14]);
        assert_eq!(run.read(&prompt[14..]), whole, "{case}");
    }
}

#[test]
fn every_byte_of_a_model_is_accounted_for() {
    for case in cases::NAMES {
        let writer = writer(case, TensorType::Q8_0, 1);
        let decoder = decoder(&format!("bytes-{case}"), &writer).unwrap();
        let bytes = writer.to_bytes();
        let header = gguf::Header::parse(bytes.as_slice(), bytes.len() as u64).unwrap();
        let matrices: u64 = header.tensors.iter().filter(|t| t.dims.len() > 1).map(|t| t.bytes).sum();
        let (mapped, own) = decoder.bytes();
        assert_eq!(mapped, matrices, "{case}");
        let (estimated, own_estimated) = estimate(&gguf::Summary::of(&header).unwrap());
        assert_eq!(estimated, mapped, "{case}");
        let vectors: u64 = header.tensors.iter().filter(|t| t.dims.len() == 1).map(|t| t.bytes).sum();
        assert!(own >= vectors.saturating_sub(256) && own <= own_estimated, "{case}: {own} of {own_estimated}");
    }
}

fn refusal(name: &str, writer: &Writer) -> Error {
    decoder(name, writer).err().unwrap_or_else(|| panic!("{name} loads"))
}

#[test]
fn what_a_decoder_would_leave_out_is_refused_by_name() {
    let with = |name: &str| {
        let vector = vec![0; 256 * 4];
        writer("llama", TensorType::F32, 1).tensor(name, TensorType::F32, &[256], vector)
    };
    for name in ["blk.0.attn_q_norm.weight", "blk.9.attn_norm.weight", "cls.output.weight"] {
        let Error::Unsupported(why) = refusal("left-out", &with(name)) else { panic!("{name}") };
        assert!(why.contains(name), "{why}");
    }
    // A bias is no such thing: every linear part may have one.
    assert!(decoder("biased", &with("blk.1.ffn_down.bias")).is_ok());
}

#[test]
fn what_is_not_supported_is_named() {
    let base = || writer("llama", TensorType::F32, 1);
    let cases = [
        ("yarn's cousin", base().key("llama.rope.scaling.type", "su"), "`su`"),
        ("experts", base().key("llama.expert_count", 8u32), "experts"),
    ];
    for (name, writer, named) in cases {
        let Error::Unsupported(why) = refusal("unsupported", &writer) else { panic!("{name}") };
        assert!(why.contains(named), "{why}");
    }
    let unknown = synthetic::model(
        &synthetic::Shape { architecture: "mamba", ..shape("llama", 1).unwrap() },
        synthetic::Quant::Plain(TensorType::F32),
    );
    let Error::Unsupported(why) = refusal("unknown", &unknown) else { panic!("mamba") };
    assert!(why.contains("`mamba`") && why.contains("gemma3"), "{why}");
}

#[test]
fn absurd_numbers_are_errors_that_name_the_key() {
    let keys = [
        ("llama.rope.scaling.factor", gguf::Value::F32(f32::NAN)),
        ("llama.rope.scaling.original_context_length", gguf::Value::Uint(0)),
        ("llama.attention.sliding_window", gguf::Value::Uint(u64::MAX)),
        ("llama.final_logit_softcapping", gguf::Value::F32(-1.0)),
    ];
    for (key, value) in keys {
        let Error::File(why) = refusal("absurd", &writer("llama", TensorType::F32, 1).key(key, value)) else {
            panic!("{key}")
        };
        assert!(why.contains(key), "{why}");
    }
}
