//! All that decides on a sequence's next token: its sampler, its grammar, and what is to be told of
//! the choice.
//!
//! Order: the raw log probabilities are kept, bias and penalties applied, the grammar's mask after
//! them (so that no bias can break a grammar), then the cuts and the draw.

use crate::grammar::{GrammarError, Matcher};
use crate::logprobs::{Raw, TokenLogprobs};
use crate::{Sampler, Sampling};

/// Chooses the tokens of one sequence.
#[derive(Debug)]
pub struct Chooser {
    sampler: Sampler,
    grammar: Option<Matcher>,
    logprobs: Option<usize>,
}

/// A chosen token.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    pub token: u32,
    /// If they were asked for.
    pub logprobs: Option<TokenLogprobs>,
    /// The grammar lets nothing follow: the answer ends here.
    pub complete: bool,
}

impl Chooser {
    /// For a sequence that continues `prompt`. `logprobs` asks for log probabilities, and for those
    /// of so many of the likeliest tokens.
    pub fn new(sampling: Sampling, prompt: &[u32], logprobs: Option<u32>, grammar: Option<Matcher>) -> Self {
        Self { sampler: Sampler::new(sampling, prompt), grammar, logprobs: logprobs.map(|top| top as usize) }
    }

    /// Chooses the next token from `logits`, which are changed in place.
    ///
    /// # Errors
    /// [`GrammarError::Stuck`]; the sequence cannot go on.
    pub fn next(&mut self, logits: &mut [f32]) -> Result<Chosen, GrammarError> {
        let raw = self.logprobs.map(|top| Raw::keep(logits, top));
        self.sampler.adjust(logits);
        if let Some(grammar) = &mut self.grammar {
            grammar.mask(logits)?;
        }
        let token = self.sampler.choose(logits);
        let complete = match &mut self.grammar {
            Some(grammar) => grammar.accept(token)?,
            None => false,
        };
        Ok(Chosen { token, logprobs: raw.map(|raw| raw.of(token)), complete })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar::{Grammar, TokenText, Vocabulary};

    const WORDS: [&str; 4] = ["a", "b", "c", ""];

    fn abc(grammar: &str) -> Matcher {
        let tokens = WORDS.iter().map(|word| TokenText::Bytes(word.as_bytes()));
        Vocabulary::new(tokens, &[3]).unwrap().compile(&Grammar::Regex(grammar.into())).unwrap()
    }

    fn greedy(logit_bias: &[(u32, f32)]) -> Sampling {
        Sampling { temperature: 0.0, logit_bias: logit_bias.iter().copied().collect(), ..Default::default() }
    }

    #[test]
    fn the_grammar_wins_over_logits_and_bias_and_ends_the_answer() {
        let mut chooser = Chooser::new(greedy(&[(2, 100.0)]), &[], None, Some(abc("[ab]b")));
        let mut next = |row: [f32; 4]| chooser.next(&mut row.clone()).unwrap();
        assert_eq!(next([0.0, 1.0, 9.0, 9.0]), Chosen { token: 1, logprobs: None, complete: false });
        assert_eq!(next([9.0, 0.0, 9.0, 9.0]), Chosen { token: 1, logprobs: None, complete: true });
    }

    #[test]
    fn an_answer_that_may_end_ends_when_the_model_wants_it() {
        let mut chooser = Chooser::new(greedy(&[]), &[], None, Some(abc("ab*")));
        let mut next = |row: [f32; 4]| chooser.next(&mut row.clone()).unwrap();
        let taken = [next([0.0, 1.0, 2.0, 3.0]), next([3.0, 2.0, 2.5, 1.0]), next([0.0, 1.0, 2.0, 3.0])];
        assert_eq!(taken.map(|chosen| (chosen.token, chosen.complete)), [(0, false), (1, false), (3, true)]);
    }

    #[test]
    fn a_token_the_grammar_needs_is_taken_even_if_the_model_holds_it_impossible() {
        let mut chooser = Chooser::new(greedy(&[]), &[], None, Some(abc("b")));
        assert_eq!(chooser.next(&mut [1.0, f32::NEG_INFINITY, f32::NAN, 0.0]).unwrap().token, 1);
    }

    #[test]
    fn log_probabilities_are_those_of_the_model_itself() {
        let row = [2f32.ln(), 1f32.ln(), 1f32.ln(), f32::NEG_INFINITY];
        let mut chooser = Chooser::new(greedy(&[(1, 50.0)]), &[], Some(2), Some(abc("[bc]+")));
        let chosen = chooser.next(&mut row.clone()).unwrap();
        let told = chosen.logprobs.unwrap();
        assert_eq!(chosen.token, 1);
        assert!((told.logprob - 0.25f32.ln()).abs() < 1e-6, "{told:?}");
        assert_eq!(told.top.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [0, 1]);
    }
}
