//! One model on the engine's thread: its sequences, the oldest first, and one step of them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::Error;
use crate::device::Device;
use crate::kernels::Buffer;
use crate::kv::{BLOCK, BlockId, Share};
use crate::model::Batch;
use crate::schedule::pace::{Measured, Pace, Rhythm};
use crate::schedule::{Limits, Standing, next_in, plan, victim};
use crate::sequence::Sequence;
use crate::shared::Shared;

pub struct Resident {
    /// What the device knows the model by.
    key: u64,
    shared: Arc<Shared>,
    share: Arc<Share>,
    /// Sequences that may run at once.
    most: usize,
    /// Whether blocks are shared between sequences that begin alike.
    sharing: bool,
    sequences: Vec<Sequence>,
    pace: Pace,
    /// A step of it panicked; it runs no more.
    broken: bool,
}

/// Under what a step runs.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The rhythm of those who decode on the other models.
    pub rhythm: Rhythm,
    /// Whether waiting sequences may be let in.
    pub admit: bool,
}

impl Resident {
    /// `most` sequences may run at once.
    pub fn new(key: u64, shared: Arc<Shared>, share: Arc<Share>, most: usize, sharing: bool) -> Self {
        let (sequences, pace) = (Vec::new(), Pace::default());
        Self { key, shared, share, most, sharing, sequences, pace, broken: false }
    }

    pub fn is_idle(&self) -> bool {
        self.sequences.is_empty()
    }

    /// Whether nobody can ask it any more.
    pub fn is_dropped(&self) -> bool {
        self.shared.dropped.load(Ordering::Acquire)
    }

    /// Takes a sequence in, to wait.
    pub fn submit(&mut self, sequence: Sequence) {
        if self.broken {
            return sequence.fail(broken());
        }
        self.sequences.push(sequence);
        self.publish();
    }

    pub fn forget_abandoned(&mut self) {
        let gone: Vec<Sequence> = self.sequences.extract_if(.., |sequence| sequence.is_abandoned()).collect();
        if !gone.is_empty() {
            // Before their sinks are dropped: whoever waits for that may look at the numbers.
            self.publish();
        }
    }

    /// Ends every sequence with this error, and gives every block up.
    pub fn end(&mut self, error: &Error) {
        let sequences = std::mem::take(&mut self.sequences);
        self.publish();
        sequences.into_iter().for_each(|sequence| sequence.fail(error.clone()));
    }

    /// Gives up what is cached too; nothing will be published any more.
    pub fn close(&mut self, error: &Error) {
        self.end(error);
        self.share.close();
    }

    /// The rhythm of its sequences that decode, beside those that read or soon will.
    pub fn rhythm(&self) -> Rhythm {
        let decoding = self.standings().iter().filter(|standing| standing.started && standing.decoding).count();
        let reading = (self.sequences.len() - decoding).min(self.most.saturating_sub(decoding));
        self.pace.rhythm_beside(decoding, reading)
    }

    /// Sequences that hold blocks.
    pub fn holders(&self) -> usize {
        self.standings().iter().filter(|standing| standing.started).count()
    }

    /// Makes the one whose turn it is give way, though nobody of this model asked. `false` if none
    /// can.
    pub fn give_way(&mut self) -> bool {
        // Who is protected has room to come further: where nobody can go on, nobody is.
        let Some(at) = victim(&self.standings(), usize::MAX) else { return false };
        self.preempt(at);
        self.publish();
        true
    }

    /// Ends the sequence that holds blocks, or else the oldest, because it can never go on.
    pub fn fail_stuck(&mut self) {
        let at = self.standings().iter().position(|standing| standing.started).unwrap_or(0);
        if at < self.sequences.len() {
            let message = "the pool of keys and values is too small for one sequence";
            self.sequences.remove(at).fail(Error::Internal(message.into()));
        }
        self.publish();
    }

    /// Runs one step and gives its tokens; 0 if there was nothing that could be run. `logits` is
    /// where its logits go.
    pub fn step(&mut self, terms: Terms, device: &mut dyn Device, logits: &mut Buffer) -> usize {
        let started = Instant::now();
        let limits =
            Limits { sequences: self.most, prompt_tokens: self.pace.prompt_tokens(self.rhythm().and(terms.rhythm)) };
        let ready = if terms.admit { self.admit(limits, device) } else { Ok(()) };
        let work = match ready.and_then(|()| self.with_room(plan(&self.standings(), limits), device)) {
            Ok(work) => work,
            Err(error) => {
                self.end(&error);
                return 0;
            }
        };
        if work.is_empty() {
            return 0;
        }
        let standings = self.standings();
        let decoding = work.iter().filter(|(at, _)| standings[*at].decoding).count();
        let tokens = work.iter().map(|(_, count)| count).sum::<usize>();
        // A bug in a kernel must not take the other models along.
        let step = catch_unwind(AssertUnwindSafe(|| {
            self.compute(&work, device, logits)?;
            self.advance(&work, device, logits);
            Ok(())
        }));
        match step {
            Ok(Ok(())) => {
                let seconds = started.elapsed().as_secs_f64();
                self.pace.record(Measured { decoding, prompt: tokens - decoding, seconds });
            }
            Ok(Err(error)) => self.end(&error),
            Err(_panic) => {
                self.broken = true;
                self.end(&broken());
            }
        }
        self.shared.counts.steps.fetch_add(1, Ordering::Relaxed);
        self.shared.counts.tokens.fetch_add(tokens as u64, Ordering::Relaxed);
        self.publish();
        tokens
    }

