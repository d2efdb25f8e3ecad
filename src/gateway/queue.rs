//! The bounded queue of one model. First come, first served; who leaves is out at once, so a full
//! queue is full of people who still wait.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::IntGauge;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::{Error, Running};
use crate::engine::GenerateRequest;
use crate::telemetry::metrics::Gauged;

/// A request on its way to a model.
pub(super) struct Job {
    pub request: GenerateRequest,
    pub arrived: Instant,
    pub reply: oneshot::Sender<Result<Running, Error>>,
}

#[derive(Clone)]
pub(super) struct Queue {
    waiting: Arc<Mutex<Waiting>>,
    filled: Arc<Notify>,
    depth: usize,
    gauge: IntGauge,
}

#[derive(Default)]
struct Waiting {
    next_ticket: u64,
    jobs: VecDeque<(u64, Job)>,
}

/// The queue holds as many as it may.
#[derive(Debug)]
pub(super) struct Full;

/// A place in the queue; dropping it gives the place up, if the job was not taken yet. It counts
/// as waiting until then, also while its model loads.
#[derive(Debug)]
pub(super) struct Place {
    queue: Queue,
    ticket: u64,
    _waiting: Gauged,
}

impl Queue {
    pub fn new(depth: usize, gauge: IntGauge) -> Self {
        Self { waiting: Arc::default(), filled: Arc::default(), depth, gauge }
    }

    pub fn push(&self, job: Job) -> Result<Place, Full> {
        let mut waiting = self.lock();
        if waiting.jobs.len() >= self.depth {
            return Err(Full);
        }
        let ticket = waiting.next_ticket;
        waiting.next_ticket += 1;
        waiting.jobs.push_back((ticket, job));
        drop(waiting);
        self.filled.notify_one();
        Ok(Place { queue: self.clone(), ticket, _waiting: Gauged::new(self.gauge.clone()) })
    }

    /// The next job, once there is one. Only one worker may wait here.
    pub async fn pop(&self) -> Job {
        loop {
            if let Some((_, job)) = self.lock().jobs.pop_front() {
                return job;
            }
            self.filled.notified().await;
        }
    }

    pub fn len(&self) -> usize {
        self.lock().jobs.len()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing can panic while the lock is held; a poisoned one would still be whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.queue.lock();
        if let Some(index) = waiting.jobs.iter().position(|(ticket, _)| *ticket == self.ticket) {
            waiting.jobs.remove(index);
        }
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("depth", &self.depth).field("len", &self.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Prompt;

    fn job(text: &str) -> (Job, oneshot::Receiver<Result<Running, Error>>) {
        let request = GenerateRequest::new(Prompt::Text(text.into()));
        let (reply, answer) = oneshot::channel();
        (Job { request, arrived: Instant::now(), reply }, answer)
    }

    fn queue(depth: usize) -> Queue {
        Queue::new(depth, IntGauge::new("waiting", "waiting").unwrap())
    }

    #[tokio::test]
    async fn jobs_come_out_in_the_order_they_went_in() {
        let queue = queue(2);
        let _places = ["first", "second"].map(|text| queue.push(job(text).0).unwrap());
        assert_eq!(queue.pop().await.request.prompt, Prompt::Text("first".into()));
        assert_eq!(queue.pop().await.request.prompt, Prompt::Text("second".into()));
    }

    #[tokio::test]
    async fn a_place_given_up_is_free_for_the_next() {
        let queue = queue(1);
        let place = queue.push(job("first").0).unwrap();
        assert!(queue.push(job("too many").0).is_err());
        drop(place);
        assert_eq!((queue.len(), queue.gauge.get()), (0, 0));
        let _place = queue.push(job("second").0).unwrap();
        assert_eq!(queue.pop().await.request.prompt, Prompt::Text("second".into()));
    }

    #[tokio::test]
    async fn a_taken_job_still_counts_as_waiting_until_it_is_answered() {
        let queue = queue(1);
        let place = queue.push(job("first").0).unwrap();
        let _job = queue.pop().await;
        assert_eq!((queue.len(), queue.gauge.get()), (0, 1));
        drop(place);
        assert_eq!(queue.gauge.get(), 0);
    }
}
