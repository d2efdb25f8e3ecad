//! Grammars over the vocabulary of one model.

use std::sync::OnceLock;

use decoding::grammar::{Matcher, TokenText, Vocabulary};
use decoding::{Grammar, GrammarError};

use crate::Error;
use crate::tokenizer::Tokenizer;

/// A model's tokens as grammars need them, made when the first grammar comes.
#[derive(Debug, Default)]
pub struct Grammars(OnceLock<Result<Vocabulary, GrammarError>>);

impl Grammars {
    /// Understands a grammar. Takes milliseconds, the first time up to a second more.
    ///
    /// # Errors
    /// [`Error::Grammar`].
    pub fn compile(&self, grammar: &Grammar, tokenizer: &Tokenizer) -> Result<Matcher, Error> {
        let vocabulary = self.0.get_or_init(|| Vocabulary::new(tokens(tokenizer), tokenizer.ends()));
        let compiled = vocabulary.as_ref().map_err(GrammarError::clone).and_then(|known| known.compile(grammar));
        compiled.map_err(|error| Error::Grammar(error.to_string()))
    }

    /// Bytes in use: none before the first grammar.
    pub fn bytes(&self) -> u64 {
        self.0.get().and_then(|made| made.as_ref().ok()).map_or(0, Vocabulary::bytes)
    }
}

fn tokens(tokenizer: &Tokenizer) -> impl Iterator<Item = TokenText<'_>> {
    (0..tokenizer.size()).map(|id| match tokenizer.bytes(id) {
        [] => TokenText::Special(tokenizer.name(id).unwrap_or_default()),
        bytes => TokenText::Bytes(bytes),
    })
}