    /// Lets in who waits, while there is room. Who runs keeps a block each to grow into.
    fn admit(&mut self, limits: Limits, device: &mut dyn Device) -> Result<(), Error> {
        while let Some(at) = next_in(&self.with_held(), limits) {
            let (spare, live) = (self.holders(), self.live_prefix(at));
            let live = live.map(|(other, common)| (self.sequences[other].fork(common), common));
            let Some(admitted) = self.sequences[at].admit(spare, live) else { break };
            self.shared.counts.prefix_queries.fetch_add(admitted.asked as u64, Ordering::Relaxed);
            self.shared.counts.prefix_hits.fetch_add(admitted.found as u64, Ordering::Relaxed);
            self.copy(&admitted.copies, device)?;
        }
        Ok(())
    }

    /// Copies blocks (from, to) before anybody can give them up.
    fn copy(&self, blocks: &[(BlockId, BlockId)], device: &mut dyn Device) -> Result<(), Error> {
        if blocks.is_empty() {
            return Ok(());
        }
        self.drop_freed(device);
        device.copy(self.key, blocks)
    }

    /// What was given up for new blocks goes before they come: the budget is never exceeded.
    fn drop_freed(&self, device: &mut dyn Device) {
        device.drop_blocks(&self.share.take_freed());
    }

    /// The standings, in which those are held that would have more of their tokens for nothing if
    /// they waited for one that is reading them.
    fn with_held(&self) -> Vec<Standing> {
        let mut standings = self.standings();
        let both = standings.iter().zip(&self.sequences);
        let reading: Vec<&Sequence> = both.filter(|(s, _)| s.started && !s.decoding).map(|(_, one)| one).collect();
        let waiting = standings.iter_mut().zip(&self.sequences).filter(|(standing, _)| !standing.started);
        for (standing, waiting) in waiting.filter(|_| self.sharing) {
            standing.held = reading.iter().any(|other| {
                let (now, soon) = other.in_common(waiting);
                soon >= now + BLOCK
            });
        }
        standings
    }

    /// Who runs and has the most of what sequence `at` begins with, and how many tokens that are.
    fn live_prefix(&self, at: usize) -> Option<(usize, usize)> {
        let others = self.sequences.iter().enumerate().filter(|(_, other)| self.sharing && other.standing().started);
        let common = others.map(|(other, sequence)| (other, sequence.in_common(&self.sequences[at]).0));
        common.max_by_key(|(_, common)| *common)
    }

    /// The part of the work that has blocks, in the order of the sequences.
    fn with_room(
        &mut self,
        planned: Vec<(usize, usize)>,
        device: &mut dyn Device,
    ) -> Result<Vec<(usize, usize)>, Error> {
        let mut work: Vec<(usize, usize)> = Vec::new();
        let mut given_up = Vec::new();
        for (at, count) in planned {
            while !given_up.contains(&at) {
                if let Some(copies) = self.sequences[at].reserve(count) {
                    self.copy(&copies, device)?;
                    work.push((at, count));
                    break;
                }
                let Some(other) = victim(&self.standings(), at) else { break };
                self.preempt(other);
                work.retain(|(chosen, _)| *chosen != other);
                given_up.push(other);
            }
        }
        work.sort_unstable();
        Ok(work)
    }

    fn compute(&mut self, work: &[(usize, usize)], device: &mut dyn Device, logits: &mut Buffer) -> Result<(), Error> {
        self.drop_freed(device);
        let batch = self.batch(work);
        let tables = work.iter().map(|(at, count)| self.sequences[*at].blocks_of_next(*count)).collect();
        device.forward(self.key, &batch, tables, logits)
    }

