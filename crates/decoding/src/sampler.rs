//! Choosing a token from logits. Pure but for the generator's state, so that a seed repeats an
//! answer exactly.
//!
//! Order: bias and penalties on the logits, then temperature, then top-k, top-p and min-p, then
//! one draw. Penalties follow OpenAI (frequency and presence, over generated tokens) and CTRL
//! (repetition, over all tokens; <https://arxiv.org/abs/1909.05858>, section 4.1); min-p is
//! <https://arxiv.org/abs/2407.01082>.

use std::collections::{BTreeMap, HashMap, HashSet};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

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
    /// Taken off a token's logit for each time it was generated.
    pub frequency_penalty: f32,
    /// Taken off a token's logit if it was generated at all.
    pub presence_penalty: f32,
    /// Divides the logit (multiplies, where negative) of tokens seen in prompt or answer. 1 is off.
    pub repetition_penalty: f32,
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
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            repetition_penalty: 1.0,
            logit_bias: BTreeMap::new(),
            seed: None,
        }
    }
}

/// The sampler of one sequence.
#[derive(Debug)]
pub struct Sampler {
    params: Sampling,
    random: StdRng,
    /// How often each token was generated.
    generated: HashMap<u32, u32>,
    /// Every token of the prompt and of the answer; kept only if the repetition penalty is on.
    seen: HashSet<u32>,
}

impl Sampler {
    /// A sampler for a sequence that continues `prompt`.
    pub fn new(params: Sampling, prompt: &[u32]) -> Self {
        let random = StdRng::seed_from_u64(params.seed.unwrap_or_else(rand::random));
        let seen = if params.repetition_penalty == 1.0 { HashSet::new() } else { prompt.iter().copied().collect() };
        Self { params, random, generated: HashMap::new(), seen }
    }

    /// Chooses the next token from `logits`, one for each token of the vocabulary, and remembers
    /// it. The logits are changed in place. NaN counts as impossible; without a possible token the
    /// answer is token 0.
    pub fn next(&mut self, logits: &mut [f32]) -> u32 {
        self.adjust(logits);
        let token = if self.params.temperature <= 0.0 { likeliest(logits) } else { self.draw(logits) };
        *self.generated.entry(token).or_default() += 1;
        if self.params.repetition_penalty != 1.0 {
            self.seen.insert(token);
        }
        token
    }

    fn adjust(&self, logits: &mut [f32]) {
        for (token, bias) in &self.params.logit_bias {
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit += bias;
            }
        }
        for token in &self.seen {
            if let Some(logit) = logits.get_mut(*token as usize) {
                let penalty = self.params.repetition_penalty;
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
        for (token, count) in &self.generated {
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit -= self.params.presence_penalty + self.params.frequency_penalty * *count as f32;
            }
        }
    }

    fn draw(&mut self, logits: &[f32]) -> u32 {
        let candidates = self.candidates(logits);
        let total: f32 = candidates.iter().map(|(_, p)| p).sum();
        let mut left = self.random.random::<f32>() * total;
        for (token, probability) in &candidates {
            left -= probability;
            if left < 0.0 {
                return *token;
            }
        }
        candidates.last().map_or(0, |(token, _)| *token)
    }

    /// The tokens that may be drawn, the likeliest first, with probabilities in proportion.
    fn candidates(&self, logits: &[f32]) -> Vec<(u32, f32)> {
        let mut all: Vec<(u32, f32)> = (0u32..)
            .zip(logits.iter().copied())
            .filter(|(_, logit)| *logit > f32::NEG_INFINITY)
            .map(|(token, logit)| (token, logit.min(f32::MAX)))
            .collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        if self.params.top_k > 0 {
            all.truncate(self.params.top_k as usize);
        }
        let Some(highest) = all.first().map(|(_, logit)| *logit) else { return all };
        for (_, value) in &mut all {
            *value = ((*value - highest) / self.params.temperature).exp();
        }
        let total: f32 = all.iter().map(|(_, p)| p).sum();
        let mut within = 0.0;
        // The likeliest token has probability 1 before normalisation, so min_p compares directly.
        let keep = all
            .iter()
            .take_while(|(_, p)| {
                let inside = within < self.params.top_p * total && *p >= self.params.min_p;
                within += p;
                inside
            })
            .count();
        all.truncate(keep.max(1));
        all
    }
}

fn likeliest(logits: &[f32]) -> u32 {
    let mut best = (0u32, f32::NEG_INFINITY);
    for (token, logit) in (0u32..).zip(logits.iter().copied()) {
        if logit > best.1 {
            best = (token, logit);
        }
    }
    best.0
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
    fn nothing_possible_is_token_zero_and_no_panic() {
        let mut sampler = Sampler::new(Sampling::default(), &[]);
        assert_eq!(sampler.next(&mut [f32::NAN, f32::NEG_INFINITY]), 0);
        assert_eq!(sampler.next(&mut []), 0);
    }
}
