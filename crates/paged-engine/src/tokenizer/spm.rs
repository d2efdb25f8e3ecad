//! SentencePiece, as llama.cpp reads it: characters are joined to tokens, the best score first, and
//! what stays without a token becomes bytes (`llm_tokenizer_spm` in
//! <https://github.com/ggml-org/llama.cpp>, after <https://arxiv.org/abs/1808.06226>).

use std::collections::BinaryHeap;

use gguf::{Array, Header, Value};

use super::vocabulary::{SPACE, Vocabulary};
use crate::Error;

#[derive(Debug)]
pub struct SentencePiece {
    scores: Vec<f32>,
    /// The token of each byte, or the unknown one, or none.
    bytes: [Option<u32>; 256],
    /// Bytes of the longest name: what is longer needs no look.
    longest: usize,
    /// Whether a text begins with a space that is not its own.
    pub space_prefix: bool,
}

/// A part of the text that is being joined, linked to its neighbours; joined parts are empty.
#[derive(Clone, Copy, Debug)]
struct Part {
    start: usize,
    length: usize,
    left: usize,
    right: usize,
}

/// Two parts that make a token. The best score goes first, of equal ones the leftmost.
#[derive(Clone, Copy, Debug)]
struct Offer {
    score: f32,
    at: usize,
    /// Bytes of both when it was offered.
    length: usize,
}

const NONE: usize = usize::MAX;

impl SentencePiece {
    /// # Errors
    /// [`Error::File`] for scores that are not one number for each token.
    pub fn of(header: &Header, vocabulary: &Vocabulary, unknown: Option<u32>) -> Result<Self, Error> {
        let byte = |byte: usize| {
            let plain = u8::try_from(byte).ok().filter(u8::is_ascii).map(|byte| char::from(byte).to_string());
            let id = vocabulary.id(&format!("<0x{byte:02X}>"));
            id.or_else(|| vocabulary.id(&plain?)).or(unknown)
        };
        let prefix = header.metadata.get("tokenizer.ggml.add_space_prefix").and_then(Value::as_bool);
        let lengths = (0u32..).map_while(|id| vocabulary.name(id)).map(str::len);
        Ok(Self {
            scores: scores(header, vocabulary.len())?,
            bytes: std::array::from_fn(byte),
            longest: lengths.max().unwrap_or(0),
            space_prefix: prefix.unwrap_or(true),
        })
    }

    /// Appends the tokens of a text; `first` if it begins the input or follows a special token.
    pub fn encode(&self, vocabulary: &Vocabulary, text: &str, first: bool, out: &mut Vec<u32>) {
        let mut escaped = String::with_capacity(text.len() + text.len() / 2);
        escaped.extend((first && self.space_prefix).then_some(SPACE));
        escaped.extend(text.chars().map(|character| if character == ' ' { SPACE } else { character }));
        self.join(vocabulary, &escaped, out);
    }

    /// Appends the token of one byte, if there is one.
    pub fn encode_byte(&self, byte: u8, out: &mut Vec<u32>) {
        out.extend(self.bytes[usize::from(byte)]);
    }

    /// Bytes for so many tokens.
    pub fn estimate(tokens: u64) -> u64 {
        tokens.saturating_mul(size_of::<f32>() as u64).saturating_add(size_of::<Self>() as u64)
    }

    /// Bytes of memory held.
    pub fn bytes_held(&self) -> u64 {
        (self.scores.capacity() * size_of::<f32>()) as u64
    }

    fn join(&self, vocabulary: &Vocabulary, text: &str, out: &mut Vec<u32>) {
        let mut parts: Vec<Part> = text
            .char_indices()
            .enumerate()
            .map(|(at, (start, character))| {
                let length = character.len_utf8();
                let right = if start + length == text.len() { NONE } else { at + 1 };
                Part { start, length, left: at.wrapping_sub(1), right }
            })
            .collect();
        let mut offers: BinaryHeap<Offer> =
            (0..parts.len()).filter_map(|at| self.offer(vocabulary, text, &parts, at)).collect();
        while let Some(Offer { at, length, .. }) = offers.pop() {
            let (left, right) = (parts[at], parts[at].right);
            // Either part may have changed since they were offered.
            if left.length == 0 || right == NONE || left.length + parts[right].length != length {
                continue;
            }
            parts[at].length = length;
            parts[at].right = parts[right].right;
            parts[right].length = 0;
            if parts[at].right != NONE {
                let next = parts[at].right;
                parts[next].left = at;
            }
            offers.extend(self.offer(vocabulary, text, &parts, left.left));
            offers.extend(self.offer(vocabulary, text, &parts, at));
        }
        for part in parts.iter().filter(|part| part.length > 0) {
            let piece = &text[part.start..part.start + part.length];
            match vocabulary.id(piece) {
                Some(token) => out.push(token),
                None => piece.bytes().for_each(|byte| self.encode_byte(byte, out)),
            }
        }
    }

    /// The parts at `at` and right of it, if together they are a token.
    fn offer(&self, vocabulary: &Vocabulary, text: &str, parts: &[Part], at: usize) -> Option<Offer> {
        let left = parts.get(at)?;
        let length = left.length + parts.get(left.right)?.length;
        if length > self.longest {
            return None;
        }
        let token = vocabulary.id(text.get(left.start..left.start + length)?)?;
        Some(Offer { score: self.scores.get(token as usize).copied()?, at, length })
    }
}

fn scores(header: &Header, count: usize) -> Result<Vec<f32>, Error> {
    const KEY: &str = "tokenizer.ggml.scores";
    let mut scores: Vec<f32> = match header.metadata.get(KEY).map(Value::as_array) {
        None => vec![0.0; count],
        Some(Some(Array::F32(scores))) => scores.clone(),
        Some(Some(Array::I32(scores))) => scores.iter().map(|score| *score as f32).collect(),
        Some(_) => Vec::new(),
    };
    if scores.len() < count {
        return Err(Error::File(format!("key `{KEY}` must be a list of {count} numbers, one for each token")));
    }
    scores.truncate(count);
    // So that the total order of floats finds the two zeros equal.
    scores.iter_mut().for_each(|score| *score += 0.0);
    Ok(scores)
}

impl Ord for Offer {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.score.total_cmp(&other.score).then(other.at.cmp(&self.at)).then(other.length.cmp(&self.length))
    }
}

impl PartialOrd for Offer {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Offer {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Offer {}
