//! Any bytes as a GGUF file: the header, and what is read from it before a tensor is touched.

#![no_main]

use gguf::{Header, Summary};
use libfuzzer_sys::fuzz_target;
use paged_engine::model::Config;
use paged_engine::tokenizer::Tokenizer;

fuzz_target!(|bytes: &[u8]| {
    let Ok(header) = Header::parse(bytes, bytes.len() as u64) else { return };
    assert!(header.tensors.iter().all(|tensor| tensor.offset + tensor.bytes <= bytes.len() as u64));
    let _ = Summary::of(&header).map(|summary| (summary.kv_bytes_per_token(2), summary.main_type()));
    let _ = Config::of(&header);
    if let Ok(tokenizer) = Tokenizer::of(&header) {
        let ids = tokenizer.encode("Hello <s> wörld\n 123");
        assert!(tokenizer.decode(&ids).is_ok() && tokenizer.bytes_held() > 0);
    }
});
