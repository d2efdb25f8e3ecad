use proptest::prelude::*;

use super::*;

/// A small model whose header has everything a summary asks for.
fn model() -> Writer {
    Writer::new()
        .key("general.architecture", "llama")
        .key("general.name", "tiny")
        .key("llama.context_length", 1024u32)
        .key("llama.block_count", 2u32)
        .key("llama.embedding_length", 256u32)
        .key("llama.attention.head_count", 4u32)
        .key("llama.attention.head_count_kv", 2u32)
        .key("tokenizer.ggml.model", "gpt2")
        .key("tokenizer.ggml.tokens", Array::String(vec!["a".into(), "b".into()]))
        .key("tokenizer.ggml.scores", Array::F32(vec![0.5, -1.0]))
        .tensor("token_embd.weight", TensorType::Q3_K, &[256, 2], vec![1; 220])
        .tensor("output_norm.weight", TensorType::F32, &[256], vec![0; 1024])
}

fn parse(bytes: &[u8]) -> Result<Header, Error> {
    Header::parse(bytes, bytes.len() as u64)
}

fn problem(bytes: &[u8]) -> String {
    parse(bytes).expect_err("the file is broken").to_string()
}

#[test]
fn what_was_written_is_read_back() {
    let bytes = model().to_bytes();
    let header = parse(&bytes).unwrap();
    assert_eq!(header.str("general.name").unwrap(), "tiny");
    assert_eq!(header.metadata["tokenizer.ggml.scores"], Value::Array(Array::F32(vec![0.5, -1.0])));
    let embedding = header.tensor("token_embd.weight").unwrap();
    assert_eq!((embedding.kind, embedding.bytes, embedding.elements()), (TensorType::Q3_K, 220, 512));
    assert_eq!(embedding.offset, header.data_offset);
    assert_eq!(bytes[embedding.offset as usize], 1);
}

#[test]
fn the_summary_knows_shape_and_bytes() {
    let summary = Summary::of(&parse(&model().to_bytes()).unwrap()).unwrap();
    assert_eq!((summary.layers, summary.heads, summary.kv_heads, summary.key_length), (2, 4, 2, 64));
    assert_eq!(summary.kv_bytes_per_token(2), 2 * 2 * (64 + 64) * 2);
    assert_eq!(summary.tensor_bytes(), 1244);
    assert_eq!(summary.vocabulary, 2);
}

#[test]
fn the_summary_names_the_tensor_that_stretches_positions() {
    let factors = |name: &str| {
        let bytes = model().tensor(name, TensorType::F32, &[1], vec![0; 4]).to_bytes();
        Summary::of(&parse(&bytes).unwrap()).unwrap().rope_factors
    };
    for name in ["rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"] {
        assert_eq!(factors(name).as_deref(), Some(name));
    }
    assert_eq!(factors("rope_freqs.bias"), None);
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let bytes = model().to_bytes();
    for len in 0..bytes.len() {
        assert!(parse(&bytes[..len]).is_err(), "cut at {len}");
    }
    let cut = problem(&bytes[..bytes.len() - 1]);
    assert!(cut.contains("truncated") && cut.contains("output_norm.weight"), "{cut}");
}

#[test]
fn foreign_files_are_named_as_such() {
    assert!(problem(b"PK\x03\x04....").contains("not a GGUF file"));
    let mut old = model().to_bytes();
    old[4] = 1;
    assert!(problem(&old).contains("version 1"));
    let mut swapped = model().to_bytes();
    swapped[4..8].copy_from_slice(&3u32.to_be_bytes());
    assert!(problem(&swapped).contains("big-endian"));
}

#[test]
fn huge_counts_are_refused_before_anything_is_allocated() {
    let mut tensors = model().to_bytes();
    tensors[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(problem(&tensors).contains("the tensor directory"));
    let mut keys = model().to_bytes();
    keys[16..24].copy_from_slice(&(u64::MAX / 2).to_le_bytes());
    assert!(problem(&keys).contains("the metadata"));
    let mut string = model().to_bytes();
    string[24..32].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(problem(&string).contains("truncated"));
}

#[test]
fn tensors_that_cannot_be_are_refused_by_name() {
    let odd_rows = Writer::new().tensor("w", TensorType::Q3_K, &[200], vec![0; 110]);
    assert!(problem(&odd_rows.to_bytes()).contains("tensor `w`: its rows of 200"));
    let overflow = Writer::new().tensor("w", TensorType::F32, &[1 << 40, 1 << 40], vec![]);
    assert!(problem(&overflow.to_bytes()).contains("too large"));
    let twice =
        Writer::new().tensor("w", TensorType::F32, &[1], vec![0; 4]).tensor("w", TensorType::F32, &[1], vec![0; 4]);
    assert!(problem(&twice.to_bytes()).contains("stands twice"));
    let over =
        Writer::new().tensor("a", TensorType::F32, &[16], vec![0; 32]).tensor("b", TensorType::F32, &[8], vec![0; 32]);
    assert!(problem(&over.to_bytes()).contains("tensor `b`: lies over tensor `a`"));
}

#[test]
fn nested_arrays_end() {
    let mut deep = Array::U8(vec![1]);
    for _ in 0..10 {
        deep = Array::Array(vec![deep]);
    }
    assert!(problem(&Writer::new().key("deep", deep).to_bytes()).contains("nested too deep"));
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = parse(&bytes);
        let _ = parse(&[&MAGIC[..], &3u32.to_le_bytes(), &bytes].concat());
    }

    #[test]
    fn no_flipped_byte_makes_the_reader_panic(at in 0usize..700, with in any::<u8>()) {
        let mut bytes = model().to_bytes();
        let at = at % bytes.len();
        bytes[at] = with;
        if let Ok(header) = parse(&bytes) {
            let _ = Summary::of(&header);
        }
    }
}
