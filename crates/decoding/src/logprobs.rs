//! Log probabilities: natural logarithms of the softmax of the logits as the model gave them,
//! before bias, penalties, grammar and temperature. This is what vLLM calls `raw_logprobs`, its
//! default (<https://docs.vllm.ai/en/latest/api/vllm/config/model/>).

use crate::weights::{Scale, highest, largest};

/// How likely the model held the chosen token, and the likeliest ones.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    /// Of the chosen token.
    pub logprob: f32,
    /// Tokens and their log probabilities, the likeliest first; as many as were asked for.
    pub top: Vec<(u32, f32)>,
}

/// The logits of one row as they were, kept until the token is chosen.
#[derive(Debug)]
pub(crate) struct Raw {
    logits: Vec<f32>,
    top: usize,
}

impl Raw {
    /// Keeps `logits`, to tell the `top` likeliest of them.
    pub fn keep(logits: &[f32], top: usize) -> Self {
        Self { logits: logits.to_vec(), top }
    }

    /// What is to be told of `token`. A row without a possible token makes everything impossible.
    pub fn of(&self, token: u32) -> TokenLogprobs {
        let Some(highest) = highest(&self.logits) else {
            return TokenLogprobs { logprob: f32::NEG_INFINITY, top: Vec::new() };
        };
        let total = Scale { highest, temperature: 1.0 }.sums(&self.logits).weight.ln();
        let logprob = |logit: f32| (f64::from(logit.min(f32::MAX)) - f64::from(highest) - total) as f32;
        let own = self.logits.get(token as usize).copied().filter(|logit| !logit.is_nan());
        let top = largest(&self.logits, self.top, f32::NEG_INFINITY);
        TokenLogprobs {
            logprob: logprob(own.unwrap_or(f32::NEG_INFINITY)),
            top: top.into_iter().map(|(token, logit)| (token, logprob(logit))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn log_probabilities_are_natural_and_sorted() {
        let tenths: Vec<f32> = [1f32, 4.0, 2.0, 3.0].iter().map(|x| x.ln() + 5.0).collect();
        let told = Raw::keep(&tenths, 2).of(0);
        assert!((told.logprob - 0.1f32.ln()).abs() < 1e-6, "{told:?}");
        assert_eq!(told.top.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [1, 3]);
        assert!((told.top[0].1 - 0.4f32.ln()).abs() < 1e-6 && (told.top[1].1 - 0.3f32.ln()).abs() < 1e-6);
    }

    #[test]
    fn impossible_tokens_are_told_as_such() {
        let row = [0.0, f32::NEG_INFINITY, f32::NAN];
        assert_eq!(Raw::keep(&row, 5).of(1), TokenLogprobs { logprob: f32::NEG_INFINITY, top: vec![(0, 0.0)] });
        assert_eq!(Raw::keep(&row, 0).of(2).logprob, f32::NEG_INFINITY);
        assert_eq!(Raw::keep(&[], 3).of(0).top, []);
    }

    proptest! {
        #[test]
        fn probabilities_of_a_whole_row_are_one_together(row in proptest::collection::vec(-20f32..20.0, 1..500)) {
            let told = Raw::keep(&row, row.len()).of(0);
            let sum: f64 = told.top.iter().map(|(_, logprob)| f64::from(*logprob).exp()).sum();
            prop_assert!((sum - 1.0).abs() < 1e-4, "{sum}");
            prop_assert!(told.top.is_sorted_by(|a, b| a.1 >= b.1));
            prop_assert!(told.top.contains(&(0, told.logprob)));
        }
    }
}
