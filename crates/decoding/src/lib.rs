//! What stands between a model's logits and its text, for every engine alike: choosing tokens
//! ([`Sampler`]), and the text they make ([`AnswerText`]), with stop texts found ([`StopMatcher`]) and
//! no character cut in two ([`Utf8Stream`]). No I/O, no threads, no model.

mod answer;
mod sampler;
mod stop;
mod utf8;

pub use answer::AnswerText;
pub use sampler::{Sampler, Sampling};
pub use stop::{Matched, StopMatcher};
pub use utf8::Utf8Stream;
