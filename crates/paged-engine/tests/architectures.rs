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
use synthetic::cases::{self, Golden, PROMPT, golden, shape};

/// Every type, and the largest difference of any logit to llama.cpp's at the last step in a model of
/// it: half more than was measured over all cases with AVX-512, AVX2 and scalar kernels. Logits deviate by about 1.
const BOUNDS: [(TensorType, f32); 14] = [
    (TensorType::F32, 0.0027),
    (TensorType::F16, 0.0038),
    (TensorType::BF16, 0.0143),
    (TensorType::Q8_0, 0.078),
    (TensorType::Q4_0, 0.069),
    (TensorType::Q4_1, 0.065),
    (TensorType::Q5_0, 0.06),
    (TensorType::Q5_1, 0.055),
    (TensorType::IQ4_NL, 0.068),
    (TensorType::Q2_K, 0.1),
    (TensorType::Q3_K, 0.096),
    (TensorType::Q4_K, 0.077),
    (TensorType::Q5_K, 0.078),
    (TensorType::Q6_K, 0.086),
];

fn writer(case: &str, kind: TensorType, seed: u64) -> Writer {
    cases::file(case, kind, seed).unwrap()
}

/// The same tokens, and logits within the bound of the type.
fn hold(golden: &Golden) {
    let name = format!("{}-{}", golden.case, golden.kind);
    let decoder = decoder(&name, &writer(golden.case, golden.kind, golden.seed)).unwrap();
    let steps = Run::new(&decoder).greedy(&PROMPT, golden.tokens.len());
    let tokens: Vec<u32> = steps.iter().map(|(token, _)| *token).collect();
    assert_eq!(tokens, golden.tokens, "{name}");
    let spoken = shape(golden.case, golden.seed).unwrap().spoken;
    let ours = &steps.last().unwrap().1[spoken.0 as usize..spoken.1 as usize];
    let (_, bound) = BOUNDS.into_iter().find(|(kind, _)| *kind == golden.kind).unwrap();
    for (ours, theirs) in ours.iter().zip(&golden.logits) {
        assert!((ours - theirs).abs() < bound, "{name}: {ours} and {theirs}");
    }
}

#[test]
fn greedy_tokens_and_logits_are_those_of_llama_cpp() {
    golden().iter().filter(|golden| cases::NAMES.contains(&golden.case)).for_each(hold);
}

#[test]
fn they_are_in_every_type_of_every_other_architecture() {
    golden().iter().filter(|golden| cases::TYPES.contains(&golden.case)).for_each(hold);
}

#[test]
fn the_golden_file_covers_every_architecture_in_every_type() {
    let golden = golden();
    for (architecture, (kind, _)) in ARCHITECTURES.iter().flat_map(|one| BOUNDS.map(|bound| (one, bound))) {
        let of = |golden: &Golden| shape(golden.case, 1).unwrap().architecture == architecture.name;
        assert!(golden.iter().any(|golden| golden.kind == kind && of(golden)), "{} in {kind}", architecture.name);
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
