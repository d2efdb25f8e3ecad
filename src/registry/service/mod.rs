//! The run loop: the one owner of every model's state.
//!
//! Commands come in through the [`Handle`], reports from the tasks in [`tasks`] that do the slow
//! work. After each of them [`Service::advance`] starts what can be started and the view is
//! published. Nothing in the loop waits.

mod slot;
mod tasks;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use indexmap::IndexMap;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::lease::Counter;
use super::ledger::{Entry, Ledger};
use super::planner::{self, Admission, Resident};
use super::state::Event;
use super::{Error, Handle, Lease, ModelView, State, Swapped, View, swap};
use crate::config::Catalog;
use crate::domain::ModelId;
use crate::engine::{LoadedModel, Released};
use crate::telemetry::Metrics;
use slot::{Reply, Slot, Waiter, answer};
use tasks::{Report, Reports};

/// What the outside may ask for.
pub(super) enum Command {
    Lease { model: ModelId, reply: Reply<Lease> },
    Load { model: ModelId, evict: bool, reply: Reply<()> },
    Unload { model: ModelId, reply: Reply<()> },
    Swap { from: ModelId, to: ModelId, reply: Reply<Swapped> },
}

pub(super) struct Service {
    slots: IndexMap<ModelId, Slot>,
    ledger: Ledger,
    metrics: Arc<Metrics>,
    commands: mpsc::Receiver<Command>,
    /// For swaps, which act through the registry's own face. Weak: the loop must not keep itself.
    own_commands: mpsc::WeakSender<Command>,
    reports: Reports,
    inbox: mpsc::Receiver<Report>,
    idle: Arc<Notify>,
    swapping: bool,
    tasks: TaskTracker,
    view: watch::Sender<View>,
    shutdown: CancellationToken,
}

