//! The OpenAI dialect: wire types ([`types`]), their meaning ([`convert`],
//! [`grammar`]), the events of a stream
//! ([`stream`]) and one short handler a route.
//!
//! Shapes follow <https://platform.openai.com/docs/api-reference>. A field with an effect this
//! server lacks is refused by name; one without an effect here is listed in `x-ignored-params`.

pub mod chat;
pub mod completions;
mod convert;
mod grammar;
mod logprobs;
pub mod models;
mod reply;
mod stream;
mod types;
