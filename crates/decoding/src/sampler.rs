//! Choosing a token from logits. Pure but for the generator's state, so that a seed repeats an
//! answer exactly.
//!
//! Order: bias, penalties and DRY on the logits, then the cuts and the draw ([`crate::draw`]).
//! Penalties follow OpenAI (frequency and presence, over generated tokens) and CTRL (repetition,
//! over all tokens; <https://arxiv.org/abs/1909.05858>, section 4.1). They touch the tokens they
//! name and no others; without a temperature one pass over the row is all.

use std::collections::{HashMap, HashSet};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::sampling::Sampling;
use crate::weights::highest;
use crate::{draw::draw, dry};

/// The sampler of one sequence.
#[derive(Debug)]
pub struct Sampler {
    params: Sampling,
    random: StdRng,
    /// How often each token was generated.
    generated: HashMap<u32, u32>,
    /// Every token of the prompt and of the answer; kept only if the repetition penalty is on.
    seen: HashSet<u32>,
    /// Prompt and answer in their order; kept only for DRY.
    history: Vec<u32>,
}

impl Sampler {
    /// A sampler for a sequence that continues `prompt`.
    pub fn new(params: Sampling, prompt: &[u32]) -> Self {
        let random = StdRng::seed_from_u64(params.seed.unwrap_or_else(rand::random));
        let seen = if params.repetition_penalty == 1.0 { HashSet::new() } else { prompt.iter().copied().collect() };
        let history = if params.dry.is_on() { prompt.to_vec() } else { Vec::new() };
        Self { params, random, generated: HashMap::new(), seen, history }
    }

    /// Chooses the next token from `logits`, one for each token of the vocabulary, and remembers
    /// it. The logits are changed in place. NaN counts as impossible; without a possible token the
    /// answer is token 0.
    pub fn next(&mut self, logits: &mut [f32]) -> u32 {
        self.adjust(logits);
        self.choose(logits)
    }

    /// Bias and penalties.
    pub(crate) fn adjust(&self, logits: &mut [f32]) {
        for (token, bias) in &self.params.logit_bias {
            change(logits, *token, |logit| logit + bias);
        }
        let penalty = self.params.repetition_penalty;
        for token in &self.seen {
            change(logits, *token, |logit| if logit > 0.0 { logit / penalty } else { logit * penalty });
        }
        if self.params.presence_penalty != 0.0 || self.params.frequency_penalty != 0.0 {
            for (token, count) in &self.generated {
                let penalty = self.params.presence_penalty + self.params.frequency_penalty * *count as f32;
                change(logits, *token, |logit| logit - penalty);
            }
        }
        if self.params.dry.is_on() {
            for (token, penalty) in dry::penalties(&self.params.dry, &self.history) {
                change(logits, token, |logit| logit - penalty);
            }
        }
    }

    /// The choice among adjusted logits, which is remembered.
    pub(crate) fn choose(&mut self, logits: &[f32]) -> u32 {
        let token = match self.params.temperature > 0.0 {
            true => draw(logits, &self.params, self.random.random()),
            false => likeliest(logits),
        };
        let token = token.unwrap_or(0);
        *self.generated.entry(token).or_default() += 1;
        if self.params.repetition_penalty != 1.0 {
            self.seen.insert(token);
        }
        if self.params.dry.is_on() {
            self.history.push(token);
        }
        token
    }
}

/// Changes the logit of a token, if there is such a token.
fn change(logits: &mut [f32], token: u32, change: impl Fn(f32) -> f32) {
    if let Some(logit) = logits.get_mut(token as usize) {
        *logit = change(*logit);
    }
}

