//! The engine's loop: take commands, pick a model, run one step of it, tell the callers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvError, SyncSender, TryRecvError};

use crate::Error;
use crate::device::Device;
use crate::kernels::Buffer;
use crate::kv::{Layout, Pool};
use crate::model::Decoder;
use crate::resident::{Resident, Terms};
use crate::schedule::pace::Rhythm;
use crate::schedule::turns::Turns;
use crate::sequence::Sequence;

pub enum Command {
    Add {
        key: u64,
        model: Box<Resident>,
        decoder: Box<Decoder>,
        layout: Layout,
    },
    Submit {
        key: u64,
        sequence: Box<Sequence>,
    },
    Remove {
        key: u64,
        done: SyncSender<()>,
    },
    /// Look for models whose handles are gone.
    Wake,
}

/// Every model, and the device that computes them.
pub struct Models {
    models: BTreeMap<u64, Resident>,
    turns: Turns,
    pool: Arc<Pool>,
    device: Box<dyn Device>,
    /// Of the last step, whichever model's; the next has their memory.
    logits: Buffer,
}

impl Models {
    pub fn new(pool: Arc<Pool>, device: Box<dyn Device>) -> Self {
        Self { models: BTreeMap::new(), turns: Turns::default(), pool, device, logits: Buffer::default() }
    }

    /// Runs until every handle is gone.
    pub fn run(mut self, commands: &Receiver<Command>) {
        while self.take_commands(commands).is_ok() {
            self.remove_dropped();
            self.models.values_mut().for_each(Resident::forget_abandoned);
            if !self.step_fairly() {
                self.make_room();
            }
            self.drop_freed();
        }
    }

    /// Takes every command that waits; waits for one if there is nothing else to do.
    fn take_commands(&mut self, commands: &Receiver<Command>) -> Result<(), RecvError> {
        let idle = self.models.values().all(Resident::is_idle);
        if idle {
            self.device.rest();
            self.logits = Buffer::default();
            self.take(commands.recv()?);
        }
        loop {
            match commands.try_recv() {
                Ok(command) => self.take(command),
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return if idle { Err(RecvError) } else { Ok(()) },
            }
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Add { key, model, decoder, layout } => {
                self.device.add(key, decoder, layout);
                self.models.insert(key, *model);
            }
            Command::Submit { key, sequence } => match self.models.get_mut(&key) {
                Some(model) => {
                    if model.is_idle() {
                        self.turns.wake(key);
                    }
                    model.submit(*sequence);
                }
                None => sequence.fail(Error::Stopped),
            },
            Command::Remove { key, done } => {
                self.remove(key);
                let _ = done.try_send(());
            }
            Command::Wake => {}
        }
    }

    /// Ends a model's sequences and gives its memory back.
    fn remove(&mut self, key: u64) {
        if let Some(mut model) = self.models.remove(&key) {
            model.close(&Error::Stopped);
        }
        self.turns.forget(key);
        self.device.remove(key);
        self.drop_freed();
    }

    fn remove_dropped(&mut self) {
        let dropped = self.models.iter().filter(|(_, model)| model.is_dropped()).map(|(key, _)| *key);
        dropped.collect::<Vec<_>>().into_iter().for_each(|key| self.remove(key));
    }

    /// One step of the model that was served least, of those that can go on. `false` if none can.
    /// While one that comes first finds no room, the others let nobody in: what they give back is
    /// for it.
    fn step_fairly(&mut self) -> bool {
        let order = self.turns.order(self.models.iter().filter(|(_, model)| !model.is_idle()).map(|(key, _)| *key));
        let mut admit = true;
        for key in &order {
            let rhythm = self.rhythm_beside(*key);
            let Some(model) = self.models.get_mut(key) else { continue };
            let tokens = model.step(Terms { rhythm, admit }, &mut *self.device, &mut self.logits);
            if tokens > 0 {
                self.turns.charge(*key, tokens);
                return true;
            }
            admit = false;
        }
        order.is_empty()
    }

    /// The rhythm that a step of this model must not break on the others.
    fn rhythm_beside(&self, key: u64) -> Rhythm {
        let others = self.models.iter().filter(|(other, _)| **other != key);
        others.map(|(_, model)| model.rhythm()).fold(Rhythm::Free, Rhythm::and)
    }

    /// Nobody can go on: everyone waits for the others' blocks. Of the model with the most
    /// sequences one gives way; a lone one that still cannot go on never will.
    fn make_room(&mut self) {
        let all: usize = self.models.values().map(Resident::holders).sum();
        let waiting = |model: &Resident| (model.holders(), !model.is_idle());
        let Some(model) = self.models.values_mut().max_by_key(|model| waiting(model)) else { return };
        if all < 2 || !model.give_way() {
            model.fail_stuck();
        }
    }

    /// Returns the memory of the blocks that were given up.
    fn drop_freed(&mut self) {
        self.device.drop_blocks(&self.pool.take_freed());
    }
}
