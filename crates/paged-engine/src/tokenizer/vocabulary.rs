//! The tokens of a byte-level vocabulary: their bytes, and which of them are special.
//!
//! Names are written in the alphabet of GPT-2, which gives every byte a printable character
//! (<https://github.com/openai/gpt-2/blob/master/src/encoder.py>).

use std::collections::HashMap;

use gguf::{Array, Header, Value};

use crate::Error;

/// Token types of the format (`llama_token_type`) that stand for themselves in a text.
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;

#[derive(Debug)]
pub struct Vocabulary {
    names: Vec<String>,
    bytes: Vec<Vec<u8>>,
    ids: HashMap<Vec<u8>, u32>,
    /// Names of special tokens, the longest first.
    special: Vec<(String, u32)>,
    /// From the character of a name to its byte.
    alphabet: HashMap<char, u8>,
}

impl Vocabulary {
    pub fn of(header: &Header) -> Result<Self, Error> {
        let strings = |key: &str| header.metadata.get(key).and_then(Value::as_array).and_then(Array::as_strings);
        let names = strings("tokenizer.ggml.tokens").ok_or_else(|| Error::File("the vocabulary is missing".into()))?;
        let kinds = header.metadata.get("tokenizer.ggml.token_type").and_then(Value::as_array);
        let kinds = kinds.and_then(Array::to_u64s).unwrap_or_default();
        let alphabet = alphabet();
        let (mut bytes, mut ids, mut special) = (Vec::new(), HashMap::new(), Vec::new());
        for (id, name) in (0u32..).zip(names) {
            let kind = kinds.get(id as usize).copied().unwrap_or(1);
            if kind == CONTROL || kind == USER_DEFINED {
                special.push((name.clone(), id));
            }
            let own = match kind {
                CONTROL => Vec::new(),
                USER_DEFINED => name.clone().into_bytes(),
                _ => name
                    .chars()
                    .map(|character| alphabet.get(&character).copied())
                    .collect::<Option<_>>()
                    .unwrap_or_default(),
            };
            if kind != CONTROL && kind != USER_DEFINED && !own.is_empty() {
                ids.insert(own.clone(), id);
            }
            bytes.push(own);
        }
        special.retain(|(name, _)| !name.is_empty());
        special.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        Ok(Self { names: names.to_vec(), bytes, ids, special, alphabet })
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn bytes(&self, token: u32) -> &[u8] {
        self.bytes.get(token as usize).map_or(&[], Vec::as_slice)
    }

    pub fn name(&self, token: u32) -> Option<&str> {
        self.names.get(token as usize).map(String::as_str)
    }

    /// The token of exactly these bytes.
    pub fn id(&self, bytes: &[u8]) -> Option<u32> {
        self.ids.get(bytes).copied()
    }

    /// The ordinary token of this name, as merges write it.
    pub fn id_of_name(&self, name: &str) -> Option<u32> {
        let bytes: Option<Vec<u8>> = name.chars().map(|character| self.alphabet.get(&character).copied()).collect();
        self.id(&bytes?)
    }

    /// Cuts a text at the names of special tokens.
    pub fn parts<'t>(&self, text: &'t str) -> Vec<(&'t str, Option<u32>)> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((at, name, id)) = self.first_special(rest) {
            parts.push((&rest[..at], None));
            parts.push((&rest[at..at + name], Some(id)));
            rest = &rest[at + name..];
        }
        parts.push((rest, None));
        parts.retain(|(piece, _)| !piece.is_empty());
        parts
    }

    /// The special token that comes first, the longest of those that start there: place, length, id.
    fn first_special(&self, text: &str) -> Option<(usize, usize, u32)> {
        let found = self.special.iter().filter_map(|(name, id)| Some((text.find(name.as_str())?, name.len(), *id)));
        found.min_by_key(|(at, length, _)| (*at, std::cmp::Reverse(*length)))
    }
}

/// From printable character to byte.
fn alphabet() -> HashMap<char, u8> {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let (themselves, others): (Vec<u8>, Vec<u8>) = (0..=255u8).partition(printable);
    let moved = (256u32..).zip(others).filter_map(|(code, byte)| Some((char::from_u32(code)?, byte)));
    themselves.into_iter().map(|byte| (char::from(byte), byte)).chain(moved).collect()
}
