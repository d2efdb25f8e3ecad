//! What stands between a model's logits and its text, for every engine alike: choosing tokens
//! ([`Sampler`]), finding stop texts ([`StopMatcher`]) and never cutting a character in two
//! ([`Utf8Stream`]). No I/O, no threads, no model.

mod sampler;
mod stop;
mod utf8;

pub use sampler::{Sampler, Sampling};
pub use stop::{Matched, StopMatcher};
pub use utf8::Utf8Stream;
