//! How many tokens of prompts a step may take beside sequences that decode, from what recent steps
//! took. Pure: it is told seconds and answers tokens.

/// Tokens of prompts in a step while nobody decodes: enough to fill the cores, few enough that a
/// newcomer or a cancellation does not wait long.
pub const MOST: usize = 256;
/// The least a prompt gets, however slow it is: it must end some day.
const LEAST: usize = 4;
/// Until something was measured.
const UNKNOWN: usize = 32;
/// How much longer a step may take than one in which only those run who decode.
const STRETCH: f64 = 1.9;
/// The share of the newest measurement in what is remembered.
const NEWEST: f64 = 0.25;

/// How long those who decode usually wait for their next token, whatever model they are on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rhythm {
    /// Nobody decodes.
    Free,
    /// It was not measured yet.
    Unknown,
    /// Seconds of a step.
    Usual(f64),
}

impl Rhythm {
    /// The stricter of two.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Free, other) | (other, Self::Free) => other,
            (Self::Usual(a), Self::Usual(b)) => Self::Usual(a.min(b)),
            _ => Self::Unknown,
        }
    }
}

/// What a step was and what it took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Sequences that decoded.
    pub decoding: usize,
    /// Tokens of prompts.
    pub prompt: usize,
    pub seconds: f64,
}

/// What steps of one model take.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    /// Seconds of a step that only decodes, by its number of sequences; 0 where none was seen.
    decoding: Vec<f64>,
    /// Seconds that one token of a prompt adds.
    prompt: Option<f64>,
}

impl Pace {
    /// Remembers a step.
    pub fn record(&mut self, step: Measured) {
        if step.prompt == 0 {
            if self.decoding.len() <= step.decoding {
                self.decoding.resize(step.decoding + 1, 0.0);
            }
            let known = &mut self.decoding[step.decoding];
            *known = if *known == 0.0 { step.seconds } else { smoothed(*known, step.seconds) };
            return;
        }
        let alone = match self.rhythm(step.decoding) {
            Rhythm::Usual(seconds) => seconds,
            Rhythm::Free | Rhythm::Unknown => 0.0,
        };
        // A hiccup can make a mixed step look shorter than decoding alone; no token is free.
        let each = (step.seconds - alone).max(step.seconds * 0.05) / step.prompt as f64;
        self.prompt = Some(self.prompt.map_or(each, |known| smoothed(known, each)));
    }

    /// The rhythm of so many sequences when nothing else happens: that of the nearest number below
    /// that was seen, and what the others will add to it; or that of the nearest above.
    pub fn rhythm(&self, decoding: usize) -> Rhythm {
        if decoding == 0 {
            return Rhythm::Free;
        }
        let seen = |(_, seconds): &(usize, f64)| *seconds > 0.0;
        let known = || self.decoding.iter().copied().enumerate();
        let below = known().take(decoding + 1).rfind(seen);
        match below.or_else(|| known().find(seen)) {
            None => Rhythm::Unknown,
            Some((count, seconds)) => {
                let more = decoding.saturating_sub(count) as f64;
                Rhythm::Usual(seconds + more * self.prompt.unwrap_or(0.0))
            }
        }
    }

    /// The rhythm that those who decode can count on while others still read their prompts: when
    /// many come together they will soon decode together, so the usual wait is that of all of them
    /// but the one that is last.
    pub fn rhythm_beside(&self, decoding: usize, reading: usize) -> Rhythm {
        if decoding == 0 { Rhythm::Free } else { self.rhythm(decoding + reading.saturating_sub(1)) }
    }

    /// Tokens of prompts for the next step, when those who decode have this rhythm.
    pub fn prompt_tokens(&self, rhythm: Rhythm) -> usize {
        match (rhythm, self.prompt) {
            (Rhythm::Free, _) => MOST,
            (Rhythm::Usual(usual), Some(each)) => (((STRETCH - 1.0) * usual / each) as usize).clamp(LEAST, MOST),
            _ => UNKNOWN,
        }
    }
}

