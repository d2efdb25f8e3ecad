//! The threads that compute: one team for the whole engine, which works on one loop at a time.
//!
//! A step of a small model is a hundred loops of some microseconds each, so what counts is how soon
//! the others are at work and how soon it is known that all is done. Members look for the next loop
//! for a moment before they sleep; whoever is still asleep when a loop ends is not waited for. A
//! team with nothing to do sleeps.
#![allow(unsafe_code, reason = "a loop borrows what it works on, and the members' threads live longer")]

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a member looks for the next loop before it sleeps: longer than the pauses inside a
/// step, shorter than anybody would notice.
const LOOK: Duration = Duration::from_micros(50);
/// Looks at the others' work before the core is offered to whoever wants it.
const PATIENCE: usize = 10_000;
/// Looks between two glances at the clock.
const LOOKS: usize = 64;
/// In [`Shared::state`]: the loop takes members. The rest of the number counts those inside.
const OPEN: usize = 1 << (usize::BITS - 1);

/// A number of threads and the caller, who works along.
#[derive(Debug)]
pub struct Team {
    shared: Arc<Shared>,
    members: Vec<JoinHandle<()>>,
}

/// The loop that is being worked on: a function of the number of a task.
type Work<'w> = dyn Fn(usize) + Sync + 'w;

#[derive(Debug)]
struct Shared {
    /// Rises with every loop, so that members see that there is a new one.
    epoch: AtomicUsize,
    state: AtomicUsize,
    /// Written by the caller while the loop is closed and nobody is inside, read by members inside.
    work: UnsafeCell<Option<*const Work<'static>>>,
    tasks: AtomicUsize,
    next: AtomicUsize,
    panicked: AtomicBool,
    ended: AtomicBool,
    asleep: AtomicUsize,
    bed: Mutex<()>,
    alarm: Condvar,
}

