//! Special tokens in a text: they are found by name before anything else is tokenized.
//!
//! The longest names take their places first, wherever they stand; the shorter ones get what is left
//! (`tokenizer_st_partition` in <https://github.com/ggml-org/llama.cpp>).

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use super::vocabulary::{Kind, Vocabulary};
use crate::Error;

#[derive(Debug)]
pub struct Specials {
    /// The longest names first.
    tokens: Vec<Special>,
    /// Tells in one pass which names a text has at all; its patterns are `tokens`.
    finder: AhoCorasick,
}

#[derive(Clone, Copy, Debug)]
struct Special {
    id: u32,
    /// Whether spaces behind it belong to it.
    takes_spaces: bool,
}

/// A piece of a text: itself, or a special token that stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'t> {
    Text(&'t str),
    Token(u32),
}

impl Specials {
    /// `model` is the file's `general.name`: Phi 3's special tokens take the spaces behind them, and
    /// nothing else in a file says so.
    ///
    /// # Errors
    /// [`Error::File`] if there are more names than can be searched for.
    pub fn of(vocabulary: &Vocabulary, model: &str) -> Result<Self, Error> {
        let model = model.to_ascii_lowercase();
        let phi3 = model.contains("phi-3") || model.contains("phi3");
        let name = |id| vocabulary.name(id).unwrap_or_default();
        let special = |(id, kind): (u32, Kind)| {
            let takes_spaces = phi3 && !["<unk>", "<s>", "<|endoftext|>"].contains(&name(id));
            (kind.is_special() && !name(id).is_empty()).then_some(Special { id, takes_spaces })
        };
        let mut tokens: Vec<Special> = vocabulary.kinds().filter_map(special).collect();
        tokens.sort_by_key(|special| std::cmp::Reverse(name(special.id).len()));
        let finder = AhoCorasick::builder()
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(tokens.iter().map(|special| name(special.id)))
            .map_err(|error| Error::File(format!("the special tokens: {error}")))?;
        Ok(Self { tokens, finder })
    }

    /// Cuts a text at its special tokens.
    pub fn cut<'t>(&self, vocabulary: &Vocabulary, text: &'t str) -> Vec<Piece<'t>> {
        let mut present = vec![false; self.tokens.len()];
        for found in self.finder.find_overlapping_iter(text) {
            present[found.pattern().as_usize()] = true;
        }
        let mut pieces = vec![Piece::Text(text)];
        for (special, _) in self.tokens.iter().zip(present).filter(|(_, present)| *present) {
            let mut next = Vec::with_capacity(pieces.len() + 2);
            for piece in pieces {
                match piece {
                    Piece::Text(text) => special.cut(vocabulary, text, &mut next),
                    token @ Piece::Token(_) => next.push(token),
                }
            }
            pieces = next;
        }
        pieces.retain(|piece| *piece != Piece::Text(""));
        pieces
    }

    /// Bytes of memory held.
    pub fn bytes_held(&self) -> u64 {
        (self.finder.memory_usage() + self.tokens.capacity() * size_of::<Special>()) as u64
    }
}

impl Special {
    fn cut<'t>(self, vocabulary: &Vocabulary, text: &'t str, out: &mut Vec<Piece<'t>>) {
        let mut rest = text;
        let name = vocabulary.name(self.id).unwrap_or_default();
        while let Some((before, behind)) = rest.split_once(name) {
            out.extend([Piece::Text(before), Piece::Token(self.id)]);
            rest = if self.takes_spaces { behind.trim_start_matches(is_c_space) } else { behind };
        }
        out.push(Piece::Text(rest));
    }
}

/// `isspace` of C.
fn is_c_space(character: char) -> bool {
    matches!(character, ' ' | '\t'..='\r')
}