fn smoothed(known: f64, new: f64) -> f64 {
    known + NEWEST * (new - known)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine on which a step takes 2 ms, and 0.25 ms for each row.
    fn step(decoding: usize, prompt: usize) -> Measured {
        Measured { decoding, prompt, seconds: 0.002 + 0.00025 * (decoding + prompt) as f64 }
    }

    #[test]
    fn a_long_prompt_stretches_no_step_beyond_twice_the_usual() {
        for decoding in [1, 4, 20] {
            let mut pace = Pace::default();
            (0..10).for_each(|_| pace.record(step(decoding, 0)));
            let usual = step(decoding, 0).seconds;
            let mut left = 8192;
            let mut steps = 0;
            while left > 0 {
                let tokens = pace.prompt_tokens(pace.rhythm(decoding)).min(left);
                let mixed = step(decoding, tokens);
                // The first measurement is still to come.
                assert!(steps == 0 || mixed.seconds <= 2.0 * usual, "{decoding}: {mixed:?}");
                pace.record(mixed);
                left -= tokens;
                steps += 1;
            }
            assert!(steps < 8192 / 5, "{decoding}: {steps}");
        }
    }

    #[test]
    fn a_prompt_that_grows_dearer_gets_smaller_chunks() {
        let mut pace = Pace::default();
        pace.record(step(4, 0));
        (0..20).for_each(|_| pace.record(step(4, 8)));
        let cheap = pace.prompt_tokens(pace.rhythm(4));
        (0..20).for_each(|_| pace.record(Measured { seconds: 0.003 + 0.002 * 8.0, ..step(4, 8) }));
        let dear = pace.prompt_tokens(pace.rhythm(4));
        assert!(dear < cheap && dear >= LEAST, "{cheap} {dear}");
    }

    #[test]
    fn nobody_who_decodes_means_large_chunks_and_nothing_known_means_careful_ones() {
        let mut pace = Pace::default();
        assert_eq!(pace.prompt_tokens(Rhythm::Free), MOST);
        assert_eq!(pace.prompt_tokens(Rhythm::Unknown), UNKNOWN);
        pace.record(Measured { decoding: 2, prompt: 0, seconds: 1e-9 });
        pace.record(Measured { decoding: 2, prompt: 64, seconds: 1.0 });
        assert_eq!(pace.prompt_tokens(pace.rhythm(2)), LEAST, "it still goes on");
    }

    #[test]
    fn the_nearest_smaller_step_speaks_for_those_not_seen() {
        let mut pace = Pace::default();
        assert_eq!(pace.rhythm(3), Rhythm::Unknown);
        pace.record(step(4, 0));
        assert_eq!(pace.rhythm(3), Rhythm::Usual(step(4, 0).seconds));
        pace.record(step(2, 0));
        assert_eq!(pace.rhythm(3), Rhythm::Usual(step(2, 0).seconds));
        assert_eq!(pace.rhythm(9), Rhythm::Usual(step(4, 0).seconds));
        assert_eq!(pace.rhythm(0), Rhythm::Free);
        // Once it is known what a row adds, it is added.
        pace.record(step(4, 8));
        let Rhythm::Usual(nine) = pace.rhythm(9) else { panic!("it was seen") };
        assert!((nine - step(9, 0).seconds).abs() < 1e-9, "{nine}");
    }

    #[test]
    fn who_comes_in_a_crowd_may_read_at_the_crowds_rhythm() {
        let mut pace = Pace::default();
        pace.record(step(1, 0));
        pace.record(step(1, 8));
        assert_eq!(pace.rhythm_beside(0, 20), Rhythm::Free);
        assert_eq!(pace.rhythm_beside(1, 1), pace.rhythm(1), "one long prompt stretches nobody's usual wait");
        assert_eq!(pace.rhythm_beside(1, 19), pace.rhythm(19));
        assert!(pace.prompt_tokens(pace.rhythm_beside(1, 19)) > 2 * pace.prompt_tokens(pace.rhythm(1)));
    }

    #[test]
    fn the_strictest_rhythm_counts() {
        assert_eq!(Rhythm::Free.and(Rhythm::Usual(2.0)), Rhythm::Usual(2.0));
        assert_eq!(Rhythm::Usual(3.0).and(Rhythm::Usual(2.0)), Rhythm::Usual(2.0));
        assert_eq!(Rhythm::Usual(3.0).and(Rhythm::Unknown), Rhythm::Unknown);
        assert_eq!(Rhythm::Free.and(Rhythm::Free), Rhythm::Free);
    }
}
