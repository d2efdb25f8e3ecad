//! One byte-level vocabulary for all models: every byte, special tokens, a few merges, padding.

use gguf::{Array, Writer};

use crate::Shape;

/// A chat template that every engine here renders.
pub const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + \
    message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// Tokens after the 256 bytes.
const SPECIAL: [&str; 3] = ["<|im_end|>", "<|im_start|>", "<|endoftext|>"];
/// Tokens after those.
const MERGED: [(&str, &str); 4] = [("h", "e"), ("t", "h"), ("Ġ", "a"), ("th", "e")];

/// The end token of every model.
pub const IM_END: u32 = 256;
/// The start token of every model.
pub const END_OF_TEXT: u32 = 258;
/// Tokens of a vocabulary without padding.
pub const OWN_TOKENS: u64 = 256 + (SPECIAL.len() + MERGED.len()) as u64;
/// Tokens of printable ASCII characters: the first, and the first after them.
pub const PRINTABLE: (u64, u64) = (32, 127);

/// Adds the vocabulary's keys.
pub fn add(writer: Writer, shape: &Shape) -> Writer {
    let mut tokens: Vec<String> = byte_names();
    tokens.extend(SPECIAL.map(str::to_owned));
    tokens.extend(MERGED.map(|(left, right)| format!("{left}{right}")));
    tokens.extend((0..shape.padding).map(|at| format!("padding{at}")));
    let special = 256..256 + SPECIAL.len();
    let kinds = (0..tokens.len()).map(|token| if special.contains(&token) { 3 } else { 1 }).collect();
    let merges = MERGED.map(|(left, right)| format!("{left} {right}")).to_vec();
    let writer = match shape.pre_tokenizer {
        Some(name) => writer.key("tokenizer.ggml.pre", name),
        None => writer,
    };
    writer
        .key("tokenizer.ggml.model", "gpt2")
        .key("tokenizer.ggml.tokens", Array::String(tokens))
        .key("tokenizer.ggml.token_type", Array::I32(kinds))
        .key("tokenizer.ggml.merges", Array::String(merges))
        .key("tokenizer.ggml.bos_token_id", END_OF_TEXT)
        .key("tokenizer.ggml.eos_token_id", IM_END)
        .key("tokenizer.chat_template", CHATML)
}

/// The characters by which a byte-level vocabulary names the bytes
/// (<https://github.com/openai/gpt-2/blob/master/src/encoder.py>).
fn byte_names() -> Vec<String> {
    let is_itself = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut moved = 0x100u32..;
    let mut character = |byte: u8| match is_itself(&byte) {
        true => char::from(byte),
        false => moved.next().and_then(char::from_u32).unwrap_or_default(),
    };
    (0..=255).map(|byte| character(byte).to_string()).collect()
}
