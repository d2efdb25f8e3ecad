//! The engine's loop: take commands, pick a model, run one step of it, tell the callers.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvError, SyncSender, TryRecvError};

use crate::Error;
use crate::kernels::team::Team;
use crate::kv::Pool;
use crate::model::{Batch, Decoder};
use crate::schedule::{Limits, Standing, plan, victim};
use crate::sequence::Sequence;
use crate::shared::Shared;

pub enum Command {
    Add { key: u64, decoder: Box<Decoder>, shared: Arc<Shared>, limits: Limits, pool: Arc<Pool> },
    Submit { key: u64, sequence: Box<Sequence> },
    Remove { key: u64, done: Option<SyncSender<()>> },
}

/// A model and its sequences, the oldest first.
struct Resident {
    decoder: Box<Decoder>,
    shared: Arc<Shared>,
    limits: Limits,
    pool: Arc<Pool>,
    sequences: Vec<Sequence>,
    /// Tokens it was given: who has the fewest goes next.
    served: u64,
    /// A step of it panicked; it runs no more.
    broken: bool,
}

/// Runs until every handle is gone.
pub fn run(commands: &Receiver<Command>, mut team: Team) {
    let mut models: BTreeMap<u64, Resident> = BTreeMap::new();
    loop {
        let idle = models.values().all(|model| model.sequences.is_empty());
        if take_commands(commands, &mut models, idle).is_err() {
            return;
        }
        models.values_mut().for_each(Resident::forget_abandoned);
        if !step_fairly(&mut models, &mut team) {
            make_room(&mut models);
        }
    }
}

/// Takes every command that waits; waits for one if there is nothing else to do.
fn take_commands(
    commands: &Receiver<Command>,
    models: &mut BTreeMap<u64, Resident>,
    idle: bool,
) -> Result<(), RecvError> {
    if idle {
        take(commands.recv()?, models);
    }
    loop {
        match commands.try_recv() {
            Ok(command) => take(command, models),
            Err(TryRecvError::Empty) => return Ok(()),
            Err(TryRecvError::Disconnected) => return if idle { Err(RecvError) } else { Ok(()) },
        }
    }
}

fn take(command: Command, models: &mut BTreeMap<u64, Resident>) {
    match command {
        Command::Add { key, decoder, shared, limits, pool } => {
            // A newcomer starts level with the others: it has no claim on the past.
            let served = models.values().map(|model| model.served).min().unwrap_or(0);
            models
                .insert(key, Resident { decoder, shared, limits, pool, sequences: Vec::new(), served, broken: false });
        }
        Command::Submit { key, sequence } => match models.get_mut(&key) {
            Some(model) if !model.broken => {
                model.sequences.push(*sequence);
                model.publish();
            }
            Some(_) => sequence.fail(broken()),
            None => sequence.fail(Error::Stopped),
        },
        Command::Remove { key, done } => {
            if let Some(mut model) = models.remove(&key) {
                model.end(&Error::Stopped);
            }
            if let Some(done) = done {
                let _ = done.try_send(());
            }
        }
    }
}

/// One step of the model that was served least, of those that can go on. `false` if none can.
fn step_fairly(models: &mut BTreeMap<u64, Resident>, team: &mut Team) -> bool {
    let mut order: Vec<u64> =
        models.iter().filter(|(_, model)| !model.sequences.is_empty()).map(|(key, _)| *key).collect();
    order.sort_by_key(|key| models.get(key).map_or(0, |model| model.served));
    if order.is_empty() {
        return true;
    }
    order.into_iter().any(|key| models.get_mut(&key).is_some_and(|model| model.step(team)))
}

/// Nobody can go on: the pool is empty, and everyone waits for the others' blocks. The model with
/// the most sequences gives up its youngest; a lone sequence that still cannot go on never will.
fn make_room(models: &mut BTreeMap<u64, Resident>) {
    let holders = |model: &Resident| model.standings().iter().filter(|standing| standing.started).count();
    let all: usize = models.values().map(holders).sum();
    let Some(model) = models.values_mut().max_by_key(|model| holders(model)) else { return };
    let Some(at) = model.standings().iter().rposition(|standing| standing.started) else { return };
    if all > 1 {
        model.preempt(at);
    } else {
        let message = "the pool of keys and values is too small for one sequence";
        model.sequences.remove(at).fail(Error::Internal(message.into()));
    }
    model.publish();
}

