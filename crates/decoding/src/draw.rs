//! One draw from the likeliest part of a distribution, without sorting a vocabulary.
//!
//! The steps, each over what the one before has left: temperature, min-p
//! (<https://arxiv.org/abs/2407.01082>), top-k, locally typical (<https://arxiv.org/abs/2202.00666>),
//! top-p (<https://arxiv.org/abs/1904.09751>), and the draw. min-p comes first because it compares
//! with the likeliest token only, as in vLLM.

use crate::sampling::Sampling;
use crate::weights::{Scale, highest, largest, likelier};

/// Exponents within which the sets are looked for, one after the other: a set is nearly always
/// within the first.
const REACHES: [f32; 5] = [3.0, 8.0, 16.0, 32.0, f32::INFINITY];
/// Tokens summed together on the way to the drawn one.
const STRIDE: usize = 1024;

/// A token that may be drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Candidate {
    token: u32,
    /// The logarithm of the weight; 0 for the likeliest of all.
    exponent: f32,
    weight: f32,
}

/// Draws a token; `at`, from 0 to 1, says where in the distribution. `None` if no token is possible.
pub fn draw(logits: &[f32], sampling: &Sampling, at: f32) -> Option<u32> {
    let scale = Scale { highest: highest(logits)?, temperature: sampling.temperature };
    match candidates(logits, &scale, sampling) {
        Some(candidates) => from_candidates(&candidates, at),
        None => from_all(logits, &scale, at),
    }
}

/// What the steps leave, the likeliest first; `None` if they leave all.
fn candidates(logits: &[f32], scale: &Scale, sampling: &Sampling) -> Option<Vec<Candidate>> {
    let mut left = likeliest(logits, scale, sampling);
    if sampling.typical_p < 1.0 {
        left = Some(match left {
            Some(left) => typical(left, sampling.typical_p),
            None => {
                let sums = scale.sums(logits);
                let mean = (sums.exponent / sums.weight) as f32;
                leading(logits, scale, sums.weight, sampling.typical_p, |exponent| (exponent - mean).abs())
            }
        });
    }
    if sampling.top_p < 1.0 {
        left = Some(match left {
            Some(left) => {
                let total = total(&left);
                first_of(left, total, sampling.top_p, |exponent| -exponent)
            }
            None => leading(logits, scale, scale.sums(logits).weight, sampling.top_p, |exponent| -exponent),
        });
    }
    let mut left = left?;
    left.sort_unstable_by(|a, b| likelier(&(a.token, a.exponent), &(b.token, b.exponent)));
    Some(left)
}

/// What min-p and top-k leave, if one of them is on.
fn likeliest(logits: &[f32], scale: &Scale, sampling: &Sampling) -> Option<Vec<Candidate>> {
    let all = sampling.top_k == 0 || sampling.top_k as usize >= logits.len();
    if all && sampling.min_p <= 0.0 {
        return None;
    }
    let floor = match sampling.min_p > 0.0 {
        true => (scale.highest + sampling.temperature * sampling.min_p.min(1.0).ln()).next_down(),
        false => f32::NEG_INFINITY,
    };
    let count = if all { logits.len() } else { sampling.top_k as usize };
    let found = largest(logits, count, floor).into_iter().map(|(token, logit)| candidate(token, logit, scale));
    Some(found.filter(|candidate| candidate.weight > 0.0).collect())
}

fn candidate(token: u32, logit: f32, scale: &Scale) -> Candidate {
    let exponent = scale.exponent(logit);
    Candidate { token, exponent, weight: scale.weight(logit) }
}

fn total(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|candidate| f64::from(candidate.weight)).sum()
}

fn typical(candidates: Vec<Candidate>, share: f32) -> Vec<Candidate> {
    let total = total(&candidates);
    let product = |candidate: &Candidate| f64::from(candidate.weight) * f64::from(candidate.exponent);
    let mean = (candidates.iter().map(product).sum::<f64>() / total) as f32;
    first_of(candidates, total, share, |exponent| (exponent - mean).abs())
}

/// The nearest tokens of a row that make up `share` of its `total` weight.
fn leading(logits: &[f32], scale: &Scale, total: f64, share: f32, far: impl Fn(f32) -> f32) -> Vec<Candidate> {
    let mut found = Vec::new();
    for reach in REACHES {
        found.clear();
        for (token, logit) in (0u32..).zip(logits.iter().copied()) {
            if far(scale.exponent(logit)) <= reach {
                found.push(candidate(token, logit, scale));
            }
        }
        found.retain(|candidate| candidate.weight > 0.0);
        if self::total(&found) >= f64::from(share) * total {
            break;
        }
    }
    first_of(found, total, share, far)
}

