//! Where mistral.rs asks us for the next token.
//!
//! Its own sampler ignores `logits_bias` and has no seed, and its min-p works only together with
//! top-p. So it is set to take the largest logit, and this processor, which it calls exactly once
//! for each token, hands it logits of which one is 1 and all others are 0.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mistralrs::{CustomLogitsProcessor, Tensor};

use super::sequence::{Sequence, Step};

/// A sequence that the engine's thread and the pump share.
pub type Shared = Arc<Mutex<Sequence>>;

/// Locks it. A panic elsewhere has left nothing half done that matters more than going on.
pub fn lock(sequence: &Shared) -> MutexGuard<'_, Sequence> {
    sequence.lock().unwrap_or_else(PoisonError::into_inner)
}

pub struct Processor {
    pub sequence: Shared,
    /// A token at which mistral.rs ends a sequence: our way to say that one is over. Closing its
    /// response channel would do too, but a step that fails while the channel is closed panics the
    /// engine.
    pub end_token: u32,
}

impl CustomLogitsProcessor for Processor {
    fn apply(&self, logits: &Tensor, _context: &[u32]) -> mistralrs::Result<Tensor> {
        let mut values = logits.to_vec1::<f32>()?;
        let token = match lock(&self.sequence).step(&mut values) {
            Step::Continue(token) => token,
            Step::End => self.end_token,
        };
        values.fill(0.0);
        if let Some(chosen) = values.get_mut(token as usize) {
            *chosen = 1.0;
        }
        let length = values.len();
        Tensor::from_vec(values, length, logits.device())
    }
}