// SAFETY: `work` is the only part that is not so by itself; the field says who touches it when.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Team {
    /// A team of `threads`, the caller included; 0 for one a physical core: two threads of a core
    /// share what multiplies.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        // Quotas and pinning leave less than there is.
        let allowed = std::thread::available_parallelism().map_or(1, usize::from);
        let cores = || num_cpus::get_physical().clamp(1, allowed);
        let threads = if threads == 0 { cores() } else { threads };
        let shared = Arc::new(Shared {
            epoch: AtomicUsize::new(0),
            state: AtomicUsize::new(0),
            work: UnsafeCell::new(None),
            tasks: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            asleep: AtomicUsize::new(0),
            bed: Mutex::new(()),
            alarm: Condvar::new(),
        });
        let mut team = Self { shared, members: Vec::new() };
        for at in 1..threads {
            let shared = Arc::clone(&team.shared);
            let member = std::thread::Builder::new().name(format!("paged-{at}"));
            team.members.push(member.spawn(move || shared.serve())?);
        }
        Ok(team)
    }

    /// Threads that work, the caller included.
    pub fn threads(&self) -> usize {
        self.members.len() + 1
    }

    /// Calls `work` once with every number below `tasks`, on all threads, and returns when the last
    /// call has. One loop at a time: the team must not be shared between callers, and `work` must
    /// not call it.
    ///
    /// # Panics
    /// When a call has panicked, after the others have ended.
    pub fn run(&mut self, tasks: usize, work: impl Fn(usize) + Sync) {
        if tasks <= 1 || self.members.is_empty() {
            return (0..tasks).for_each(work);
        }
        let work: &Work<'_> = &work;
        // SAFETY: only the lifetime changes. Members call it only while they are counted inside,
        // and this function does not return, or unwind, before nobody is.
        let work = unsafe { std::mem::transmute::<&Work<'_>, &'static Work<'static>>(work) };
        let shared = &*self.shared;
        // SAFETY: the loop is closed and nobody is inside, by the end of the previous call.
        unsafe { *shared.work.get() = Some(std::ptr::from_ref(work)) };
        shared.tasks.store(tasks, Ordering::Relaxed);
        shared.next.store(0, Ordering::Relaxed);
        shared.state.store(OPEN, Ordering::Release);
        shared.epoch.fetch_add(1, Ordering::SeqCst);
        if shared.asleep.load(Ordering::SeqCst) > 0 {
            drop(shared.bed.lock().unwrap_or_else(PoisonError::into_inner));
            shared.alarm.notify_all();
        }
        shared.take_part(work);
        shared.state.fetch_and(!OPEN, Ordering::AcqRel);
        for look in 0usize.. {
            if shared.state.load(Ordering::Acquire) == 0 {
                break;
            }
            // A member that lost its core to another process needs ours.
            if look < PATIENCE { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        assert!(!shared.panicked.swap(false, Ordering::Relaxed), "a task of the team panicked");
    }

    /// Calls `work` with every piece of `length` elements of `all` and its number.
    pub fn chunks<T: Send>(&mut self, all: &mut [T], length: usize, work: impl Fn(usize, &mut [T]) + Sync) {
        let (pieces, parts) = (all.len().div_ceil(length), Parts::new(all));
        self.run(pieces, |at| {
            // SAFETY: each number comes once, and pieces do not overlap.
            work(at, unsafe { parts.part(at * length, length) });
        });
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        drop(self.shared.bed.lock().unwrap_or_else(PoisonError::into_inner));
        self.shared.alarm.notify_all();
        for member in self.members.drain(..) {
            // Members catch what panics; there is nothing to be told.
            let _ = member.join();
        }
    }
}

impl Shared {
    /// A member's life.
    fn serve(&self) {
        let mut seen = 0;
        while let Some(epoch) = self.wait(seen) {
            seen = epoch;
            if self.enter() {
                // SAFETY: written before the loop opened, and not changed while somebody is inside.
                let work = unsafe { *self.work.get() };
                // SAFETY: the caller waits for everybody inside before what it borrows goes away.
                if let Some(work) = work.map(|work| unsafe { &*work }) {
                    self.take_part(work);
                }
                self.state.fetch_sub(1, Ordering::Release);
            }
        }
    }

    /// Counts a member in, if the loop is still open.
    fn enter(&self) -> bool {
        let open = |state: usize| (state & OPEN != 0).then_some(state + 1);
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, open).is_ok()
    }

    fn take_part(&self, work: &Work<'_>) {
        let tasks = self.tasks.load(Ordering::Relaxed);
        let taken = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let task = self.next.fetch_add(1, Ordering::Relaxed);
                if task >= tasks {
                    return;
                }
                work(task);
            }
        }));
        if taken.is_err() {
            self.panicked.store(true, Ordering::Relaxed);
        }
    }

    /// Waits for a loop after `seen`; `None` once the team has ended.
    fn wait(&self, seen: usize) -> Option<usize> {
        let started = Instant::now();
        loop {
            for _ in 0..LOOKS {
                let epoch = self.epoch.load(Ordering::SeqCst);
                if epoch != seen {
                    return Some(epoch);
                }
                std::hint::spin_loop();
            }
            if self.ended.load(Ordering::SeqCst) {
                return None;
            }
            if started.elapsed() > LOOK {
                self.sleep(seen);
            }
        }
    }

    fn sleep(&self, seen: usize) {
        let mut bed = self.bed.lock().unwrap_or_else(PoisonError::into_inner);
        self.asleep.fetch_add(1, Ordering::SeqCst);
        // Whoever opens a loop counts it first and looks for sleepers then, so one of the two sees
        // the other.
        while self.epoch.load(Ordering::SeqCst) == seen && !self.ended.load(Ordering::SeqCst) {
            bed = self.alarm.wait(bed).unwrap_or_else(PoisonError::into_inner);
        }
        self.asleep.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A slice whose parts several threads write.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a, T> {
    first: *mut T,
    length: usize,
    _slice: PhantomData<&'a mut [T]>,
}

// SAFETY: it gives out parts of a slice that could be sent as a whole.
unsafe impl<T: Send> Send for Parts<'_, T> {}
// SAFETY: as above; that parts do not overlap is the contract of `part`.
unsafe impl<T: Send> Sync for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    pub fn new(all: &'a mut [T]) -> Self {
        Self { first: all.as_mut_ptr(), length: all.len(), _slice: PhantomData }
    }

    /// `length` elements from `first`, fewer at the end of the slice.
    ///
    /// # Safety
    /// No two parts that are in use at the same time overlap.
    pub unsafe fn part(&self, first: usize, length: usize) -> &'a mut [T] {
        let first = first.min(self.length);
        // SAFETY: inside the slice, which is borrowed for as long as this value's lifetime.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(first), length.min(self.length - first)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_is_done_once_and_before_the_loop_ends() {
        let mut team = Team::new(3).unwrap();
        for tasks in (0..200).chain([10_000]) {
            let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
            team.run(tasks, |task| {
                counts[task].fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{tasks}");
        }
    }

    #[test]
    fn a_team_that_fell_asleep_is_woken() {
        let mut team = Team::new(2).unwrap();
        for _ in 0..20 {
            while team.shared.asleep.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            // Both must take part, or this never ends.
            let barrier = std::sync::Barrier::new(2);
            team.run(2, |_| {
                barrier.wait();
            });
        }
    }

    #[test]
    fn pieces_are_the_slices_own_and_the_last_may_be_short() {
        let (mut team, mut all) = (Team::new(2).unwrap(), vec![0; 1001]);
        team.chunks(&mut all, 10, |at, piece| piece.fill(at));
        assert!(all.iter().enumerate().all(|(at, value)| *value == at / 10));
    }

    #[test]
    fn a_panic_in_a_task_reaches_the_caller_and_the_team_goes_on() {
        let mut team = Team::new(2).unwrap();
        let ran = catch_unwind(AssertUnwindSafe(|| team.run(50, |task| assert_ne!(task, 25, "a task that panics"))));
        assert!(ran.is_err());
        let done = AtomicUsize::new(0);
        team.run(50, |_| {
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.into_inner(), 50);
    }
}
