//! When to come again: Retry-After from what was measured, never a constant where there is a
//! measurement.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Weight of the newest measurement in the running mean.
const NEWEST: f64 = 0.2;
/// Told to clients before anything was measured, and at least.
const LEAST: Duration = Duration::from_secs(1);
/// A longer wait is no answer any more.
const MOST: Duration = Duration::from_secs(600);
/// A load that was never measured: a small model from a cold disk.
const UNMEASURED_LOAD: Duration = Duration::from_secs(5);

/// How often a model gets a sequence done.
#[derive(Debug, Default)]
pub(super) struct ServiceRate {
    /// Mean seconds between two ends while others waited or ran.
    seconds_per_request: Mutex<Option<f64>>,
}

impl ServiceRate {
    /// A request was served in `took` while `beside` ran in all, itself included.
    pub fn served(&self, took: Duration, beside: u32) {
        let seconds = took.as_secs_f64() / f64::from(beside.max(1));
        let mut mean = self.seconds_per_request.lock().unwrap_or_else(PoisonError::into_inner);
        *mean = Some(mean.map_or(seconds, |mean| mean + NEWEST * (seconds - mean)));
    }

    /// How long until `waiting` requests and one more are served.
    pub fn until_free(&self, waiting: usize) -> Duration {
        let mean = *self.seconds_per_request.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = mean.unwrap_or(0.0) * (waiting + 1) as f64;
        Duration::try_from_secs_f64(seconds).unwrap_or(MOST).clamp(LEAST, MOST)
    }
}

/// How long a load takes, by the last one.
pub(super) fn until_loaded(last: Option<Duration>) -> Duration {
    last.unwrap_or(UNMEASURED_LOAD).clamp(LEAST, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_grows_with_the_queue_and_follows_the_measurements() {
        let rate = ServiceRate::default();
        assert_eq!(rate.until_free(100), LEAST, "nothing measured yet");
        rate.served(Duration::from_secs(4), 2);
        assert_eq!(rate.until_free(0), Duration::from_secs(2));
        assert_eq!(rate.until_free(9), Duration::from_secs(20));
        rate.served(Duration::from_secs(12), 1);
        assert_eq!(rate.until_free(0), Duration::from_secs(4));
        assert_eq!(rate.until_free(usize::MAX >> 1), MOST);
    }
}
