//! The tokens of a vocabulary: their names, what they are for, and the bytes they write.
//!
//! Names and bytes lie end to end in one buffer each, and the index of names holds ids alone, so a
//! vocabulary of 150,000 tokens is a handful of allocations.

use std::hash::BuildHasher;

use gguf::{Array, Header, Value};
use hashbrown::{DefaultHashBuilder, HashTable};

use super::alphabet;
use crate::Error;

/// How the names of ordinary tokens are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// In the alphabet of GPT-2: one character a byte.
    Bytes,
    /// As text, with `▁` for the space.
    Text,
}

/// What a token is for: the format's `llama_token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Normal,
    /// Stands for what has no token.
    Unknown,
    /// Has a meaning and no text.
    Control,
    /// Found in the text before everything else, and written as it is named.
    UserDefined,
    /// One byte, named `<0x0A>`.
    Byte,
    /// Unused, or of no known type: it has no text.
    Unused,
}

impl Kind {
    /// Whether its name is found in a text before the text is tokenized.
    pub fn is_special(self) -> bool {
        matches!(self, Self::Unknown | Self::Control | Self::UserDefined)
    }

    fn from_id(id: i32) -> Self {
        match id {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            6 => Self::Byte,
            _ => Self::Unused,
        }
    }
}

#[derive(Debug)]
pub struct Vocabulary {
    names: Names,
    kinds: Vec<Kind>,
    bytes: Vec<u8>,
    /// Where each token's bytes end.
    ends: Vec<u32>,
}

/// The names of tokens, found by id and by text.
#[derive(Debug)]
struct Names {
    text: String,
    /// Where each name ends.
    ends: Vec<u32>,
    ids: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Vocabulary {
    /// Reads names and kinds. The bytes are empty until [`Vocabulary::spell`] is called, since the
    /// kinds may still be corrected.
    ///
    /// # Errors
    /// [`Error::File`] for lists that are missing, of another type or of another length.
    pub fn of(header: &Header) -> Result<Self, Error> {
        let names = strings(header, "tokenizer.ggml.tokens")?;
        Ok(Self { kinds: kinds(header, names.len())?, names: Names::of(names)?, bytes: Vec::new(), ends: Vec::new() })
    }

    /// Fills in what every token writes.
    ///
    /// # Errors
    /// [`Error::File`] for a vocabulary of more than 4 GiB.
    pub fn spell(&mut self, spelling: Spelling) -> Result<(), Error> {
        let mut bytes = Vec::with_capacity(self.names.text.len());
        let mut ends = Vec::with_capacity(self.len());
        for (name, kind) in self.names.iter().zip(&self.kinds) {
            match kind {
                Kind::UserDefined => bytes.extend_from_slice(name.as_bytes()),
                Kind::Byte => bytes.extend(byte_of(name)),
                Kind::Normal if spelling == Spelling::Bytes => alphabet::read(name, &mut bytes),
                Kind::Normal => name.split(SPACE).enumerate().for_each(|(at, piece)| {
                    bytes.extend_from_slice(if at > 0 { b" " } else { b"" });
                    bytes.extend_from_slice(piece.as_bytes());
                }),
                Kind::Unknown | Kind::Control | Kind::Unused => {}
            }
            ends.push(offset(bytes.len())?);
        }
        bytes.shrink_to_fit();
        (self.bytes, self.ends) = (bytes, ends);
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.kinds.len()
    }

    pub fn bytes(&self, token: u32) -> &[u8] {
        slice(&self.ends, token).and_then(|range| self.bytes.get(range)).unwrap_or_default()
    }

    pub fn name(&self, token: u32) -> Option<&str> {
        self.names.get(token)
    }

    /// The token of this name; of several, the last. Empty names are nobody's.
    pub fn id(&self, name: &str) -> Option<u32> {
        self.names.id(name)
    }

    pub fn set_kind(&mut self, token: u32, kind: Kind) {
        if let Some(known) = self.kinds.get_mut(token as usize) {
            *known = kind;
        }
    }

    /// Every token with its kind.
    pub fn kinds(&self) -> impl Iterator<Item = (u32, Kind)> {
        (0u32..).zip(self.kinds.iter().copied())
    }

    /// Bytes of a vocabulary of so many tokens whose names take `length` bytes: names and what they
    /// write, where each ends, kinds, and the index of names.
    pub fn estimate(tokens: u64, length: u64) -> u64 {
        let each = (2 * size_of::<u32>() + size_of::<Kind>()) as u64;
        let flat = length.saturating_mul(2).saturating_add(tokens.saturating_mul(each));
        flat.saturating_add(super::table(tokens, size_of::<u32>()))
    }

    /// Bytes of memory held.
    pub fn bytes_held(&self) -> u64 {
        let ends = (self.ends.capacity() + self.names.ends.capacity()) * size_of::<u32>();
        let texts = self.names.text.capacity() + self.bytes.capacity();
        (self.names.ids.allocation_size() + ends + texts + self.kinds.capacity() * size_of::<Kind>()) as u64
    }
}

impl Names {
    fn of(all: &[String]) -> Result<Self, Error> {
        let mut names = Self {
            text: String::with_capacity(all.iter().map(String::len).sum()),
            ends: Vec::with_capacity(all.len()),
            ids: HashTable::with_capacity(all.len()),
            hasher: DefaultHashBuilder::default(),
        };
        for (id, name) in (0u32..).zip(all) {
            names.text.push_str(name);
            names.ends.push(offset(names.text.len())?);
            names.enter(id, name);
        }
        Ok(names)
    }

