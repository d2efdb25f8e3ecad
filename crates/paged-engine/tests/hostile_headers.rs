//! Altered model files: loading says what is wrong, or loads; it never panics.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use gguf::{Array, Header, TensorType, Value, Writer};
use paged_engine::model::Decoder;
use paged_engine::tokenizer::Tokenizer;
use paged_engine::weights::Weights;
use proptest::prelude::*;
use support::TempFile;
use synthetic::{Quant, Shape, cases};

/// One small file of each architecture and way of stretching positions.
const CASES: [&str; 8] =
    ["llama-factors", "llama-linear", "mistral3", "qwen2-yarn", "qwen3", "phi3-long", "gemma2", "gemma3"];

/// The case's keys on a model of a few kilobytes.
fn small(case: &str) -> Vec<u8> {
    let shape = Shape { layers: 2, hidden: 32, head: 8, feed_forward: 32, ..cases::shape(case, 1).unwrap() };
    cases::with_keys(case, synthetic::model(&shape, Quant::Plain(TensorType::Q8_0))).to_bytes()
}

/// Loads as the engine does; what comes of it does not matter.
fn load(name: &str, bytes: &[u8]) {
    let file = TempFile::new(name, bytes);
    if let Ok((weights, header)) = Weights::open(&file.0) {
        let _ = Tokenizer::of(&header);
        let _ = Decoder::new(weights, &header, 256);
    }
}

/// Numbers at the edges of what arithmetic can bear.
fn extreme() -> impl Strategy<Value = Value> {
    let integers = [0, 1, 2, 3, 7, 255, 1 << 24, u64::from(u32::MAX), 1 << 62, u64::MAX - 1, u64::MAX];
    let floats = [0.0, -0.0, -1.0, 1.0, 1e-45, f32::MIN_POSITIVE, f32::MAX, f32::INFINITY, f32::NAN];
    prop_oneof![
        prop::sample::select(integers.to_vec()).prop_map(Value::Uint),
        Just(Value::Int(i64::MIN)),
        prop::sample::select(floats.to_vec()).prop_map(Value::F32),
        Just(Value::F64(1e300)),
        Just(Value::Bool(true)),
        Just(Value::String("yarn".into())),
        Just(Value::Array(Array::U64(vec![u64::MAX, 1]))),
        Just(Value::Array(Array::Bool(vec![true, false]))),
    ]
}

/// The file with another value at one key, and with other dimensions of one tensor.
fn altered(bytes: &[u8], key: usize, value: Option<Value>, tensor: usize, dims: Option<Vec<u64>>) -> Vec<u8> {
    let header = Header::parse(bytes, bytes.len() as u64).unwrap();
    let mut writer = Writer::new();
    // The vocabulary's keys are the tokenizer's affair, and most of the file.
    let numbers = |key: &str| !key.starts_with("tokenizer.") && key != "general.architecture";
    let chosen = header.metadata.keys().filter(|key| numbers(key)).cycle().nth(key).unwrap();
    for (name, old) in &header.metadata {
        let new = value.clone().filter(|_| name == chosen);
        writer = writer.key(name, new.unwrap_or_else(|| old.clone()));
    }
    let chosen = tensor % header.tensors.len();
    for (at, info) in header.tensors.iter().enumerate() {
        let dims = dims.as_ref().filter(|_| at == chosen).unwrap_or(&info.dims);
        let data = bytes[info.offset as usize..][..info.bytes as usize].to_vec();
        writer = writer.tensor(&info.name, info.kind, dims, data);
    }
    writer.to_bytes()
}

fn dims() -> impl Strategy<Value = Vec<u64>> {
    let sizes = vec![0, 1, 2, 16, 32, 64, 263, 1 << 32, u64::MAX];
    prop::collection::vec(prop::sample::select(sizes), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn no_value_at_any_key_and_no_shape_makes_loading_panic(
        case in prop::sample::select(CASES.to_vec()),
        key in 0usize..40,
        value in prop::option::of(extreme()),
        tensor in 0usize..40,
        dims in prop::option::weighted(0.3, dims()),
    ) {
        load("values", &altered(&small(case), key, value, tensor, dims));
    }

    #[test]
    fn no_flipped_bytes_make_loading_panic(
        case in prop::sample::select(CASES.to_vec()),
        flips in prop::collection::vec((any::<u32>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = small(case);
        let header = Header::parse(bytes.as_slice(), bytes.len() as u64).unwrap().data_offset as usize;
        for (at, with) in flips {
            bytes[at as usize % header] = with;
        }
        load("flips", &bytes);
    }

    #[test]
    fn no_cut_makes_loading_panic(case in prop::sample::select(CASES.to_vec()), keep in 0.0..1.0f64) {
        let bytes = small(case);
        load("cut", &bytes[..(bytes.len() as f64 * keep) as usize]);
    }
}
