//! Rotary positions (<https://arxiv.org/abs/2104.09864>): which angles, and turning by them.
//!
//! Stretching to longer texts: by one factor (<https://arxiv.org/abs/2306.15595>), by a factor for
//! each pair of numbers that the file holds as a tensor (Llama 3.1, LongRoPE:
//! <https://arxiv.org/abs/2402.13753>), or by YaRN (<https://arxiv.org/abs/2309.00071>).

use gguf::Value;

use super::architecture::Pairing;
use super::keys::Keys;
use crate::Error;
use crate::weights::Loader;

/// Values of `rope.scaling.type` that are understood.
const KINDS: [&str; 4] = ["none", "linear", "longrope", "yarn"];

pub fn is_known(kind: &str) -> bool {
    KINDS.contains(&kind)
}

/// What a file says of its positions.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaling {
    pub base: f32,
    /// How many numbers of a head are rotated.
    pub width: usize,
    /// How many times longer texts are than those the model first learned from.
    pub factor: f32,
    /// What rotated numbers are multiplied by.
    pub amplitude: f32,
    /// Tokens of the texts the model first learned from.
    pub original_context: usize,
    pub yarn: Option<Yarn>,
}

/// Pairs that turn more often than `fast` times in the original context stay as they are, those
/// that turn less than `slow` times are stretched, those between in part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Yarn {
    pub fast: f32,
    pub slow: f32,
}

impl Scaling {
    /// # Errors
    /// [`Error::File`] names the key.
    pub fn of(keys: &Keys<'_>, head: usize, context: usize) -> Result<Self, Error> {
        let width = keys.optional_size("rope.dimension_count")?.unwrap_or(head);
        if width == 0 || width > head || !width.is_multiple_of(2) {
            return Err(keys.wrong("rope.dimension_count", &format!("must be even and at most {head}")));
        }
        let base = keys.float("rope.freq_base")?.unwrap_or(10_000.0);
        if base <= 1.0 {
            return Err(keys.wrong("rope.freq_base", "must be above 1"));
        }
        let original_context = keys.optional_size("rope.scaling.original_context_length")?.unwrap_or(context);
        if original_context == 0 {
            return Err(keys.wrong("rope.scaling.original_context_length", "must not be zero"));
        }
        let kind = keys.get("rope.scaling.type").and_then(Value::as_str).unwrap_or("linear");
        let written = match keys.float("rope.scaling.factor")? {
            Some(factor) => Some(factor),
            None => keys.float("rope.scale_linear")?,
        };
        let factor = written.filter(|factor| *factor > 0.0 && kind != "none").unwrap_or(1.0);
        let amplitude = keys.float("rope.scaling.attn_factor")?.unwrap_or(1.0);
        let scaling = Self { base, width, factor, amplitude, original_context, yarn: None };
        if kind == "yarn" { scaling.with_yarn(keys) } else { Ok(scaling) }
    }

    fn with_yarn(self, keys: &Keys<'_>) -> Result<Self, Error> {
        let number = |name: &str, default: f32| -> Result<f32, Error> {
            Ok(keys.float(name)?.filter(|number| *number > 0.0).unwrap_or(default))
        };
        let (fast, slow) = (number("rope.scaling.yarn_beta_fast", 32.0)?, number("rope.scaling.yarn_beta_slow", 1.0)?);
        // Stretched attention is flatter; the paper's remedy grows with the factor.
        let grown = |by: f32| 1.0 + 0.1 * by * self.factor.max(1.0).ln();
        let divisor = match keys.float("rope.scaling.yarn_log_multiplier")? {
            Some(multiplier) if multiplier > 0.0 => grown(multiplier),
            _ => 1.0,
        };
        Ok(Self { amplitude: self.amplitude * grown(1.0) / divisor, yarn: Some(Yarn { fast, slow }), ..self })
    }

    /// The same model's positions in layers with another base, which are not stretched.
    pub fn unscaled(&self, base: f32) -> Self {
        Self { base, factor: 1.0, amplitude: 1.0, yarn: None, ..self.clone() }
    }

