//! Which sequences get how many tokens in the next step. Pure: it is shown the sequences and
//! answers; the engine acts.
//!
//! Sequences that decode go first, one token each, so that a long prompt cannot stretch their
//! rhythm; what is left of the step goes to prompts, the oldest first, in chunks. When the pool of
//! blocks runs out, the youngest sequence that is not the only one gives its blocks back and is
//! computed again later.

/// Where a sequence stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Tokens that are known and not yet computed: the rest of the prompt, or the one token chosen
    /// last.
    pub pending: usize,
    /// Whether all of the prompt is computed, so that each step gives it a token.
    pub decoding: bool,
    /// Whether it holds blocks, that is, counts as running.
    pub started: bool,
}

/// Bounds of one step.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Sequences that may run at once.
    pub sequences: usize,
    /// Tokens of prompts in one step.
    pub prompt_tokens: usize,
}

/// The work of one step: (index of a sequence, tokens of it), in the order in which blocks are
/// given out. `sequences` stand from the oldest to the youngest.
pub fn plan(sequences: &[Standing], limits: Limits) -> Vec<(usize, usize)> {
    let decoding = |standing: &Standing| standing.decoding && standing.started;
    let mut work: Vec<(usize, usize)> =
        sequences.iter().enumerate().filter(|(_, s)| decoding(s)).map(|(at, s)| (at, s.pending)).collect();
    let mut running = sequences.iter().filter(|standing| standing.started).count();
    let mut left = limits.prompt_tokens;
    for (at, standing) in sequences.iter().enumerate().filter(|(_, standing)| !decoding(standing)) {
        let may_run = standing.started || running < limits.sequences;
        if left == 0 || !may_run {
            continue;
        }
        let tokens = standing.pending.min(left);
        work.push((at, tokens));
        left -= tokens;
        running += usize::from(!standing.started);
    }
    work
}

/// Who gives its blocks back so that `needs` can go on: the youngest that holds some, itself last.
/// `None` if nobody else can.
pub fn victim(sequences: &[Standing], needs: usize) -> Option<usize> {
    (0..sequences.len()).rev().find(|at| *at != needs && sequences[*at].started).filter(|at| *at > needs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { sequences: 3, prompt_tokens: 10 };

    fn decoding() -> Standing {
        Standing { pending: 1, decoding: true, started: true }
    }

    fn waiting(pending: usize) -> Standing {
        Standing { pending, decoding: false, started: false }
    }

    #[test]
    fn decoding_goes_first_and_prompts_share_what_is_left() {
        let sequences = [waiting(7), decoding(), waiting(9)];
        assert_eq!(plan(&sequences, LIMITS), [(1, 1), (0, 7), (2, 3)]);
    }

    #[test]
    fn a_long_prompt_takes_one_chunk_a_step() {
        let half = Standing { pending: 500, decoding: false, started: true };
        assert_eq!(plan(&[decoding(), half, waiting(4)], LIMITS), [(0, 1), (1, 10)]);
    }

    #[test]
    fn no_more_run_than_may() {
        assert_eq!(plan(&[decoding(), decoding(), decoding(), waiting(2)], LIMITS), [(0, 1), (1, 1), (2, 1)]);
        assert_eq!(plan(&[waiting(1); 5], LIMITS), [(0, 1), (1, 1), (2, 1)]);
    }

    #[test]
    fn the_youngest_gives_way_and_never_an_older_one() {
        let sequences = [decoding(), decoding(), waiting(2)];
        assert_eq!(victim(&sequences, 0), Some(1));
        assert_eq!(victim(&sequences, 1), None, "the older one goes on");
        assert_eq!(victim(&sequences, 2), None);
    }
}
