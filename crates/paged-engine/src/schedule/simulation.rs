//! The rules played through on real books, without numbers: whatever arrives, everyone ends, nobody
//! gives way twice in a row, and somebody can always go on.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::kv::{BLOCK, Pool, Share, Table};

struct Sequence {
    known: usize,
    computed: usize,
    end: usize,
    told: bool,
    table: Table,
    gave_way_at: Option<usize>,
    preemptions: u32,
}

impl Sequence {
    fn new(share: &Arc<Share>, prompt: usize, answer: usize) -> Self {
        let table = Table::new(share);
        let (computed, told, gave_way_at, preemptions) = (0, false, None, 0);
        Self { known: prompt, computed, end: prompt + answer, told, table, gave_way_at, preemptions }
    }

    fn standing(&self) -> Standing {
        Standing {
            pending: self.known - self.computed,
            decoding: self.told && self.known - self.computed == 1,
            started: !self.table.blocks().is_empty(),
            protected: self.gave_way_at.is_some_and(|had| self.known < had + BLOCK),
            preemptions: self.preemptions,
            held: false,
        }
    }
}

fn standings(sequences: &[Sequence]) -> Vec<Standing> {
    sequences.iter().map(Sequence::standing).collect()
}

/// One step as the engine takes it; gives how many tokens were computed.
fn step(sequences: &mut Vec<Sequence>, limits: Limits) -> usize {
    while let Some(at) = next_in(&standings(sequences), limits) {
        let spare = standings(sequences).iter().filter(|standing| standing.started).count();
        let sequence = &mut sequences[at];
        let further = if sequence.gave_way_at.is_some() { BLOCK } else { 0 };
        let room = (sequence.known + further).min(sequence.end);
        if sequence.table.reserve(0, room, spare).is_none() {
            break;
        }
    }
    let mut done = 0;
    for (at, count) in plan(&standings(sequences), limits) {
        if !sequences[at].standing().started {
            continue;
        }
        loop {
            let sequence = &mut sequences[at];
            if sequence.table.reserve(sequence.computed, sequence.computed + count, 0).is_some() {
                sequence.computed += count;
                done += count;
                break;
            }
            let standings = standings(sequences);
            let Some(other) = victim(&standings, at) else { break };
            assert!(!standings[other].protected && other != at);
            let other = &mut sequences[other];
            other.table.clear();
            (other.computed, other.gave_way_at) = (0, Some(other.known));
            other.preemptions += 1;
        }
    }
    for sequence in sequences.iter_mut().filter(|sequence| sequence.computed == sequence.known) {
        sequence.known += 1;
        sequence.told = true;
    }
    sequences.retain(|sequence| sequence.known < sequence.end);
    done
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn everyone_ends_and_somebody_always_goes_on(
        arrivals in proptest::collection::vec((1usize..300, 1usize..200, 0usize..20), 1..30),
        spare in 0u64..40,
        running in 1usize..12,
    ) {
        let longest = arrivals.iter().map(|(prompt, answer, _)| prompt + answer).max().unwrap();
        let blocks = longest.div_ceil(BLOCK) as u64 + spare;
        let share = Share::open(&Pool::new(blocks), 1, false);
        let limits = Limits { sequences: running, prompt_tokens: 64 };
        let tokens: usize = arrivals.iter().map(|(prompt, answer, _)| prompt + answer).sum();
        let (mut sequences, mut arrivals, mut computed) = (Vec::new(), arrivals.into_iter().peekable(), 0);
        while arrivals.peek().is_some() || !sequences.is_empty() {
            let pause = arrivals.peek().map_or(usize::MAX, |arrival| arrival.2);
            if sequences.is_empty() || computed % 20 >= pause {
                let Some((prompt, answer, _)) = arrivals.next() else { break };
                sequences.push(Sequence::new(&share, prompt, answer));
            }
            let done = step(&mut sequences, limits);
            prop_assert!(done > 0, "nobody can go on");
            computed += done;
            // Each time somebody gives way another has come a block further.
            prop_assert!(computed < tokens * 40, "the same is computed again and again");
        }
        prop_assert_eq!(share.blocks().used, 0);
    }
}
