//! Text to tokens and back, from what the GGUF file says of its vocabulary.

mod bpe;
mod split;
mod vocabulary;

use gguf::{Header, Value};

use crate::Error;
use bpe::Merges;
use split::Splitter;
use vocabulary::Vocabulary;

/// Why a tokenizer of this model and pre-tokenizer cannot be made, if it cannot.
///
/// # Errors
/// A sentence for the person who wants to run it.
pub fn supported(model: &str, pre: Option<&str>) -> Result<(), String> {
    match (model, pre) {
        ("gpt2", pre) if split::pattern(pre).is_some() => Ok(()),
        ("gpt2", pre) => {
            Err(format!("the paged engine does not know the pre-tokenizer `{}` yet", pre.unwrap_or_default()))
        }
        (other, _) => Err(format!("the paged engine does not read `{other}` tokenizers yet")),
    }
}

/// The tokenizer of one model.
#[derive(Debug)]
pub struct Tokenizer {
    vocabulary: Vocabulary,
    merges: Merges,
    splitter: Splitter,
    ends: Vec<u32>,
    start: Option<u32>,
}

impl Tokenizer {
    /// # Errors
    /// [`Error::Unsupported`] for a kind of tokenizer this engine does not have, [`Error::File`]
    /// for a vocabulary that contradicts itself.
    pub fn of(header: &Header) -> Result<Self, Error> {
        let pre = header.metadata.get("tokenizer.ggml.pre").and_then(Value::as_str);
        supported(header.str("tokenizer.ggml.model")?, pre).map_err(Error::Unsupported)?;
        let vocabulary = Vocabulary::of(header)?;
        let id = |key: &str| header.u64(key).ok().and_then(|id| u32::try_from(id).ok());
        let known = |id: &u32| (*id as usize) < vocabulary.len();
        let ends = ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];
        let wants_start = header.metadata.get("tokenizer.ggml.add_bos_token").and_then(Value::as_bool) == Some(true);
        Ok(Self {
            merges: Merges::of(header, &vocabulary)?,
            splitter: Splitter::of(pre)?,
            ends: ends.iter().filter_map(|key| id(key)).filter(known).collect(),
            start: id("tokenizer.ggml.bos_token_id").filter(|id| wants_start && known(id)),
            vocabulary,
        })
    }

    /// Token ids of `text`. The names of special tokens in it become those tokens; the start token
    /// is put first where the model wants it.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut out: Vec<u32> = self.start.into_iter().collect();
        for (piece, special) in self.vocabulary.parts(text) {
            match special {
                Some(id) if Some(id) == self.start && out == [id] => {}
                Some(id) => out.push(id),
                None => self.splitter.split(piece, |word| self.merges.encode(word.as_bytes(), &mut out)),
            }
        }
        out
    }

    /// The text of these ids; special tokens have none.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for an id outside the vocabulary.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, Error> {
        let mut bytes = Vec::new();
        for token in tokens {
            self.check(*token)?;
            bytes.extend_from_slice(self.bytes(*token));
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// # Errors
    /// [`Error::InvalidRequest`] if there is no such token.
    pub fn check(&self, token: u32) -> Result<(), Error> {
        match (token as usize) < self.vocabulary.len() {
            true => Ok(()),
            false => Err(Error::InvalidRequest(format!("token {token} is outside the vocabulary"))),
        }
    }

    /// The bytes of a token; none for special and unknown ones.
    pub fn bytes(&self, token: u32) -> &[u8] {
        self.vocabulary.bytes(token)
    }

    /// How many tokens there are.
    pub fn size(&self) -> u32 {
        u32::try_from(self.vocabulary.len()).unwrap_or(u32::MAX)
    }

    /// The tokens the model ends its answer with.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// Whether the model ends its answer with this token.
    pub fn is_end(&self, token: u32) -> bool {
        self.ends.contains(&token)
    }

    /// The name of a token, for templates that write it out.
    pub fn name(&self, token: u32) -> Option<&str> {
        self.vocabulary.name(token)
    }
}

#[cfg(test)]
mod tests;
