//! What stands between a model's logits and its text, for every engine alike: choosing tokens
//! ([`Chooser`]: [`Sampler`], [`grammar`], log probabilities), and the text they make
//! ([`AnswerText`]), with stop texts found ([`StopMatcher`]) and no character cut in two
//! ([`Utf8Stream`]). No I/O, no threads, no model.

mod answer;
mod chooser;
mod draw;
mod dry;
pub mod grammar;
mod logprobs;
mod sampler;
mod sampling;
mod stop;
mod utf8;
mod weights;

pub use answer::AnswerText;
pub use chooser::{Chooser, Chosen};
pub use grammar::{Grammar, GrammarError};
pub use logprobs::TokenLogprobs;
pub use sampler::Sampler;
pub use sampling::{Dry, Sampling};
pub use stop::{Matched, StopMatcher};
pub use utf8::Utf8Stream;