    /// Angle per position of each pair, given each pair's own factor.
    fn frequencies(&self, factors: &[f32]) -> Box<[f32]> {
        let frequency = |pair: usize| {
            let exponent = 2.0 * pair as f32 / self.width as f32;
            let own = self.base.powf(-exponent) / factors.get(pair).copied().unwrap_or(1.0);
            let kept = self.yarn.map_or(0.0, |yarn| self.kept(yarn, pair));
            own * (kept + (1.0 - kept) / self.factor)
        };
        (0..self.width / 2).map(frequency).collect()
    }

    /// How much of a pair's own frequency YaRN keeps, from 0 to 1.
    fn kept(&self, yarn: Yarn, pair: usize) -> f32 {
        let pair_that_turns = |times: f32| {
            let circle = times * std::f32::consts::TAU;
            self.width as f32 * (self.original_context as f32 / circle).ln() / (2.0 * self.base.ln())
        };
        let low = pair_that_turns(yarn.fast).floor().max(0.0);
        let high = pair_that_turns(yarn.slow).ceil().min(self.width as f32 - 1.0);
        let ramp = (pair as f32 - low) / (high - low).max(0.001);
        1.0 - ramp.clamp(0.0, 1.0)
    }
}

/// The rotation of one kind of layer.
#[derive(Clone, Debug)]
pub struct Rope {
    pairing: Pairing,
    /// Angle per position of each rotated pair.
    frequencies: Box<[f32]>,
    amplitude: f32,
}

impl Rope {
    pub fn new(scaling: &Scaling, pairing: Pairing, factors: &[f32]) -> Self {
        Self { pairing, frequencies: scaling.frequencies(factors), amplitude: scaling.amplitude }
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> usize {
        self.frequencies.len() * size_of::<f32>()
    }

    /// Sine and cosine of every pair at these positions, `[token][pair]`: the same for every layer
    /// of a step.
    pub fn turns(&self, positions: &[usize]) -> Vec<(f32, f32)> {
        let turn = |position: &usize, frequency: &f32| {
            let (sin, cos) = (*position as f32 * frequency).sin_cos();
            (sin * self.amplitude, cos * self.amplitude)
        };
        positions.iter().flat_map(|position| self.frequencies.iter().map(move |f| turn(position, f))).collect()
    }

    /// Rotates the heads of one token, `[head][head width]`, by its part of [`Rope::turns`].
    pub fn rotate(&self, heads: &mut [f32], head: usize, turns: &[(f32, f32)]) {
        heads.chunks_exact_mut(head).for_each(|head| self.turn(head, turns));
    }

    /// Pairs of a head that are rotated.
    pub fn pairs(&self) -> usize {
        self.frequencies.len()
    }

    fn turn(&self, head: &mut [f32], turns: &[(f32, f32)]) {
        let rotated = |a: f32, b: f32, (sin, cos): (f32, f32)| (a * cos - b * sin, a * sin + b * cos);
        match self.pairing {
            Pairing::Neighbours => {
                for (pair, turn) in head.as_chunks_mut::<2>().0.iter_mut().zip(turns) {
                    (pair[0], pair[1]) = rotated(pair[0], pair[1], *turn);
                }
            }
            Pairing::Halves => {
                let (first, second) = head.split_at_mut(turns.len());
                for ((a, b), turn) in first.iter_mut().zip(second).zip(turns) {
                    (*a, *b) = rotated(*a, *b, *turn);
                }
            }
        }
    }
}

/// Each pair's own factor, if the file has them: one set, or one for short and one for long texts.
///
/// # Errors
/// [`Error::File`] names the tensor.
pub fn factors(loader: &mut Loader<'_>, scaling: &Scaling, context: usize) -> Result<Box<[f32]>, Error> {
    const ONE: &str = "rope_freqs.weight";
    const SHORT: &str = "rope_factors_short.weight";
    const LONG: &str = "rope_factors_long.weight";
    let (taken, left) = if context > scaling.original_context { (LONG, SHORT) } else { (SHORT, LONG) };
    let pairs = scaling.width / 2;
    loader.pass_over(left);
    let factors = match loader.optional_vector(ONE, pairs)? {
        Some(factors) => factors,
        None => loader.optional_vector(taken, pairs)?.unwrap_or_default(),
    };
    match factors.iter().all(|factor| factor.is_normal() && *factor > 0.0) {
        true => Ok(factors),
        false => Err(Error::File(format!("`{ONE}` or `{taken}` holds a factor that is no positive number"))),
    }
}
