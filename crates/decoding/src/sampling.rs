//! How the next token is to be chosen: the parameters of one sequence.

use std::collections::{BTreeMap, BTreeSet};

/// How the next token is chosen. The defaults are OpenAI's.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 takes the likeliest token always.
    pub temperature: f32,
    /// Nucleus: the smallest set of tokens with this probability together. 1 keeps all.
    pub top_p: f32,
    /// Keep this many of the likeliest tokens. 0 keeps all.
    pub top_k: u32,
    /// Keep tokens at least this likely in proportion to the likeliest. 0 keeps all.
    pub min_p: f32,
    /// Locally typical: the tokens whose surprise is nearest to the expected one, with this
    /// probability together. 1 keeps all.
    pub typical_p: f32,
    /// Taken off a token's logit for each time it was generated.
    pub frequency_penalty: f32,
    /// Taken off a token's logit if it was generated at all.
    pub presence_penalty: f32,
    /// Divides the logit (multiplies, where negative) of tokens seen in prompt or answer. 1 is off.
    pub repetition_penalty: f32,
    /// Against repeated sequences of tokens.
    pub dry: Dry,
    /// Added to the logits of these tokens.
    pub logit_bias: BTreeMap<u32, f32>,
    /// The same seed and request give the same answer.
    pub seed: Option<u64>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            typical_p: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            repetition_penalty: 1.0,
            dry: Dry::default(),
            logit_bias: BTreeMap::new(),
            seed: None,
        }
    }
}

/// The DRY penalty: a token that would make the end of the text repeat an earlier passage of
/// `length` tokens loses `multiplier * base^(length - allowed_length)` of its logit
/// (<https://github.com/oobabooga/text-generation-webui/pull/5677>). Names and defaults are those
/// of llama.cpp, where 0 switches it off as well.
#[derive(Clone, Debug, PartialEq)]
pub struct Dry {
    /// 0 is off.
    pub multiplier: f32,
    pub base: f32,
    /// Shorter passages may be repeated freely.
    pub allowed_length: u32,
    /// How many of the last tokens are looked at; all, if there is no number.
    pub last_n: Option<u32>,
    /// No passage reaches over a token whose text has one of these in it. They count once
    /// [`Dry::resolve`] has found the tokens.
    pub breakers: Vec<String>,
    /// Tokens no passage reaches over.
    pub breaker_tokens: BTreeSet<u32>,
}

impl Default for Dry {
    fn default() -> Self {
        Self {
            multiplier: 0.0,
            base: 1.75,
            allowed_length: 2,
            last_n: None,
            breakers: ["\n", ":", "\"", "*"].map(str::to_owned).to_vec(),
            breaker_tokens: BTreeSet::new(),
        }
    }
}

impl Dry {
    /// Whether it changes anything.
    pub fn is_on(&self) -> bool {
        self.multiplier > 0.0 && self.last_n != Some(0)
    }

    /// Adds the tokens of a vocabulary of `size` that have a breaker in their bytes. A breaker
    /// longer than every token breaks nothing. Does nothing while the penalty is off.
    pub fn resolve<'v>(&mut self, size: u32, bytes: impl Fn(u32) -> &'v [u8]) {
        if !self.is_on() {
            return;
        }
        let breakers: Vec<&[u8]> = self.breakers.iter().map(String::as_bytes).filter(|text| !text.is_empty()).collect();
        let breaks = |token: &u32| breakers.iter().any(|breaker| contains(bytes(*token), breaker));
        self.breaker_tokens.extend((0..size).filter(breaks));
    }
}

/// `part` is not empty.
fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breakers_are_the_tokens_that_have_one_inside() {
        let words: [&[u8]; 5] = [b"a", b".\n", b"b:c", b"", b"\xff"];
        let mut dry = Dry { multiplier: 1.0, ..Dry::default() };
        dry.resolve(5, |token| words[token as usize]);
        assert_eq!(dry.breaker_tokens, [1, 2].into());
        let mut off = Dry::default();
        off.resolve(5, |token| words[token as usize]);
        assert!(off.breaker_tokens.is_empty(), "nothing is searched for nothing");
    }
}