    fn batch(&self, work: &[(usize, usize)]) -> Batch {
        let mut batch = Batch::default();
        for (table, (at, count)) in work.iter().enumerate() {
            let (tokens, first) = self.sequences[*at].next(*count);
            batch.tokens.extend_from_slice(tokens);
            batch.positions.extend(first..first + count);
            batch.sequences.extend(std::iter::repeat_n(table, *count));
            if self.sequences[*at].completes(*count) {
                batch.logits.push(batch.tokens.len() - 1);
            }
        }
        batch
    }

    /// Gives every sequence whose known tokens are all computed its next token.
    fn advance(&mut self, work: &[(usize, usize)], device: &mut dyn Device, logits: &mut [f32]) {
        let mut rows = logits.chunks_exact_mut(self.shared.config.vocabulary);
        let mut choices = Vec::new();
        let mut counts = work.iter().peekable();
        for (at, sequence) in self.sequences.iter_mut().enumerate() {
            let Some((_, count)) = counts.next_if(|(chosen, _)| *chosen == at) else { continue };
            let completes = sequence.completes(*count);
            sequence.computed(*count);
            if completes && let Some(row) = rows.next() {
                choices.push((at, sequence, row, None));
            }
        }
        // A choice looks at the whole vocabulary, so it is worth a core of its own.
        device.team().chunks(&mut choices, 1, |_, choice| {
            for (_, sequence, row, chosen) in choice {
                *chosen = Some(sequence.choose(row));
            }
        });
        let tokenizer = &self.shared.tokenizer;
        let ended = |(at, sequence, _, chosen): (usize, &mut Sequence, &mut [f32], Option<_>)| match chosen {
            Some(chosen) => (!sequence.advance(chosen, tokenizer)).then_some(at),
            None => None,
        };
        let over: Vec<usize> = choices.into_iter().filter_map(ended).collect();
        over.into_iter().rev().for_each(|at| drop(self.sequences.remove(at)));
    }

    fn preempt(&mut self, at: usize) {
        self.sequences[at].preempt();
        self.shared.counts.preemptions.fetch_add(1, Ordering::Relaxed);
    }

    fn standings(&self) -> Vec<Standing> {
        self.sequences.iter().map(|sequence| sequence.standing()).collect()
    }

    fn publish(&self) {
        let running = self.holders() as u64;
        self.shared.counts.running.store(running, Ordering::Relaxed);
        self.shared.counts.waiting.store(self.sequences.len() as u64 - running, Ordering::Relaxed);
    }
}

fn broken() -> Error {
    Error::Internal("a step of this model panicked: load it again".into())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::chat::Chat;
    use crate::device::Cpu;
    use crate::kernels::Kernels;
    use crate::kernels::team::Team;
    use crate::kv::{KvType, Layout, Pool, Table};
    use crate::model::Decoder;
    use crate::sequence::{Event, Request, Sink};
    use crate::shared::Counts;
    use crate::tokenizer::Tokenizer;
    use crate::weights::Weights;

    struct Listener;

    impl Sink for Listener {
        fn send(&mut self, _event: Event) -> bool {
            true
        }
        fn is_closed(&self) -> bool {
            false
        }
    }

    /// One of the repository's models on a pool of so many blocks, and its device.
    fn resident(blocks: u64) -> (Resident, Cpu) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/reverse.Q3_K_M.gguf");
        let (weights, header) = Weights::open(&path).unwrap();
        let tokenizer = Tokenizer::of(&header).unwrap();
        let decoder = Decoder::new(weights, &header, 1024).unwrap();
        let (config, layout) = (decoder.config.clone(), Layout::of(&decoder.config, KvType::F16));
        let share = Share::open(&Pool::new(blocks * layout.block_bytes()), layout.block_bytes(), true);
        let (chat, counts, bytes) = (Chat::default(), Counts::default(), decoder.bytes());
        let shared = Arc::new(Shared { config, tokenizer, chat, counts, dropped: false.into(), bytes });
        let mut device = Cpu::new(Team::new(1).unwrap(), Kernels::best());
        device.add(7, Box::new(decoder), layout);
        (Resident::new(7, shared, share, 4, true), device)
    }

    #[test]
    fn the_memory_of_blocks_that_were_given_up_goes_before_that_of_new_ones_comes() {
        let (mut resident, mut device) = resident(8);
        let terms = Terms { rhythm: Rhythm::Free, admit: true };
        for from in [0, 100] {
            let request = Request { prompt: (from..from + 100).collect(), max_tokens: 1, ..Request::default() };
            let table = Table::new(&resident.share);
            resident.submit(Sequence::new(request, None, table, Box::new(Listener)));
            while !resident.is_idle() {
                assert!(resident.step(terms, &mut device, &mut Buffer::default()) > 0);
                assert!(device.held() <= 8, "{} blocks of 8", device.held());
            }
        }
        assert_eq!(device.held(), 8);
    }
}
