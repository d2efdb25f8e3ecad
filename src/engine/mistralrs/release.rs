//! Giving a model's memory back, and knowing that it is back.

use std::sync::Weak;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::load::PipelineLock;
use super::pump::Gate;
use crate::engine::Released;

/// How long an engine may take to finish its step and let go.
const DEADLINE: Duration = Duration::from_secs(30);

/// Between two looks at the weights; mistral.rs gives no handle to wait on.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Ends all sequences, drops what `take` gives, and waits until the weights are gone.
pub async fn release<T: Send + 'static>(
    gate: &Gate,
    pipeline: &Weak<PipelineLock>,
    take: impl FnOnce() -> Option<T>,
) -> Released {
    let deadline = Instant::now() + DEADLINE;
    gate.stopping.cancel();
    gate.tasks.close();
    if timeout_at(deadline, gate.tasks.wait()).await.is_err() {
        return Released::No(format!("a sequence did not leave the engine within {DEADLINE:?}: its step hangs"));
    }
    let held = take();
    // Freeing gigabytes takes time, and the last holder may be this one.
    if tokio::task::spawn_blocking(move || drop(held)).await.is_err() {
        return Released::No("dropping the engine panicked".into());
    }
    while pipeline.strong_count() > 0 {
        if Instant::now() >= deadline {
            return Released::No(format!("the engine's thread still held the weights after {DEADLINE:?}"));
        }
        sleep(LOOK_EVERY).await;
    }
    Released::Yes
}
