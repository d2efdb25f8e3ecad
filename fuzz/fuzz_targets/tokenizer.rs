//! Any text, bytes and ids through the test vocabularies. The first byte picks the tokenizer.

#![no_main]

use std::sync::LazyLock;

use gguf::{Header, Value};
use libfuzzer_sys::fuzz_target;
use paged_engine::tokenizer::Tokenizer;

const BYTE_LEVEL: &[u8] = include_bytes!("../../crates/paged-engine/tests/vocabularies/byte_level.gguf");
const SENTENCE_PIECE: &[u8] = include_bytes!("../../crates/paged-engine/tests/vocabularies/sentence_piece.gguf");

const FAMILIES: [&str; 18] = [
    "default",
    "gpt-2",
    "smollm",
    "llama-bpe",
    "dbrx",
    "qwen2",
    "qwen35",
    "ufakzeka",
    "seed-coder",
    "minicpm5",
    "tekken",
    "gpt-4o",
    "falcon",
    "deepseek-llm",
    "deepseek-coder",
    "deepseek-v3",
    "viking",
    "poro-chat",
];

static TOKENIZERS: LazyLock<Vec<Tokenizer>> = LazyLock::new(|| {
    let prefixes = [false, true].map(|prefix| with(SENTENCE_PIECE, "tokenizer.ggml.add_space_prefix", prefix));
    let phi3 = with(SENTENCE_PIECE, "general.name", "phi-3");
    let families = FAMILIES.iter().map(|pre| with(BYTE_LEVEL, "tokenizer.ggml.pre", *pre));
    families.chain(prefixes).chain([phi3]).collect()
});

fn with(file: &[u8], key: &str, value: impl Into<Value>) -> Tokenizer {
    let mut header = Header::parse(file, file.len() as u64).expect("the fixture is a GGUF file");
    header.metadata.insert(key.to_owned(), value.into());
    Tokenizer::of(&header).expect("the fixture has a tokenizer")
}

fuzz_target!(|input: &[u8]| {
    let Some((pick, bytes)) = input.split_first() else { return };
    let pick = usize::from(*pick) % TOKENIZERS.len();
    let tokenizer = &TOKENIZERS[pick];
    let text = String::from_utf8_lossy(bytes);
    let ids = tokenizer.encode(&text);
    assert!(tokenizer.decode(&ids).is_ok());

    // SentencePiece without its prefix gives any bytes back, but for its own sign for a space.
    let written: Vec<u8> = tokenizer.encode_bytes(bytes).iter().flat_map(|id| tokenizer.bytes(*id)).copied().collect();
    if pick <= FAMILIES.len() && !bytes.windows(3).any(|three| three == "▁".as_bytes()) {
        assert_eq!(written, bytes);
    }

    let ids: Vec<u32> = bytes.chunks(2).map(|two| two.iter().fold(0, |id, byte| id << 8 | u32::from(*byte))).collect();
    let valid = ids.iter().all(|id| tokenizer.check(*id).is_ok());
    assert_eq!(tokenizer.decode(&ids).is_ok(), valid);
});