/// The nearest candidates that make up `share` of `total`, and at least one.
fn first_of(mut all: Vec<Candidate>, total: f64, share: f32, far: impl Fn(f32) -> f32) -> Vec<Candidate> {
    all.sort_unstable_by(|a, b| far(a.exponent).total_cmp(&far(b.exponent)).then(a.token.cmp(&b.token)));
    let mut within = 0.0;
    let inside = |candidate: &&Candidate| {
        let inside = within < f64::from(share) * total;
        within += f64::from(candidate.weight);
        inside
    };
    let keep = all.iter().take_while(inside).count();
    all.truncate(keep.max(1));
    all
}

fn from_candidates(candidates: &[Candidate], at: f32) -> Option<u32> {
    let mut left = f64::from(at) * total(candidates);
    for candidate in candidates {
        left -= f64::from(candidate.weight);
        if left < 0.0 {
            return Some(candidate.token);
        }
    }
    candidates.last().map(|candidate| candidate.token)
}

/// A draw from the whole row: first the stretch it falls into, then the token.
fn from_all(logits: &[f32], scale: &Scale, at: f32) -> Option<u32> {
    let sums: Vec<f64> = logits.chunks(STRIDE).map(|stretch| scale.sums(stretch).weight).collect();
    let mut left = f64::from(at) * sums.iter().sum::<f64>();
    let mut last = None;
    for (first, (stretch, sum)) in (0u32..).step_by(STRIDE).zip(logits.chunks(STRIDE).zip(&sums)) {
        if left >= *sum {
            left -= sum;
            // Where rounding carries the draw beyond the end, the last possible token is meant.
            let possible = || stretch.iter().rposition(|logit| scale.weight(*logit) > 0.0);
            last = if *sum > 0.0 { possible().map(|at| first + at as u32) } else { last };
            continue;
        }
        for (token, logit) in (first..).zip(stretch) {
            let weight = scale.weight(*logit);
            last = if weight > 0.0 { Some(token) } else { last };
            left -= f64::from(weight);
            if left < 0.0 {
                return last;
            }
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The steps, by the book: everything sorted, nothing skipped.
    fn reference(logits: &[f32], sampling: &Sampling) -> Vec<u32> {
        let Some(highest) = highest(logits) else { return Vec::new() };
        let scale = Scale { highest, temperature: sampling.temperature };
        let mut all: Vec<Candidate> =
            (0..).zip(logits).map(|(token, logit)| candidate(token, *logit, &scale)).collect();
        all.retain(|candidate| candidate.weight > 0.0);
        all.sort_by(|a, b| b.exponent.total_cmp(&a.exponent).then(a.token.cmp(&b.token)));
        let floor = (highest + sampling.temperature * sampling.min_p.ln()).next_down();
        all.retain(|candidate| sampling.min_p == 0.0 || logits[candidate.token as usize] > floor);
        if sampling.top_k > 0 {
            all.truncate(sampling.top_k as usize);
        }
        if sampling.typical_p < 1.0 {
            all = typical(all, sampling.typical_p);
        }
        if sampling.top_p < 1.0 {
            let total = total(&all);
            all = first_of(all, total, sampling.top_p, |exponent| -exponent);
        }
        all.sort_by(|a, b| b.exponent.total_cmp(&a.exponent).then(a.token.cmp(&b.token)));
        all.iter().map(|candidate| candidate.token).collect()
    }

    fn kept(logits: &[f32], sampling: &Sampling) -> Vec<u32> {
        let scale = Scale { highest: highest(logits).unwrap(), temperature: sampling.temperature };
        candidates(logits, &scale, sampling).unwrap().iter().map(|candidate| candidate.token).collect()
    }

    fn row() -> impl Strategy<Value = Vec<f32>> {
        let logit = prop_oneof![8 => -12f32..6.0, 1 => Just(f32::NEG_INFINITY), 1 => Just(2.0f32), 1 => Just(f32::NAN)];
        proptest::collection::vec(logit, 1..600)
    }

    fn cuts() -> impl Strategy<Value = Sampling> {
        // Shares no sum of rounded weights falls on by chance.
        let share = || prop_oneof![Just(1.0f32), Just(0.0f32), 0.05f32..0.999];
        let small = prop_oneof![Just(0.0f32), 0.001f32..1.0];
        let top_k = prop_oneof![Just(0u32), 1u32..50];
        (0.2f32..2.0, top_k, small, share(), share()).prop_map(|(temperature, top_k, min_p, top_p, typical_p)| {
            Sampling { temperature, top_k, min_p, top_p, typical_p, ..Sampling::default() }
        })
    }

    // softmax(ln 4, ln 3, ln 2, ln 1) = 0.4, 0.3, 0.2, 0.1
    fn tenths() -> Vec<f32> {
        [4f32, 3.0, 2.0, 1.0].iter().map(|x| x.ln()).collect()
    }

    #[test]
    fn each_cut_keeps_what_its_definition_says() {
        let with = |change: fn(&mut Sampling)| {
            let mut sampling = Sampling::default();
            change(&mut sampling);
            kept(&tenths(), &sampling)
        };
        assert_eq!(with(|s| s.top_k = 3), [0, 1, 2]);
        assert_eq!(with(|s| s.top_p = 0.65), [0, 1]);
        assert_eq!(with(|s| s.top_p = 0.75), [0, 1, 2]);
        assert_eq!(with(|s| s.top_p = 0.0), [0]);
        assert_eq!(with(|s| s.min_p = 0.49), [0, 1, 2]);
        assert_eq!(with(|s| s.min_p = 0.51), [0, 1]);
        // Half of what top-k left is 0.2857 of 0.9, so the first two are needed.
        assert_eq!(with(|s| (s.top_k, s.top_p) = (3, 0.5)), [0, 1]);
        // The entropy is 1.280; the surprises are 0.916, 1.204, 1.609 and 2.303.
        assert_eq!(with(|s| s.typical_p = 0.1), [1]);
        assert_eq!(with(|s| s.typical_p = 0.5), [1, 2]);
        assert_eq!(with(|s| s.typical_p = 0.8), [0, 1, 2]);
    }

    #[test]
    fn the_draw_falls_where_the_distribution_says() {
        let at = |at, sampling: &Sampling| draw(&tenths(), sampling, at);
        for sampling in [Sampling::default(), Sampling { top_k: 4, ..Default::default() }] {
            let places = [0.0, 0.39, 0.41, 0.69, 0.71, 0.89, 0.91, 1.0].map(|place| at(place, &sampling));
            assert_eq!(places, [0, 0, 1, 1, 2, 2, 3, 3].map(Some));
        }
        let halves = Sampling { temperature: 0.5, ..Default::default() };
        // The squares: 16, 9, 4 and 1 of 30.
        assert_eq!([0.53, 0.54, 0.83, 0.84].map(|place| at(place, &halves)), [0, 1, 1, 2].map(Some));
    }

    proptest! {
        #[test]
        fn partial_selection_keeps_what_sorting_keeps(row in row(), sampling in cuts()) {
            let possible = highest(&row).is_some();
            let cut = sampling.top_k > 0 || sampling.min_p > 0.0 || sampling.top_p < 1.0 || sampling.typical_p < 1.0;
            if possible && cut && (sampling.top_k as usize) < row.len() {
                let (left, right) = (kept(&row, &sampling), reference(&row, &sampling));
                // The sums were taken in another order: a share may end one token sooner or later.
                let most = left.len().max(right.len());
                let differ = left.iter().filter(|token| !right.contains(token)).count()
                    + right.iter().filter(|token| !left.contains(token)).count();
                let whole_row = sampling.top_k == 0 && sampling.min_p == 0.0;
                prop_assert!(differ == 0 || (whole_row && differ <= 1 + most / 500), "{left:?} {right:?}");
            }
        }

        #[test]
        fn an_impossible_token_is_never_drawn(row in row(), sampling in cuts(), at in 0f32..=1.0) {
            match draw(&row, &sampling, at) {
                Some(token) => prop_assert!(row[token as usize] > f32::NEG_INFINITY),
                None => prop_assert!(row.iter().all(|logit| logit.is_nan() || *logit == f32::NEG_INFINITY)),
            }
            let free = Sampling { temperature: sampling.temperature, ..Sampling::default() };
            if let Some(token) = draw(&row, &free, at) {
                prop_assert!(row[token as usize] > f32::NEG_INFINITY);
            }
        }
    }
}
