//! Token ids back into bytes, from the model's own vocabulary.
//!
//! Not through mistral.rs, which takes every token that is not of type "normal" for a special one
//! and leaves it out of the text: with a SentencePiece model those are the byte tokens, line feeds
//! among them. It also trims the start of each answer.

use gguf::{Array, Header, Value};

/// GGUF's token types (`tokenizer.ggml.token_type`): what their names say is not always text.
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNKNOWN: i32 = 2;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// The bytes of every token, in one piece of memory.
#[derive(Debug)]
pub struct Vocabulary {
    bytes: Vec<u8>,
    /// Where each token's bytes end.
    ends: Vec<u32>,
    /// SentencePiece puts a space before a text; taken off again when a whole text is made.
    leading_space: bool,
}

impl Vocabulary {
    /// Reads the vocabulary of a model.
    ///
    /// # Errors
    /// The header has no token list.
    pub fn of(header: &Header) -> Result<Self, String> {
        let tokens = header.metadata.get("tokenizer.ggml.tokens").and_then(Value::as_array).and_then(Array::as_strings);
        let tokens = tokens.ok_or("key `tokenizer.ggml.tokens` must be a list of strings")?;
        let sentencepiece = header.str("tokenizer.ggml.model").is_ok_and(|model| model == "llama");
        let kinds = match header.metadata.get("tokenizer.ggml.token_type") {
            Some(Value::Array(Array::I32(kinds))) => kinds.as_slice(),
            _ => &[],
        };
        let mut bytes = Vec::new();
        let mut ends = Vec::with_capacity(tokens.len());
        for (index, token) in tokens.iter().enumerate() {
            append(&mut bytes, token, kinds.get(index).copied().unwrap_or(1), sentencepiece);
            ends.push(u32::try_from(bytes.len()).map_err(|_| "the vocabulary is larger than 4 GiB")?);
        }
        Ok(Self { bytes, ends, leading_space: sentencepiece })
    }

    /// How many tokens there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes that this token adds to the text: none for special tokens and unknown ids.
    pub fn bytes(&self, token: u32) -> &[u8] {
        let index = token as usize;
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let end = self.ends.get(index).copied().unwrap_or(start);
        self.bytes.get(start as usize..end as usize).unwrap_or_default()
    }

    /// The text of these tokens as a text of its own.
    ///
    /// # Errors
    /// The first id that is not in the vocabulary.
    pub fn text(&self, tokens: &[u32]) -> Result<String, u32> {
        if let Some(unknown) = tokens.iter().find(|token| **token as usize >= self.len()) {
            return Err(*unknown);
        }
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| self.bytes(*token)).copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let text = if self.leading_space { text.strip_prefix(' ').unwrap_or(&text) } else { &text };
        Ok(text.to_owned())
    }
}

fn append(bytes: &mut Vec<u8>, token: &str, kind: i32, sentencepiece: bool) {
    match kind {
        CONTROL | UNKNOWN | UNUSED => {}
        USER_DEFINED => bytes.extend(token.bytes()),
        BYTE => bytes.extend(byte_token(token)),
        _ if sentencepiece => bytes.extend(token.replace('\u{2581}', " ").bytes()),
        _ => token.chars().for_each(|c| match byte_of(c) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend(c.encode_utf8(&mut [0; 4]).bytes()),
        }),
    }
}

/// `<0x0A>` is the byte 10.
fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    u8::from_str_radix(digits, 16).ok()
}

/// GPT-2 writes each byte as a printable character: itself where it is printable in Latin-1, else
/// the next free one from U+0100 on.
fn byte_of(c: char) -> Option<u8> {
    let is_itself = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    match u32::from(c) {
        code @ 0..=0xFF => u8::try_from(code).ok().filter(|byte| is_itself(*byte)),
        code => (0..=u8::MAX).filter(|byte| !is_itself(*byte)).nth(usize::try_from(code - 0x100).ok()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary(model: &str, tokens: &[(&str, i32)]) -> Vocabulary {
        let names = Array::String(tokens.iter().map(|(name, _)| (*name).to_owned()).collect());
        let kinds = Array::I32(tokens.iter().map(|(_, kind)| *kind).collect());
        let bytes = gguf::Writer::new()
            .key("tokenizer.ggml.model", model)
            .key("tokenizer.ggml.tokens", names)
            .key("tokenizer.ggml.token_type", kinds)
            .to_bytes();
        Vocabulary::of(&Header::parse(bytes.as_slice(), bytes.len() as u64).unwrap()).unwrap()
    }

    #[test]
    fn byte_level_names_become_bytes() {
        let v =
            vocabulary("gpt2", &[("ĠHi", 1), ("Ċ", 1), ("<|im_end|>", CONTROL), ("<tool> é", USER_DEFINED), ("Ã©", 1)]);
        assert_eq!(v.text(&[0, 1, 2, 4]).as_deref(), Ok(" Hi\né"));
        assert_eq!(v.bytes(3), "<tool> é".as_bytes());
        assert_eq!((v.bytes(5), v.text(&[5])), ([].as_slice(), Err(5)));
    }

    #[test]
    fn sentencepiece_line_feeds_survive_and_the_leading_space_goes() {
        let v =
            vocabulary("llama", &[("<s>", CONTROL), ("<unk>", UNKNOWN), ("<0x0A>", BYTE), ("▁Hi", 1), ("▁there", 1)]);
        assert_eq!(v.text(&[0, 3, 2, 1, 4]).as_deref(), Ok("Hi\n there"));
        assert_eq!(v.bytes(3), b" Hi");
    }

    #[test]
    fn all_256_bytes_have_a_character() {
        let mut seen: Vec<u8> = (0u32..0x200).filter_map(|code| byte_of(char::from_u32(code)?)).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..=u8::MAX).collect::<Vec<_>>());
    }
}
