//! Text to tokens and back, from what the GGUF file says of its vocabulary.
//!
//! Two kinds: byte-level BPE (`gpt2`) and SentencePiece (`llama`). Ids are those of llama.cpp for the
//! same file (<https://github.com/ggml-org/llama.cpp>, `llama-vocab.cpp`), with special tokens parsed
//! and start and end tokens added where the model wants them. Where it differs: a start token that
//! the text itself begins with is not doubled, nor an end token that it ends with; a byte without a
//! token becomes the unknown token instead of an abort; and a BPE file that names no end token has
//! none by id, not token 11.

mod alphabet;
mod bpe;
mod characters;
mod deepseek_llm;
mod families;
mod roles;
mod special;
mod split;
mod spm;
mod vocabulary;

use gguf::{Header, Summary, Value};

use crate::Error;
use bpe::Merges;
use families::{Family, family};
use roles::{Defaults, Roles, roles};
use special::{Piece, Specials};
use spm::SentencePiece;
use vocabulary::{Spelling, Vocabulary};

/// Why a tokenizer of this model and pre-tokenizer cannot be made, if it cannot.
///
/// # Errors
/// A sentence for the person who wants to run it.
pub fn supported(model: &str, pre: Option<&str>) -> Result<(), String> {
    match (model, pre) {
        ("llama", _) => Ok(()),
        ("gpt2", pre) if family(pre).is_some() => Ok(()),
        ("gpt2", pre) => {
            Err(format!("the paged engine does not know the pre-tokenizer `{}` yet", pre.unwrap_or_default()))
        }
        (other, _) => Err(format!("the paged engine does not read `{other}` tokenizers yet")),
    }
}

/// What [`Tokenizer::bytes_held`] will be, from the header's summary alone.
pub fn estimate(model: &Summary) -> u64 {
    let method = match model.tokenizer.as_str() {
        "gpt2" => Merges::estimate(model.merges),
        _ => SentencePiece::estimate(model.vocabulary),
    };
    Vocabulary::estimate(model.vocabulary, model.token_bytes).saturating_add(method)
}

/// Bytes of a table of so many entries: a power of two of places, seven of eight of which may be
/// taken, and a byte to find each by (<https://docs.rs/hashbrown>).
fn table(entries: u64, each: usize) -> u64 {
    let places = (entries.saturating_mul(8) / 7).checked_next_power_of_two().unwrap_or(u64::MAX);
    places.saturating_mul(each as u64 + 1)
}

/// The tokenizer of one model.
#[derive(Debug)]
pub struct Tokenizer {
    vocabulary: Vocabulary,
    specials: Specials,
    roles: Roles,
    method: Method,
}

/// How texts between special tokens become tokens.
#[derive(Debug)]
enum Method {
    Bpe(Box<Merges>),
    SentencePiece(Box<SentencePiece>),
}

impl Tokenizer {
    /// # Errors
    /// [`Error::Unsupported`] for a kind of tokenizer this engine does not have, [`Error::File`]
    /// for a vocabulary that contradicts itself.
    pub fn of(header: &Header) -> Result<Self, Error> {
        let text = |key: &str| header.metadata.get(key).and_then(Value::as_str);
        let (model, pre) = (header.str("tokenizer.ggml.model")?, text("tokenizer.ggml.pre"));
        supported(model, pre).map_err(Error::Unsupported)?;
        let family = family(pre).filter(|_| model == "gpt2");
        let mut vocabulary = Vocabulary::of(header)?;
        let roles = roles(header, &mut vocabulary, defaults(family));
        vocabulary.spell(if family.is_some() { Spelling::Bytes } else { Spelling::Text })?;
        let method = match family {
            Some(family) => Method::Bpe(Box::new(Merges::of(header, &vocabulary, family)?)),
            None => Method::SentencePiece(Box::new(SentencePiece::of(header, &vocabulary, roles.unknown)?)),
        };
        let specials = Specials::of(&vocabulary, text("general.name").unwrap_or_default())?;
        Ok(Self { vocabulary, specials, roles, method })
    }

