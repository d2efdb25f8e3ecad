//! Answers held to a grammar, by llguidance (<https://github.com/guidance-ai/llguidance>): a
//! [`Vocabulary`] once a model, a [`Matcher`] once a sequence.

use std::sync::Arc;

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, SimpleVob, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher as Parser, ParserFactory};
use serde_json::{Value, json};

/// Longer tokens are left out: they are runs of one character, which shorter ones make as well.
const LONGEST_TOKEN: usize = 512;
/// States of a lexer take one to two kilobytes each, in every sequence.
const MOST_LEXER_STATES: usize = 20_000;
/// Between two parts of a JSON text: a space, or a line feed and an indent. A model that may write
/// any white space may write nothing else for ever.
const WHITE_SPACE: &str = r"( |\n[ \t]{0,16})";

/// What an answer must look like.
#[derive(Clone, Debug, PartialEq)]
pub enum Grammar {
    /// Any JSON object.
    Json,
    /// A JSON value that this schema accepts.
    JsonSchema(Value),
    /// The whole answer matches this expression, in the syntax of Rust's `regex`.
    Regex(String),
    /// llguidance's variant of Lark
    /// (<https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md>).
    Lark(String),
}

/// Why a grammar cannot be kept to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// The grammar is wrong or too large; in llguidance's words.
    #[error("the grammar was not understood: {0}")]
    Invalid(String),
    /// The model's vocabulary has no token that ends an answer.
    #[error("this model has no token that ends an answer, so its answers cannot be held to a grammar")]
    NoEnd,
    /// The answer cannot be continued within the grammar's limits.
    #[error("the grammar cannot be followed further: {0}")]
    Stuck(String),
}

/// What a token is to a grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenText<'a> {
    /// It adds these bytes to the text.
    Bytes(&'a [u8]),
    /// It adds none; a Lark grammar may ask for it by its name.
    Special(&'a str),
}

/// The tokens of one model, as grammars need them. Cheap to clone.
#[derive(Clone)]
pub struct Vocabulary {
    factory: Arc<ParserFactory>,
    bytes: u64,
}

impl Vocabulary {
    /// Of tokens in the order of their ids and those that `ends` an answer. Takes about a second
    /// for 150,000 tokens.
    ///
    /// # Errors
    /// [`GrammarError::NoEnd`], or [`GrammarError::Invalid`] if llguidance cannot take the tokens.
    pub fn new<'a>(tokens: impl Iterator<Item = TokenText<'a>>, ends: &[u32]) -> Result<Self, GrammarError> {
        let words: Vec<Vec<u8>> = tokens.map(word).collect();
        let ends: Vec<u32> = ends.iter().copied().filter(|end| (*end as usize) < words.len()).collect();
        let Some(end) = ends.first() else { return Err(GrammarError::NoEnd) };
        let size = u32::try_from(words.len()).map_err(|_| GrammarError::Invalid("too many tokens".into()))?;
        let trie = TokTrie::from(&TokRxInfo::new(size, *end), &words).with_eos_tokens(&ends);
        let length: usize = words.iter().map(Vec::len).sum();
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let slices = SlicedBiasComputer::json_slices();
        let mut factory = ParserFactory::new(&env, InferenceCapabilities::default(), &slices).map_err(invalid)?;
        factory.quiet();
        let limits = ParserLimits { max_lexer_states: MOST_LEXER_STATES, verbose_errors: false, ..Default::default() };
        *factory.limits_mut() = limits;
        Ok(Self { factory: Arc::new(factory), bytes: bytes_at_most(u64::from(size), length as u64) })
    }

    /// What [`bytes_at_most`] says of its tokens.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Understands a grammar. Takes milliseconds, for a large schema more: not on the engine's thread.
    ///
    /// # Errors
    /// [`GrammarError::Invalid`].
    pub fn compile(&self, grammar: &Grammar) -> Result<Matcher, GrammarError> {
        let grammar = match grammar {
            Grammar::Json => TopLevelGrammar::from_json_schema(tidy(json!({"type": "object"}))),
            Grammar::JsonSchema(schema) => TopLevelGrammar::from_json_schema(tidy(schema.clone())),
            Grammar::Regex(expression) => TopLevelGrammar::from_regex(expression),
            Grammar::Lark(grammar) => TopLevelGrammar::from_lark(grammar.clone()),
        };
        let parser = Parser::new(self.factory.create_parser(grammar));
        match parser.get_error() {
            Some(error) => Err(GrammarError::Invalid(error)),
            None => Ok(Matcher { parser }),
        }
    }
}

