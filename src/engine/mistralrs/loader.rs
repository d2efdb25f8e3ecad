//! The thread on which models are loaded, one after the other.
//!
//! One at a time, because a load needs memory beside what it keeps, and because the growth of the
//! process is read off meanwhile. Always the same thread, because glibc gives each thread an arena
//! of its own: loads on new threads spread the weights over all arenas, and each arena keeps what
//! its largest model took. And no thread of the runtime, because mistral.rs, when it finds itself
//! inside one, sends a dummy request and blocks on it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::sync::{mpsc, oneshot};

use crate::engine::Error;

/// Loads that may wait in line before callers wait to get in.
const LINE: usize = 64;

type Job = Box<dyn FnOnce() + Send>;

/// The way to the loader's thread, which ends when this is dropped.
pub struct Loader {
    jobs: mpsc::Sender<Job>,
}

impl Loader {
    /// # Errors
    /// The system gives no thread.
    pub fn start() -> std::io::Result<Self> {
        let (jobs, mut line) = mpsc::channel::<Job>(LINE);
        let body = move || {
            while let Some(job) = line.blocking_recv() {
                job();
            }
        };
        std::thread::Builder::new().name("mistralrs-load".into()).spawn(body)?;
        Ok(Self { jobs })
    }

    /// Runs `work` when those before it are done. A panic in it is an error like any other. If nobody
    /// waits any more, it is not begun, or its result is dropped at once.
    ///
    /// # Errors
    /// Those of `work`, and [`Error::Load`] for a panic.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, receiver) = oneshot::channel();
        let job = move || {
            if !sender.is_closed() {
                drop(sender.send(caught(work)));
            }
        };
        let gone = |_| Error::Load("the loader's thread has ended: restart the server".into());
        self.jobs.send(Box::new(job)).await.map_err(|_| gone(()))?;
        receiver.await.map_err(|_| gone(()))?
    }
}

fn caught<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let words =
            panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(Error::Load(format!("mistral.rs panicked: {}", words.unwrap_or("without a message"))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_load_error_with_its_words_and_the_thread_goes_on() {
        let loader = Loader::start().unwrap();
        let panicked = loader.run::<()>(|| panic!("no such {}", "key")).await;
        assert_eq!(panicked, Err(Error::Load("mistral.rs panicked: no such key".into())));
        assert_eq!(loader.run(|| Ok(7)).await, Ok(7));
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_not_begun() {
        let loader = Loader::start().unwrap();
        let (go, blocked) = std::sync::mpsc::channel::<()>();
        let mut first = Box::pin(loader.run(move || blocked.recv().map_err(|_| Error::Stopped)));
        let (began, begun) = oneshot::channel::<()>();
        let mut second = Box::pin(loader.run(move || began.send(()).map_err(|()| Error::Stopped)));
        assert!(futures::poll!(&mut first).is_pending());
        assert!(futures::poll!(&mut second).is_pending());
        drop(second);
        go.send(()).unwrap();
        assert_eq!(first.await, Ok(()));
        assert_eq!(loader.run(|| Ok(1)).await, Ok(1));
        assert!(begun.await.is_err(), "the second was begun");
    }
}