impl Resident {
    fn standings(&self) -> Vec<Standing> {
        self.sequences.iter().map(|sequence| sequence.standing()).collect()
    }

    fn forget_abandoned(&mut self) {
        let before = self.sequences.len();
        self.sequences.retain(|sequence| !sequence.is_abandoned());
        if self.sequences.len() != before {
            self.publish();
        }
    }

    /// Ends every sequence with this error.
    fn end(&mut self, error: &Error) {
        let sequences = std::mem::take(&mut self.sequences);
        self.publish();
        sequences.into_iter().for_each(|sequence| sequence.fail(error.clone()));
    }

    fn preempt(&mut self, at: usize) {
        self.sequences[at].preempt();
        self.shared.counts.preemptions.fetch_add(1, Ordering::Relaxed);
    }

    /// Runs one step; `false` if there was nothing that could be run.
    fn step(&mut self, team: &mut Team) -> bool {
        let work = self.with_room(plan(&self.standings(), self.limits));
        if work.is_empty() {
            return false;
        }
        let batch = self.batch(&work);
        let mut tables: Vec<_> = {
            let chosen =
                self.sequences.iter_mut().enumerate().filter(|(at, _)| work.iter().any(|(chosen, _)| chosen == at));
            chosen.map(|(_, sequence)| &mut sequence.table).collect()
        };
        let decoder = &self.decoder;
        // A bug in a kernel must not take the other models along.
        match catch_unwind(AssertUnwindSafe(|| decoder.forward(team, &batch, &mut tables))) {
            Ok(logits) => self.advance(&work, logits),
            Err(_panic) => {
                self.broken = true;
                self.end(&broken());
            }
        }
        self.served += batch.tokens.len() as u64;
        self.shared.counts.steps.fetch_add(1, Ordering::Relaxed);
        self.shared.counts.tokens.fetch_add(batch.tokens.len() as u64, Ordering::Relaxed);
        self.publish();
        true
    }

    /// The part of the work that has blocks, in the order of the sequences.
    fn with_room(&mut self, planned: Vec<(usize, usize)>) -> Vec<(usize, usize)> {
        let mut work: Vec<(usize, usize)> = Vec::new();
        let mut given_up = Vec::new();
        for (at, count) in planned.into_iter() {
            while !given_up.contains(&at) {
                let sequence = &mut self.sequences[at];
                let room = sequence.room(count);
                if sequence.table.reserve(room, &self.pool) {
                    work.push((at, count));
                    break;
                }
                let Some(younger) = victim(&self.standings(), at) else { break };
                self.preempt(younger);
                work.retain(|(chosen, _)| *chosen != younger);
                given_up.push(younger);
            }
        }
        work.sort_unstable();
        work
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

    fn advance(&mut self, work: &[(usize, usize)], mut logits: Vec<f32>) {
        let mut rows = logits.chunks_exact_mut(self.shared.config.vocabulary);
        let mut over = Vec::new();
        for (at, count) in work {
            let sequence = &mut self.sequences[*at];
            let completes = sequence.completes(*count);
            sequence.computed(*count);
            if completes
                && let Some(row) = rows.next()
                && !sequence.advance(row, &self.shared.tokenizer)
            {
                over.push(*at);
            }
        }
        over.into_iter().rev().for_each(|at| drop(self.sequences.remove(at)));
    }

    fn publish(&self) {
        let counts = &self.shared.counts;
        let running = self.sequences.iter().filter(|sequence| sequence.table.blocks() > 0).count() as u64;
        let blocks = self.sequences.iter().map(|sequence| sequence.table.blocks() as u64).sum();
        counts.running.store(running, Ordering::Relaxed);
        counts.waiting.store(self.sequences.len() as u64 - running, Ordering::Relaxed);
        counts.blocks.store(blocks, Ordering::Relaxed);
    }
}

fn broken() -> Error {
    Error::Internal("a step of this model panicked: load it again".into())
}