impl Service {
    pub(super) fn new(
        catalog: &Catalog,
        metrics: Arc<Metrics>,
        commands: mpsc::Receiver<Command>,
        own_commands: mpsc::WeakSender<Command>,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> (Self, watch::Receiver<View>) {
        let idle = Arc::new(Notify::new());
        let slots: IndexMap<ModelId, Slot> = catalog
            .models
            .iter()
            .map(|(id, config)| (id.clone(), Slot::new(config.clone(), Counter::new(idle.clone()))))
            .collect();
        // Each model has at most one task at a time, and there is at most one swap.
        let (reports, inbox) = mpsc::channel(slots.len() + 1);
        let ledger = Ledger::new(catalog.budget);
        metrics.budget_bytes.set(i64::try_from(catalog.budget).unwrap_or(i64::MAX));
        let (view, watcher) = watch::channel(snapshot(&slots, &ledger));
        let service = Self {
            slots,
            ledger,
            metrics,
            commands,
            own_commands,
            reports: Reports::new(reports),
            inbox,
            idle,
            swapping: false,
            tasks,
            view,
            shutdown,
        };
        (service, watcher)
    }

    pub(super) async fn run(mut self) {
        self.preload();
        let idle = self.idle.clone();
        let mut changed = true;
        loop {
            if changed {
                self.advance();
                self.publish();
            }
            changed = tokio::select! {
                () = self.shutdown.cancelled() => break,
                Some(command) = self.commands.recv() => self.command(command),
                Some(report) = self.inbox.recv() => { self.report(report); true }
                // Room may have become free, which matters only if somebody waits for some.
                () = idle.notified() => self.slots.values().any(|slot| slot.wanted.is_some()),
            };
        }
        self.close().await;
    }

    fn preload(&mut self) {
        for slot in self.slots.values_mut().filter(|slot| slot.config.preload) {
            // Nobody waits for the answer; the state says how it went.
            let (reply, _) = oneshot::channel();
            slot.wait(Waiter::Load { evict: false, reply });
        }
    }

    /// Does what was asked, or notes it. `false` if nothing changed: a lease of a ready model, which
    /// is what nearly every request asks for.
    fn command(&mut self, command: Command) -> bool {
        match command {
            Command::Lease { model, reply } => return self.lease(model, reply),
            Command::Load { model, evict, reply } => match self.slots.get_mut(&model) {
                None => answer(reply, Err(Error::UnknownModel(model.to_string()))),
                Some(slot) if slot.state == State::Ready => answer(reply, Ok(())),
                Some(slot) => slot.wait(Waiter::Load { evict, reply }),
            },
            Command::Unload { model, reply } => self.unload(model, reply),
            Command::Swap { from, to, reply } => self.swap(from, to, reply),
        }
        true
    }

    fn lease(&mut self, model: ModelId, reply: Reply<Lease>) -> bool {
        let Some(slot) = self.slots.get_mut(&model) else {
            answer(reply, Err(Error::UnknownModel(model.to_string())));
            return false;
        };
        match (&slot.state, &slot.model) {
            (State::Ready, Some(loaded)) => answer(reply, Ok(Lease::new(model, loaded.clone(), &slot.counter))),
            (State::Failed(reason), _) => answer(reply, Err(Error::Failed { model, reason: reason.clone() })),
            _ => {
                slot.wait(Waiter::Lease(reply));
                return true;
            }
        }
        false
    }

    fn unload(&mut self, model: ModelId, reply: Reply<()>) {
        let Some(slot) = self.slots.get_mut(&model) else {
            return answer(reply, Err(Error::UnknownModel(model.to_string())));
        };
        match slot.state {
            State::Ready => {
                slot.leavers.push(reply);
                self.drain(&model, "admin");
            }
            State::Draining | State::Unloading => slot.leavers.push(reply),
            _ => answer(reply, Err(Error::Illegal { model, state: slot.state.clone(), wish: "be unloaded" })),
        }
    }

    fn swap(&mut self, from: ModelId, to: ModelId, reply: Reply<Swapped>) {
        let state = |id: &ModelId| {
            let slot = self.slots.get(id).ok_or_else(|| Error::UnknownModel(id.to_string()))?;
            Ok(slot.state.clone())
        };
        let legal = || match (state(&from)?, state(&to)?) {
            _ if self.swapping => Err(Error::SwapRunning),
            (State::Ready, State::Unloaded | State::Failed(_)) => Ok(()),
            (State::Ready, state) => Err(Error::Illegal { model: to.clone(), state, wish: "be swapped in" }),
            (state, _) => Err(Error::Illegal { model: from.clone(), state, wish: "be swapped out" }),
        };
        if let Err(error) = legal() {
            return answer(reply, Err(error));
        }
        let Some(commands) = self.own_commands.upgrade() else { return };
        self.swapping = true;
        let (handle, reports) = (Handle::new(commands, self.view.subscribe()), self.reports.clone());
        self.tasks.spawn(async move {
            let result = swap::run(&handle, &from, &to).await;
            reports.send(Report::Swapped { succeeded: result.is_ok() }).await;
            answer(reply, result);
        });
    }

    /// Starts the loads that can start and the evictions they need. One load runs at a time: its
    /// peak is higher than what it ends with, and the cores are shared anyway.
    fn advance(&mut self) {
        self.slots.values_mut().for_each(Slot::forget_who_left);
        if self.slots.values().any(|slot| slot.state == State::Loading) {
            return;
        }
        for id in self.wanted() {
            let Some(slot) = self.slots.get(&id) else { continue };
            if let (State::Failed(reason), Some(_)) = (&slot.state, self.ledger.entry(&id)) {
                let reason = format!("{reason}; its memory is still taken, so it cannot be loaded again");
                self.refuse(&id, |model| Error::Failed { model, reason: reason.clone() });
                continue;
            }
            let needed = slot.config.estimate.total();
            match planner::admit(needed, self.ledger.budget(), &self.residents()) {
                Admission::Fits => return self.load(&id),
                Admission::NeverFits { free_at_most } => {
                    let budget = self.ledger.budget();
                    self.refuse(&id, |model| Error::NeverFits { model, needed, free_at_most, budget });
                }
                Admission::FitsAfter(_) | Admission::Busy if !slot.may_evict() => {
                    let free = self.ledger.free();
                    self.refuse(&id, |model| Error::NoRoom { model, needed, free });
                }
                // The room that comes free is for this one: who came later waits.
                Admission::FitsAfter(victims) => return victims.iter().for_each(|id| self.drain(id, "evicted")),
                Admission::Busy => {}
            }
        }
    }

    /// The models someone waits for that could be loaded, the longest wanted first.
    fn wanted(&self) -> Vec<ModelId> {
        let mut wanted: Vec<(Instant, &ModelId)> = self
            .slots
            .iter()
            .filter(|(_, slot)| matches!(slot.state, State::Unloaded | State::Failed(_)))
            .filter_map(|(id, slot)| Some((slot.wanted?, id)))
            .collect();
        wanted.sort_by_key(|(since, _)| *since);
        wanted.into_iter().map(|(_, id)| id.clone()).collect()
    }

    fn residents(&self) -> Vec<Resident> {
        let on_the_books = self.slots.iter().filter(|(id, _)| self.ledger.entry(id).is_some());
        on_the_books
            .map(|(id, slot)| Resident {
                id: id.clone(),
                bytes: self.ledger.bytes(id),
                standing: slot.standing(),
                last_used: slot.counter.usage().changed,
            })
            .collect()
    }

    fn load(&mut self, id: &ModelId) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        if self.ledger.reserve(id, slot.config.estimate) {
            slot.enter(Event::LoadStarted);
            let load = tasks::load(slot.config.clone(), self.reports.clone());
            self.tasks.spawn(self.shutdown.clone().run_until_cancelled_owned(load));
        }
    }

