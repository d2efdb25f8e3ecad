//! The DRY penalty over a sequence's tokens ([`Dry`] says what it is).

use std::collections::HashMap;

use crate::sampling::Dry;

/// A penalty so large that nothing is left, and small enough to be subtracted.
const MOST: f32 = 1e30;

/// What each token that would continue a repetition loses. `history` is prompt and answer.
pub fn penalties(dry: &Dry, history: &[u32]) -> HashMap<u32, f32> {
    let window = dry.last_n.map_or(history.len(), |last| (last as usize).min(history.len()));
    let recent: Vec<u32> = history.iter().rev().take(window).copied().collect();
    // A repetition does not reach over a breaker.
    let reach = recent.iter().position(|token| dry.breaker_tokens.contains(token)).unwrap_or(recent.len());
    let mut longest: HashMap<u32, usize> = HashMap::new();
    for (at, length) in common_prefixes(&recent).into_iter().enumerate().skip(1) {
        let length = length.min(reach);
        // Read backwards, the token before the place is the one that came after the passage.
        if length >= (dry.allowed_length as usize).max(1)
            && let Some(next) = recent.get(at - 1)
        {
            let known = longest.entry(*next).or_default();
            *known = length.max(*known);
        }
    }
    let penalty = |length: usize| {
        let beyond = (length as f32) - dry.allowed_length as f32;
        (dry.multiplier * dry.base.powf(beyond)).min(MOST)
    };
    longest.into_iter().map(|(token, length)| (token, penalty(length))).collect()
}

/// For each place, how many items from there on equal the first ones (the Z-function, in linear
/// time; Gusfield, Algorithms on Strings, Trees and Sequences, 1.4).
fn common_prefixes(items: &[u32]) -> Vec<usize> {
    let mut lengths = vec![0; items.len()];
    let (mut left, mut right) = (0, 0);
    for at in 1..items.len() {
        let mut length = if at < right { lengths[at - left].min(right - at) } else { 0 };
        while items.get(at + length).is_some_and(|item| Some(item) == items.get(length)) {
            length += 1;
        }
        if at + length > right {
            (left, right) = (at, at + length);
        }
        lengths[at] = length;
    }
    lengths
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dry() -> Dry {
        Dry { multiplier: 0.5, base: 2.0, ..Dry::default() }
    }

    #[test]
    fn what_would_repeat_a_passage_pays_by_its_length() {
        // The end, 1 2 3, was followed by 4 before: a passage of three, one beyond what is allowed.
        assert_eq!(penalties(&dry(), &[1, 2, 3, 4, 9, 1, 2, 3]), [(4, 1.0)].into());
        // Of two passages the longer counts; 3 alone is too short to matter.
        assert_eq!(penalties(&dry(), &[7, 2, 3, 4, 1, 2, 3, 4, 3, 5, 1, 2, 3]), [(4, 1.0)].into());
        assert_eq!(penalties(&dry(), &[1, 2, 4, 1]), HashMap::new());
    }

    #[test]
    fn breakers_and_the_window_end_a_passage() {
        let history = [1, 2, 3, 4, 9, 1, 2, 3];
        let broken = Dry { breaker_tokens: [1].into(), ..dry() };
        assert_eq!(penalties(&broken, &history), [(4, 0.5)].into(), "only 2 3 is left of the passage");
        let broken = Dry { breaker_tokens: [3].into(), ..dry() };
        assert_eq!(penalties(&broken, &history), HashMap::new());
        assert_eq!(penalties(&Dry { last_n: Some(5), ..dry() }, &history), HashMap::new());
    }

    #[test]
    fn a_long_repetition_stays_a_number() {
        let all = penalties(&dry(), &[5; 4000]);
        assert_eq!(all, [(5, MOST)].into());
    }

    proptest! {
        #[test]
        fn linear_time_finds_what_comparing_finds(items in proptest::collection::vec(0u32..3, 0..40)) {
            let plain = |at: usize| items[at..].iter().zip(&items).take_while(|(a, b)| a == b).count();
            let found = common_prefixes(&items);
            let expected: Vec<usize> = (0..items.len()).map(plain).collect();
            prop_assert_eq!(found.get(1..), expected.get(1..));
        }
    }
}