    fn enter(&mut self, id: u32, name: &str) {
        let (text, ends, hasher) = (self.text.as_bytes(), &self.ends, &self.hasher);
        let known = |id: &u32| slice(ends, *id).and_then(|range| text.get(range)).unwrap_or_default();
        if !name.is_empty() {
            let hash = hasher.hash_one(name.as_bytes());
            let same = |other: &u32| known(other) == name.as_bytes();
            let entry = self.ids.entry(hash, same, |other| hasher.hash_one(known(other)));
            *entry.insert(id).into_mut() = id;
        }
    }

    fn get(&self, id: u32) -> Option<&str> {
        slice(&self.ends, id).and_then(|range| self.text.get(range))
    }

    fn id(&self, name: &str) -> Option<u32> {
        // As bytes, which saves the search for the borders of characters.
        let (text, name) = (self.text.as_bytes(), name.as_bytes());
        let same = |id: &u32| slice(&self.ends, *id).and_then(|range| text.get(range)) == Some(name);
        self.ids.find(self.hasher.hash_one(name), same).copied()
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        (0u32..).map_while(|id| self.get(id))
    }
}

/// What SentencePiece writes for a space
/// (<https://github.com/google/sentencepiece#whitespace-is-treated-as-a-basic-symbol>).
pub const SPACE: char = '\u{2581}';

/// The list of strings at `key`.
pub fn strings<'h>(header: &'h Header, key: &str) -> Result<&'h [String], Error> {
    let value = header.metadata.get(key).ok_or_else(|| Error::File(format!("key `{key}` is missing")))?;
    let list = value.as_array().and_then(Array::as_strings);
    list.ok_or_else(|| Error::File(format!("key `{key}` must be a list of strings")))
}

fn kinds(header: &Header, count: usize) -> Result<Vec<Kind>, Error> {
    const KEY: &str = "tokenizer.ggml.token_type";
    let ids: Vec<i32> = match header.metadata.get(KEY).map(Value::as_array) {
        None => return Ok(vec![Kind::Normal; count]),
        Some(Some(Array::I32(ids))) => ids.clone(),
        Some(Some(other)) => other.to_u64s().map(narrow).unwrap_or_default(),
        Some(None) => Vec::new(),
    };
    match ids.len() >= count {
        true => Ok(ids.into_iter().take(count).map(Kind::from_id).collect()),
        false => Err(Error::File(format!("key `{KEY}` must be a list of {count} integers, one for each token"))),
    }
}

/// Types that do not fit are no known ones.
fn narrow(ids: Vec<u64>) -> Vec<i32> {
    ids.into_iter().map(|id| i32::try_from(id).unwrap_or_default()).collect()
}

/// The byte that `<0x0A>` names.
fn byte_of(name: &str) -> Option<u8> {
    let digits = name.strip_prefix("<0x")?.strip_suffix('>')?;
    u8::from_str_radix(digits, 16).ok()
}

fn offset(length: usize) -> Result<u32, Error> {
    u32::try_from(length).map_err(|_| Error::File("the vocabulary is larger than 4 GiB".into()))
}

fn slice(ends: &[u32], token: u32) -> Option<std::ops::Range<usize>> {
    let at = token as usize;
    let start = at.checked_sub(1).map_or(Some(0), |before| ends.get(before).copied())?;
    Some(start as usize..*ends.get(at)? as usize)
}