    fn drain(&mut self, id: &ModelId, reason: &'static str) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        if slot.enter(Event::DrainStarted) {
            self.metrics.unloads.with_label_values(&[id.as_str(), reason]).inc();
            self.tasks.spawn(tasks::drain(slot.config.clone(), slot.counter.clone(), self.reports.clone()));
        }
    }

    fn report(&mut self, report: Report) {
        match report {
            Report::Swapped { succeeded } => {
                self.swapping = false;
                let outcome = if succeeded { "succeeded" } else { "failed" };
                self.metrics.swaps.with_label_values(&[outcome]).inc();
            }
            Report::Loaded { id, model, took } => self.loaded(&id, model, took),
            Report::LoadFailed { id, reason, took, memory_back } => {
                self.metrics.load_seconds.with_label_values(&[id.as_str(), "failed"]).observe(took.as_secs_f64());
                if memory_back {
                    self.ledger.release(&id);
                }
                if let Some(slot) = self.slots.get_mut(&id) {
                    slot.enter(Event::LoadFailed(reason.clone()));
                }
                self.refuse(&id, |model| Error::Failed { model, reason: reason.clone() });
            }
            Report::LateLoadReleased { id } => self.ledger.release(&id),
            Report::Drained { id } => {
                if let Some(slot) = self.slots.get_mut(&id)
                    && slot.enter(Event::Drained)
                    && let Some(model) = slot.model.take()
                {
                    slot.earlier = slot.earlier.plus(model.stats().work);
                    self.tasks.spawn(tasks::unload(id, model, self.reports.clone()));
                }
            }
            Report::Unloaded { id, released } => self.unloaded(&id, released),
        }
    }

    fn loaded(&mut self, id: &ModelId, model: Arc<dyn LoadedModel>, took: Duration) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        if let Err(over) = self.ledger.commit(id, model.footprint()) {
            self.tasks.spawn(tasks::undo_load(id.clone(), model, over, took, self.reports.clone()));
            return;
        }
        self.metrics.load_seconds.with_label_values(&[id.as_str(), "loaded"]).observe(took.as_secs_f64());
        slot.load_time = Some(took);
        slot.model = Some(model.clone());
        slot.enter(Event::Loaded);
        slot.wanted = None;
        for waiter in slot.waiters.drain(..) {
            match waiter {
                Waiter::Lease(reply) => answer(reply, Ok(Lease::new(id.clone(), model.clone(), &slot.counter))),
                Waiter::Load { reply, .. } => answer(reply, Ok(())),
            }
        }
    }

    fn unloaded(&mut self, id: &ModelId, released: Released) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        let leavers = std::mem::take(&mut slot.leavers);
        match released {
            Released::Yes => {
                slot.enter(Event::Released);
                self.ledger.release(id);
                leavers.into_iter().for_each(|reply| answer(reply, Ok(())));
            }
            Released::No(reason) => {
                slot.enter(Event::ReleaseFailed(reason.clone()));
                let error = || Error::Failed { model: id.clone(), reason: reason.clone() };
                leavers.into_iter().for_each(|reply| answer(reply, Err(error())));
                self.refuse(id, |model| Error::Failed { model, reason: reason.clone() });
            }
        }
    }

    /// Tells everyone who waits for this model that it will not come.
    fn refuse(&mut self, id: &ModelId, error: impl Fn(ModelId) -> Error) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        slot.wanted = None;
        for waiter in slot.waiters.drain(..) {
            match waiter {
                Waiter::Lease(reply) => answer(reply, Err(error(id.clone()))),
                Waiter::Load { reply, .. } => answer(reply, Err(error(id.clone()))),
            }
        }
    }

    fn publish(&self) {
        let view = snapshot(&self.slots, &self.ledger);
        self.metrics.used_bytes.set(i64::try_from(view.used).unwrap_or(i64::MAX));
        for (id, slot) in &self.slots {
            let (id, bytes) = (id.as_str(), self.ledger.entry(id).map(footprint).unwrap_or_default());
            for name in State::NAMES {
                self.metrics.model_state.with_label_values(&[id, name]).set(i64::from(name == slot.state.name()));
            }
            let lines = [
                ("weights_mapped", bytes.weights_mapped),
                ("weights_private", bytes.weights_private),
                ("kv", bytes.kv),
                ("scratch", bytes.scratch),
                ("tables", bytes.tables),
            ];
            for (line, bytes) in lines {
                let gauge = self.metrics.ledger_bytes.with_label_values(&[id, line]);
                gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX));
            }
        }
        self.view.send_replace(view);
    }

    /// Unloads everything; waiters learn from their closed channels.
    async fn close(mut self) {
        self.commands.close();
        let models: Vec<_> = self.slots.values_mut().filter_map(|slot| slot.model.take()).collect();
        self.slots.clear();
        futures::future::join_all(models.iter().map(|model| model.unload())).await;
    }
}

fn footprint(entry: &Entry) -> crate::engine::Footprint {
    match entry {
        Entry::Reserved(estimated) => *estimated,
        Entry::Committed { measured, .. } => *measured,
    }
}

fn snapshot(slots: &IndexMap<ModelId, Slot>, ledger: &Ledger) -> View {
    let models = slots.iter().map(|(id, slot)| ModelView {
        config: slot.config.clone(),
        state: slot.state.clone(),
        since: slot.since,
        load_time: slot.load_time,
        measured: match ledger.entry(id) {
            Some(Entry::Committed { measured, .. }) => Some(*measured),
            _ => None,
        },
        capabilities: slot.model.as_ref().map(|model| model.capabilities()),
        leases: slot.counter.clone(),
        model: slot.model.as_ref().map(Arc::downgrade),
        earlier: slot.earlier,
    });
    View { models: models.collect(), budget: ledger.budget(), used: ledger.used() }
}
