use gguf::Writer;
use proptest::prelude::*;

use super::*;

/// All bytes, then a few merges and two special tokens.
fn tokenizer() -> Tokenizer {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut others = 256u32..;
    let mut name = |byte: u8| match printable(&byte) {
        true => char::from(byte).to_string(),
        false => char::from_u32(others.next().unwrap()).unwrap().to_string(),
    };
    let mut names: Vec<String> = (0..=255).map(&mut name).collect();
    names.extend(["he", "ll", "hell", "lo", "Ġw", "<|im_start|>", "<|im_end|>"].map(str::to_owned));
    let kinds = (0..names.len()).map(|id| if id >= names.len() - 2 { 3 } else { 1 }).collect();
    let merges = ["h e", "l l", "he ll", "l o", "Ġ w"].map(str::to_owned).to_vec();
    let bytes = Writer::new()
        .key("tokenizer.ggml.model", "gpt2")
        .key("tokenizer.ggml.pre", "llama-bpe")
        .key("tokenizer.ggml.tokens", gguf::Array::String(names))
        .key("tokenizer.ggml.token_type", gguf::Array::I32(kinds))
        .key("tokenizer.ggml.merges", gguf::Array::String(merges))
        .key("tokenizer.ggml.eos_token_id", 262u32)
        .to_bytes();
    Tokenizer::of(&Header::parse(bytes.as_slice(), bytes.len() as u64).unwrap()).unwrap()
}

#[test]
fn merges_apply_in_the_order_of_their_ranks() {
    let tokenizer = tokenizer();
    let names: Vec<&str> = tokenizer.encode("hello w").iter().filter_map(|id| tokenizer.name(*id)).collect();
    assert_eq!(names, ["hell", "o", "Ġw"]);
}

#[test]
fn special_names_become_their_tokens_and_have_no_text() {
    let tokenizer = tokenizer();
    assert_eq!(tokenizer.encode("<|im_start|>a<|im_end|>"), [261, u32::from(b'a'), 262]);
    assert_eq!(tokenizer.decode(&[261, u32::from(b'a'), 262]).unwrap(), "a");
    assert!(tokenizer.is_end(262) && !tokenizer.is_end(261));
    assert!(tokenizer.decode(&[263]).is_err());
}

#[test]
fn unknown_families_are_refused_by_name() {
    assert!(supported("gpt2", Some("mystery")).unwrap_err().contains("`mystery`"));
    assert!(supported("llama", None).unwrap_err().contains("`llama` tokenizers"));
    assert_eq!(supported("gpt2", Some("qwen2")), Ok(()));
}

proptest! {
    #[test]
    fn any_text_comes_back_whole(text in "\\PC{0,40}|[ \\n\\t\\rhelow0-9éß中🌍]{0,60}") {
        let tokenizer = tokenizer();
        prop_assert_eq!(tokenizer.decode(&tokenizer.encode(&text)).unwrap(), text);
    }
}