    /// Token ids of `text`. The names of special tokens in it become those tokens; start and end
    /// tokens are put around it where the model wants them.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut out = Vec::with_capacity(text.len() / 3 + 2);
        out.extend(self.roles.start);
        let mut first = true;
        for piece in self.specials.cut(&self.vocabulary, text) {
            match piece {
                Piece::Token(id) if Some(id) == self.roles.start && out == [id] => {}
                Piece::Token(id) => out.push(id),
                Piece::Text(piece) => self.encode_plain(piece, first, &mut out),
            }
            first = matches!(piece, Piece::Token(_));
        }
        out.extend(self.roles.finish.filter(|finish| out.last() != Some(finish)));
        out
    }

    /// Token ids of bytes that may be no text: what is text is encoded as such, every other byte for
    /// itself, so that [`Tokenizer::bytes`] of the ids are these bytes wherever the vocabulary has a
    /// token for each byte. No special token is looked for, and none is added.
    pub fn encode_bytes(&self, bytes: &[u8]) -> Vec<u32> {
        let mut out = Vec::with_capacity(bytes.len() / 3 + 2);
        for (at, chunk) in bytes.utf8_chunks().enumerate() {
            if !chunk.valid().is_empty() {
                self.encode_plain(chunk.valid(), at == 0, &mut out);
            }
            for byte in chunk.invalid() {
                match &self.method {
                    Method::Bpe(merges) => merges.encode_byte(*byte, &mut out),
                    Method::SentencePiece(pieces) => pieces.encode_byte(*byte, &mut out),
                }
            }
        }
        out
    }

    /// The text of these ids; special tokens have none. The space that SentencePiece puts before a
    /// text is taken away again, once; of one that stands behind a special token it stays.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for an id outside the vocabulary.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, Error> {
        let mut bytes = Vec::new();
        for token in tokens {
            self.check(*token)?;
            bytes.extend_from_slice(self.bytes(*token));
        }
        let prefix: &[u8] = if self.has_space_prefix() { b" " } else { b"" };
        Ok(String::from_utf8_lossy(bytes.strip_prefix(prefix).unwrap_or(&bytes)).into_owned())
    }

    /// # Errors
    /// [`Error::InvalidRequest`] if there is no such token.
    pub fn check(&self, token: u32) -> Result<(), Error> {
        match (token as usize) < self.vocabulary.len() {
            true => Ok(()),
            false => Err(Error::InvalidRequest(format!("token {token} is outside the vocabulary"))),
        }
    }

    /// The bytes of a token, which may be a part of a character; none for special and unknown ones.
    ///
    /// An answer is the bytes of its tokens one after the other. It continues a text, so the space
    /// with which SentencePiece begins a word is always a part of it, for the first token too: only
    /// [`Tokenizer::decode`], which has a text from its beginning, knows that one is not the text's.
    pub fn bytes(&self, token: u32) -> &[u8] {
        self.vocabulary.bytes(token)
    }

    /// How many tokens there are.
    pub fn size(&self) -> u32 {
        u32::try_from(self.vocabulary.len()).unwrap_or(u32::MAX)
    }

    /// The tokens the model ends its answer with.
    pub fn ends(&self) -> &[u32] {
        &self.roles.ends
    }

    /// Whether the model ends its answer with this token.
    pub fn is_end(&self, token: u32) -> bool {
        self.roles.ends.binary_search(&token).is_ok()
    }

    /// The name of a token, for templates that write it out.
    pub fn name(&self, token: u32) -> Option<&str> {
        self.vocabulary.name(token)
    }

    /// Bytes of memory that its tables hold.
    pub fn bytes_held(&self) -> u64 {
        let method = match &self.method {
            Method::Bpe(merges) => size_of::<Merges>() as u64 + merges.bytes_held(),
            Method::SentencePiece(pieces) => size_of::<SentencePiece>() as u64 + pieces.bytes_held(),
        };
        let ends = (self.roles.ends.capacity() * size_of::<u32>()) as u64;
        self.vocabulary.bytes_held() + self.specials.bytes_held() + method + ends
    }

    fn has_space_prefix(&self) -> bool {
        matches!(&self.method, Method::SentencePiece(pieces) if pieces.space_prefix)
    }

    /// Appends the tokens of a text without special tokens; `first` if nothing or a special token
    /// stands before it.
    fn encode_plain(&self, text: &str, first: bool, out: &mut Vec<u32>) {
        match &self.method {
            Method::Bpe(merges) => merges.encode(&self.vocabulary, text, out),
            Method::SentencePiece(pieces) => pieces.encode(&self.vocabulary, text, first, out),
        }
    }
}

/// Llama's ids where a SentencePiece file says nothing; of the others each family decides.
fn defaults(family: Option<Family>) -> Defaults {
    match family {
        Some(family) => Defaults { ids: None, starts: family.starts },
        None => Defaults { ids: Some((1, 2, 0)), starts: true },
    }
}

#[cfg(test)]
mod tests;