/// The first of the tokens with the highest logit.
fn likeliest(logits: &[f32]) -> Option<u32> {
    let highest = highest(logits)?;
    logits.iter().position(|logit| *logit >= highest).and_then(|at| u32::try_from(at).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 4] = [1.0, 3.0, 2.0, f32::NEG_INFINITY];

    fn draws(params: Sampling, count: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(params, &[]);
        (0..count).map(|_| sampler.next(&mut LOGITS.clone())).collect()
    }

    #[test]
    fn zero_temperature_takes_the_likeliest() {
        assert_eq!(draws(Sampling { temperature: 0.0, ..Default::default() }, 3), [1, 1, 1]);
    }

    #[test]
    fn a_seed_repeats_and_another_does_not() {
        let with = |seed| draws(Sampling { seed: Some(seed), ..Default::default() }, 40);
        assert_eq!(with(7), with(7));
        assert_ne!(with(7), with(8));
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let drawn = draws(Sampling { seed: Some(1), ..Default::default() }, 6000);
        let share = |token| drawn.iter().filter(|t| **t == token).count() as f64 / 6000.0;
        // softmax(1, 3, 2) = 0.090, 0.665, 0.245
        assert!((share(0) - 0.090).abs() < 0.02 && (share(1) - 0.665).abs() < 0.02, "{} {}", share(0), share(1));
        assert_eq!(share(3), 0.0);
    }

    #[test]
    fn top_k_top_p_and_min_p_cut_the_tail() {
        let only_best = |params: Sampling| draws(params, 200).iter().all(|t| *t == 1);
        let seeded = Sampling { seed: Some(3), ..Default::default() };
        assert!(only_best(Sampling { top_k: 1, ..seeded.clone() }));
        assert!(only_best(Sampling { top_p: 0.6, ..seeded.clone() }));
        assert!(only_best(Sampling { min_p: 0.5, ..seeded.clone() }));
        assert!(!only_best(seeded));
    }

    #[test]
    fn bias_and_penalties_move_the_choice() {
        let greedy = Sampling { temperature: 0.0, ..Default::default() };
        assert_eq!(draws(Sampling { logit_bias: [(0, 5.0)].into(), ..greedy.clone() }, 1), [0]);
        assert_eq!(draws(Sampling { presence_penalty: 1.5, ..greedy.clone() }, 2), [1, 2]);
        assert_eq!(draws(Sampling { frequency_penalty: 0.6, ..greedy.clone() }, 3), [1, 1, 2]);
        let mut repeated = Sampler::new(Sampling { repetition_penalty: 2.0, ..greedy }, &[1]);
        assert_eq!(repeated.next(&mut LOGITS.clone()), 2);
    }

    #[test]
    fn dry_keeps_a_passage_from_being_repeated() {
        let dry = crate::Dry { multiplier: 2.0, ..Default::default() };
        let params = Sampling { temperature: 0.0, dry, ..Default::default() };
        let choice = |prompt: &[u32]| Sampler::new(params.clone(), prompt).next(&mut LOGITS.clone());
        assert_eq!(choice(&[2, 0, 1, 3, 2, 0]), 2, "1 would repeat 2 0 1");
        assert_eq!(choice(&[2, 0, 1, 3, 3, 0]), 1, "0 1 alone is short enough");
        let mut sampler = Sampler::new(params, &[]);
        let answer: Vec<u32> = (0..5).map(|_| sampler.next(&mut LOGITS.clone())).collect();
        assert_eq!(answer, [1, 1, 1, 2, 1], "what was generated counts too");
    }

    #[test]
    fn the_first_of_equals_is_taken() {
        assert_eq!(likeliest(&[0.0, 2.0, 2.0, f32::NAN]), Some(1));
        assert_eq!(likeliest(&[f32::NEG_INFINITY, f32::INFINITY]), Some(1));
    }

    #[test]
    fn nothing_possible_is_token_zero_and_no_panic() {
        let mut sampler = Sampler::new(Sampling::default(), &[]);
        assert_eq!(sampler.next(&mut [f32::NAN, f32::NEG_INFINITY]), 0);
        assert_eq!(sampler.next(&mut []), 0);
    }
}
