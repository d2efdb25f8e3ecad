//! Who gets how many tokens in the next step, who is let in, and who gives way. Pure: it is shown
//! the sequences and answers; the engine acts.
//!
//! Sequences that decode go first, one token each, so that a long prompt cannot stretch their
//! rhythm; beside them prompts are read in chunks ([`pace`] says how large), the oldest first. Who
//! is let in has blocks for all its known tokens at once: only those who decode ever need more.
//! [`turns`] says which model goes next.

pub mod pace;
#[cfg(test)]
mod simulation;
pub mod turns;

use std::cmp::Reverse;

/// Where a sequence stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Tokens that are known and not yet computed: the rest of the prompt, or the one token chosen
    /// last.
    pub pending: usize,
    /// Whether all but the last token is computed and the first was told, so that each step gives
    /// it a token.
    pub decoding: bool,
    /// Whether it holds blocks, that is, counts as running.
    pub started: bool,
    /// Whether it gave way and has not come further since.
    pub protected: bool,
    /// How often it gave way.
    pub preemptions: u32,
    /// Whether it waits because one that runs is reading what it begins with too.
    pub held: bool,
}

/// Bounds of one step.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Sequences that may run at once.
    pub sequences: usize,
    /// Tokens of prompts in one step.
    pub prompt_tokens: usize,
}

/// Who is let in next, the oldest that waits: if one more may run and the prompts of those inside
/// do not fill the step. Nobody overtakes it while it finds no room, but those held let others by.
pub fn next_in(sequences: &[Standing], limits: Limits) -> Option<usize> {
    let running = sequences.iter().filter(|standing| standing.started).count();
    let prompts = sequences.iter().filter(|standing| standing.started && !standing.decoding);
    let filled = prompts.map(|standing| standing.pending).sum::<usize>() >= limits.prompt_tokens;
    let waiting = sequences.iter().position(|standing| !standing.started && !standing.held);
    waiting.filter(|_| running < limits.sequences && !filled)
}

/// The work of one step: (index of a sequence, tokens of it), in the order in which blocks are
/// given out. `sequences` stand from the oldest to the youngest.
pub fn plan(sequences: &[Standing], limits: Limits) -> Vec<(usize, usize)> {
    let started = || sequences.iter().enumerate().filter(|(_, standing)| standing.started);
    let mut work: Vec<(usize, usize)> = started().filter(|(_, s)| s.decoding).map(|(at, s)| (at, s.pending)).collect();
    let mut left = limits.prompt_tokens;
    for (at, standing) in started().filter(|(_, standing)| !standing.decoding) {
        let tokens = standing.pending.min(left);
        if tokens > 0 {
            work.push((at, tokens));
            left -= tokens;
        }
    }
    work
}

/// Who gives its blocks back so that `needs` can go on: of those not protected, who has done so
/// least often, and of these the youngest. If that is `needs` itself, it waits instead, and holds
/// what it has until another needs it.
pub fn victim(sequences: &[Standing], needs: usize) -> Option<usize> {
    let candidates = sequences.iter().enumerate().filter(|(_, standing)| standing.started && !standing.protected);
    let next = candidates.min_by_key(|(at, standing)| (standing.preemptions, Reverse(*at)))?.0;
    (next != needs).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { sequences: 3, prompt_tokens: 10 };

    fn decoding() -> Standing {
        Standing { pending: 1, decoding: true, started: true, ..Standing::default() }
    }

    fn reading(pending: usize) -> Standing {
        Standing { pending, started: true, ..Standing::default() }
    }

    fn waiting(pending: usize) -> Standing {
        Standing { pending, ..Standing::default() }
    }

    #[test]
    fn decoding_goes_first_and_prompts_share_what_is_left() {
        assert_eq!(plan(&[reading(7), decoding(), reading(9)], LIMITS), [(1, 1), (0, 7), (2, 3)]);
        assert_eq!(plan(&[waiting(7), decoding()], LIMITS), [(1, 1)], "who is not in gets nothing");
    }

    #[test]
    fn a_long_prompt_takes_one_chunk_a_step() {
        assert_eq!(plan(&[decoding(), reading(500), reading(4)], LIMITS), [(0, 1), (1, 10)]);
    }

    #[test]
    fn the_oldest_that_waits_is_let_in_while_the_step_has_room() {
        assert_eq!(next_in(&[decoding(), waiting(4), waiting(2)], LIMITS), Some(1));
        assert_eq!(next_in(&[decoding(), reading(4), waiting(2)], LIMITS), Some(2));
        assert_eq!(next_in(&[decoding(), reading(10), waiting(2)], LIMITS), None, "the step is full");
        assert_eq!(next_in(&[decoding(), reading(2), decoding(), waiting(2)], LIMITS), None, "three run");
        assert_eq!(next_in(&[decoding()], LIMITS), None);
        let held = Standing { held: true, ..waiting(4) };
        assert_eq!(next_in(&[reading(2), held, waiting(2)], LIMITS), Some(2), "who is held lets others by");
    }

    #[test]
    fn the_youngest_gives_way_first_and_then_who_has_not_yet() {
        let mut sequences = [decoding(), decoding(), decoding(), waiting(2)];
        assert_eq!(victim(&sequences, 0), Some(2));
        assert_eq!(victim(&sequences, 2), None, "it is its own turn: it waits");
        sequences[2].preemptions = 1;
        assert_eq!(victim(&sequences, 0), Some(1));
        assert_eq!(victim(&sequences, 2), Some(1));
        sequences[1].preemptions = 1;
        assert_eq!(victim(&sequences, 2), Some(0), "in the end everyone");
    }

    #[test]
    fn who_gave_way_is_spared_until_it_has_come_further() {
        let mut sequences = [decoding(), decoding()];
        sequences[1] = Standing { protected: true, preemptions: 1, ..decoding() };
        assert_eq!(victim(&sequences, 0), None);
        assert_eq!(victim(&sequences, 1), Some(0));
        sequences[0].protected = true;
        assert_eq!(victim(&sequences, 1), None);
    }
}
