//! Passes over a whole row of logits, written so that the compiler can do several at once: the
//! highest, sums of probabilities, the largest few. A vocabulary has 150,000 tokens, and twenty
//! sequences want a token each step.

use std::cmp::Ordering;

/// How many values are worked on at once; sums are always taken in this order.
const LANES: usize = 16;

/// The highest logit, at most [`f32::MAX`]; `None` if no token is possible. NaN counts as impossible.
pub fn highest(logits: &[f32]) -> Option<f32> {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        for (most, logit) in lanes.iter_mut().zip(chunk) {
            *most = if *logit > *most { *logit } else { *most };
        }
    }
    let most =
        lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |most, logit| if *logit > most { *logit } else { most });
    (most > f32::NEG_INFINITY).then(|| most.min(f32::MAX))
}

/// Makes probabilities, in proportion, of logits.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    pub highest: f32,
    pub temperature: f32,
}

/// Sums over a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sums {
    /// Of the weights.
    pub weight: f64,
    /// Of the weights, each times its exponent.
    pub exponent: f64,
}

impl Scale {
    /// The natural logarithm of a token's weight: 0 for the likeliest.
    pub fn exponent(&self, logit: f32) -> f32 {
        // Not `min`, which would take a NaN for the highest.
        let finite = if logit > f32::MAX { f32::MAX } else { logit };
        (finite - self.highest) / self.temperature
    }

    pub fn weight(&self, logit: f32) -> f32 {
        exp(self.exponent(logit))
    }

    /// The sums over a row, always in the same order.
    pub fn sums(&self, logits: &[f32]) -> Sums {
        // Short enough for f32 lanes to stay exact to the last few bits.
        logits.chunks(1024).fold(Sums::default(), |all, chunk| {
            let (weight, exponent) = self.chunk(chunk);
            Sums { weight: all.weight + weight, exponent: all.exponent + exponent }
        })
    }

    fn chunk(&self, logits: &[f32]) -> (f64, f64) {
        let (mut weights, mut exponents) = ([0.0f32; LANES], [0.0f32; LANES]);
        let (chunks, rest) = logits.as_chunks::<LANES>();
        for chunk in chunks {
            for lane in 0..LANES {
                let exponent = self.exponent(chunk[lane]);
                let weight = exp(exponent);
                weights[lane] += weight;
                // An impossible token would be 0 times infinity.
                exponents[lane] += weight * exponent.max(-100.0);
            }
        }
        for (lane, logit) in rest.iter().enumerate() {
            let exponent = self.exponent(*logit);
            weights[lane] += exp(exponent);
            exponents[lane] += exp(exponent) * exponent.max(-100.0);
        }
        let sum = |lanes: [f32; LANES]| lanes.iter().map(|value| f64::from(*value)).sum();
        (sum(weights), sum(exponents))
    }
}

/// `e^x` for `x` of at most 0, within three units in the last place, and 0 where it is next to
/// nothing. The library's is exact and takes one value at a time.
pub fn exp(x: f32) -> f32 {
    /// Adding it rounds to whole numbers, which then stand in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    let rest = (x - whole * LN_2_HIGH) - whole * LN_2_LOW;
    // The series of e^x; the rest is at most ln(2)/2, where eight terms are enough.
    let series = [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0f32];
    let mantissa = series.iter().fold(0.0, |sum, term| sum * rest + term);
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    if x > -87.0 { mantissa * power } else { 0.0 }
}

/// The likelier token first, and of equals the one with the lower id.
pub fn likelier(a: &(u32, f32), b: &(u32, f32)) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// The `count` largest logits above `floor` with their tokens, the largest first.
pub fn largest(logits: &[f32], count: usize, floor: f32) -> Vec<(u32, f32)> {
    if count == 0 {
        return Vec::new();
    }
    let room = count.saturating_mul(2).max(128);
    let (mut best, mut floor) = (Vec::new(), floor);
    for (token, logit) in (0u32..).zip(logits.iter().copied()) {
        // Rarely true once the floor has risen.
        if logit > floor {
            best.push((token, logit));
            if best.len() >= room {
                best.select_nth_unstable_by(count - 1, likelier);
                best.truncate(count);
                floor = best.last().map_or(floor, |(_, least)| *least);
            }
        }
    }
    best.sort_unstable_by(likelier);
    best.truncate(count);
    best
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_exponential_is_right_to_the_last_bits() {
        for step in 0..=870_000 {
            let x = -(step as f32) / 10_000.0;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) - exact).abs() <= exact * 3e-7 || x <= -87.0, "{x}: {} {exact}", exp(x));
        }
        assert_eq!((exp(0.0), exp(f32::NEG_INFINITY), exp(f32::NAN)), (1.0, 0.0, 0.0));
    }

    #[test]
    fn what_is_no_number_is_never_the_highest() {
        assert_eq!(highest(&[f32::NAN, f32::NEG_INFINITY]), None);
        assert_eq!(highest(&[]), None);
        assert_eq!(highest(&[f32::NAN, -3.0, f32::INFINITY]), Some(f32::MAX));
        let mut row = [f32::NAN; 40];
        row[17] = -1.0;
        row[39] = -0.5;
        assert_eq!(highest(&row), Some(-0.5));
    }

    proptest! {
        #[test]
        fn the_largest_are_those_of_a_sorted_row(
            row in proptest::collection::vec(prop_oneof![(-40i32..40).prop_map(|x| x as f32 / 4.0), Just(f32::NEG_INFINITY)], 0..800),
            count in 0usize..300,
            floor in prop_oneof![Just(f32::NEG_INFINITY), -5f32..5.0],
        ) {
            let mut sorted: Vec<(u32, f32)> = (0..).zip(row.iter().copied()).filter(|(_, x)| *x > floor).collect();
            sorted.sort_by(likelier);
            sorted.truncate(count);
            prop_assert_eq!(largest(&row, count, floor), sorted);
        }

        #[test]
        fn sums_are_those_of_exact_numbers(row in proptest::collection::vec(-30f32..10.0, 1..2000), temperature in 0.1f32..3.0) {
            let scale = Scale { highest: highest(&row).unwrap(), temperature };
            let exponent = |x: &f32| (f64::from(*x) - f64::from(scale.highest)) / f64::from(temperature);
            let weight: f64 = row.iter().map(|x| exponent(x).exp()).sum();
            let product: f64 = row.iter().map(|x| exponent(x).exp() * exponent(x)).sum();
            let sums = scale.sums(&row);
            prop_assert!((sums.weight / weight - 1.0).abs() < 1e-5, "{} {}", sums.weight, weight);
            prop_assert!((sums.exponent - product).abs() < 1e-4 * (1.0 + product.abs()), "{} {}", sums.exponent, product);
        }
    }
}