/// Bytes that a [`Vocabulary`] of so many tokens takes at most, `length` bytes of text together.
pub fn bytes_at_most(tokens: u64, length: u64) -> u64 {
    // A trie and its slices: two words a node, and no more nodes than bytes; offsets and orders.
    let tries = 1 + SlicedBiasComputer::json_slices().len() as u64;
    tries.saturating_mul(length.saturating_mul(8).saturating_add(tokens.saturating_mul(16)))
}

/// Special tokens are marked with a byte that no text has, as llguidance wants it.
fn word(token: TokenText<'_>) -> Vec<u8> {
    match token {
        TokenText::Bytes([TokTrie::SPECIAL_TOKEN_MARKER, ..]) => Vec::new(),
        TokenText::Bytes(bytes) if bytes.len() > LONGEST_TOKEN => Vec::new(),
        TokenText::Bytes(bytes) => bytes.to_vec(),
        TokenText::Special(name) if name.is_empty() || name.len() > LONGEST_TOKEN => Vec::new(),
        TokenText::Special(name) => [&[TokTrie::SPECIAL_TOKEN_MARKER], name.as_bytes()].concat(),
    }
}

/// Adds our rule for white space to a schema that has none of its own.
fn tidy(mut schema: Value) -> Value {
    if let Value::Object(fields) = &mut schema {
        fields.entry("x-guidance").or_insert_with(|| json!({"whitespace_pattern": WHITE_SPACE}));
    }
    schema
}

fn invalid(error: impl std::fmt::Display) -> GrammarError {
    GrammarError::Invalid(error.to_string())
}

/// A grammar and how far one answer has come in it.
pub struct Matcher {
    parser: Parser,
}

impl Matcher {
    /// Makes every token impossible that may not come next.
    ///
    /// # Errors
    /// [`GrammarError::Stuck`].
    pub fn mask(&mut self, logits: &mut [f32]) -> Result<(), GrammarError> {
        let allowed = self.parser.compute_mask_or_eos().map_err(stuck)?;
        if !keep(&allowed, logits) {
            // The model holds all of them for impossible: then any of them will do.
            for token in allowed.iter() {
                if let Some(logit) = logits.get_mut(token as usize) {
                    *logit = 0.0;
                }
            }
        }
        match logits.iter().any(|logit| *logit > f32::NEG_INFINITY) {
            true => Ok(()),
            false => Err(GrammarError::Stuck("no token continues it".into())),
        }
    }

    /// Takes the chosen token; whether the answer is complete, so that nothing may follow.
    ///
    /// # Errors
    /// [`GrammarError::Stuck`] for a token that may not come next.
    pub fn accept(&mut self, token: u32) -> Result<bool, GrammarError> {
        self.parser.consume_token(token).map_err(stuck)?;
        Ok(self.parser.is_stopped())
    }
}

/// Forbids what is not allowed; whether a possible token is left.
fn keep(allowed: &SimpleVob, logits: &mut [f32]) -> bool {
    let mut words = allowed.as_slice().iter();
    let mut possible = false;
    for chunk in logits.chunks_mut(32) {
        let word = words.next().copied().unwrap_or(0);
        if word == 0 {
            chunk.fill(f32::NEG_INFINITY);
            continue;
        }
        for (bit, logit) in chunk.iter_mut().enumerate() {
            if word >> bit & 1 == 0 {
                *logit = f32::NEG_INFINITY;
            }
            possible |= *logit > f32::NEG_INFINITY;
        }
    }
    possible
}

fn stuck(error: impl std::fmt::Display) -> GrammarError {
    GrammarError::Stuck(error.to_string())
}

impl std::fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vocabulary").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Matcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Matcher").finish_non_exhaustive()
    }
}
