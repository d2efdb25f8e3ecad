//! Sequence slots of one model: as many sequences are dispatched at once as it truly runs.

use std::sync::Arc;

use tokio::sync::watch;

#[derive(Clone, Debug)]
pub(super) struct Slots(Arc<watch::Sender<u32>>);

/// A slot in use; dropping it frees it.
#[derive(Debug)]
pub(super) struct Slot(Slots);

impl Slots {
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    /// Waits for a slot where at most `limit` may be in use. Only one worker may wait here. The
    /// limit may change from load to load.
    pub async fn take(&self, limit: u32) -> Slot {
        // The sender lives in `self`, so the wait cannot fail.
        let _ = self.0.subscribe().wait_for(|in_use| *in_use < limit.max(1)).await;
        self.0.send_modify(|in_use| *in_use += 1);
        Slot(self.clone())
    }

    /// Slots in use at this moment.
    pub fn in_use(&self) -> u32 {
        *self.0.borrow()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.0.send_modify(|in_use| *in_use = in_use.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn no_more_than_the_limit_are_in_use() {
        let slots = Slots::new();
        let first = slots.take(2).await;
        let _second = slots.take(2).await;
        assert!(slots.take(2).now_or_never().is_none());
        drop(first);
        let _third = slots.take(2).await;
        assert_eq!(slots.in_use(), 2);
    }
}
