//! What comes in: the requests, and what shapes their answers.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{ChatMessage, PromptInput};

/// Adds the fields that every generating request shares, so that they are written once and
/// mistakes in them still name their field (serde's `flatten` would lose it).
macro_rules! generating_request {
    ($(#[$meta:meta])* pub struct $name:ident { $($own:tt)* }) => {
        #[derive(Debug, Deserialize, ToSchema)]
        $(#[$meta])*
        pub struct $name {
            $($own)*
            /// Send the answer as it is made, as server-sent events that end with `[DONE]`.
            #[serde(default)]
            pub stream: Option<bool>,
            pub stream_options: Option<StreamOptions>,
            /// Tokens to generate at most; as many as the context has room for, if left out.
            #[schema(minimum = 1)]
            pub max_tokens: Option<u32>,
            /// 0 takes the likeliest token always. The model's registry entry has the default.
            #[schema(minimum = 0, maximum = 2)]
            pub temperature: Option<f32>,
            /// Sample from the smallest set of tokens with this probability together.
            #[schema(minimum = 0, maximum = 1)]
            pub top_p: Option<f32>,
            /// Sample from this many of the likeliest tokens; 0 from all.
            pub top_k: Option<u32>,
            /// Sample from tokens at least this likely in proportion to the likeliest.
            #[schema(minimum = 0, maximum = 1)]
            pub min_p: Option<f32>,
            /// Sample from the tokens whose surprise is nearest to the expected one, with this
            /// probability together; 1 is off.
            #[schema(minimum = 0, maximum = 1)]
            pub typical_p: Option<f32>,
            #[schema(minimum = -2, maximum = 2)]
            pub frequency_penalty: Option<f32>,
            #[schema(minimum = -2, maximum = 2)]
            pub presence_penalty: Option<f32>,
            /// Divides the logits of tokens seen in prompt or answer; 1 is off.
            #[schema(minimum = 0.01, maximum = 10)]
            pub repetition_penalty: Option<f32>,
            /// DRY: taken off the logit of a token that would repeat a passage of
            /// `dry_allowed_length` tokens, times `dry_base` for each token more; 0 is off.
            #[schema(minimum = 0, maximum = 100)]
            pub dry_multiplier: Option<f32>,
            /// 1.75, if left out.
            #[schema(minimum = 1, maximum = 10)]
            pub dry_base: Option<f32>,
            /// 2, if left out.
            pub dry_allowed_length: Option<u32>,
            /// How many of the last tokens are looked at; -1 for all, as if left out.
            #[schema(minimum = -1)]
            pub dry_penalty_last_n: Option<i32>,
            /// No passage reaches over a token with one of these texts in it; at most 16. Line feed,
            /// colon, quotation mark and asterisk, if left out.
            pub dry_sequence_breakers: Option<Vec<String>>,
            /// Token id to a bias from -100 to 100, added to its logit.
            pub logit_bias: Option<BTreeMap<String, f32>>,
            /// The same seed and request give the same answer.
            pub seed: Option<i64>,
            /// Texts that end the answer and are not part of it; at most 16.
            pub stop: Option<OneOrMany>,
            /// Tokens that end the answer and are not part of it, beside the model's own; at most 64.
            pub stop_token_ids: Option<Vec<u32>>,
            /// How many answers; with a `seed`, the next ones have the next seeds.
            #[schema(minimum = 1, maximum = 8)]
            pub n: Option<u32>,
            /// The answer is JSON that this JSON Schema accepts: the schema, or its text. Of this,
            /// `guided_regex`, `guided_grammar` and `response_format` one at most.
            #[schema(value_type = Option<Object>)]
            pub guided_json: Option<Value>,
            /// The whole answer matches this expression.
            #[schema(max_length = 65_536)]
            pub guided_regex: Option<String>,
            /// The answer follows this grammar, in llguidance's variant of Lark.
            #[schema(max_length = 65_536)]
            pub guided_grammar: Option<String>,
            /// Everything else; see `x-ignored-params`.
            #[serde(flatten)]
            #[schema(ignore)]
            pub rest: Map<String, Value>,
        }

        impl $name {
            /// The shared fields.
            pub fn options(&mut self) -> Options {
                Options {
                    stream: self.stream.unwrap_or(false),
                    include_usage: self.stream_options.as_ref().is_some_and(|options| options.include_usage),
                    max_tokens: self.max_tokens,
                    temperature: self.temperature,
                    top_p: self.top_p,
                    top_k: self.top_k,
                    min_p: self.min_p,
                    typical_p: self.typical_p,
                    frequency_penalty: self.frequency_penalty,
                    presence_penalty: self.presence_penalty,
                    repetition_penalty: self.repetition_penalty,
                    dry_multiplier: self.dry_multiplier,
                    dry_base: self.dry_base,
                    dry_allowed_length: self.dry_allowed_length,
                    dry_penalty_last_n: self.dry_penalty_last_n,
                    dry_sequence_breakers: self.dry_sequence_breakers.take(),
                    logit_bias: self.logit_bias.take().unwrap_or_default(),
                    seed: self.seed,
                    stop: self.stop.take().map(OneOrMany::into_vec).unwrap_or_default(),
                    stop_token_ids: self.stop_token_ids.take().unwrap_or_default(),
                    n: self.n,
                    guided: Guided {
                        json: self.guided_json.take(),
                        regex: self.guided_regex.take(),
                        lark: self.guided_grammar.take(),
                    },
                    rest: std::mem::take(&mut self.rest),
                    // What only one of the endpoints has, it adds.
                    logprobs: None,
                    response_format: None,
                }
            }
        }
    };
}

generating_request! {
    /// A conversation to continue.
    // Keys in the order of the alphabet: serde_json sorts them or not, as the build's crates decide.
    #[schema(example = json!({"messages": [{"content": "stone", "role": "user"}], "model": "reverse"}))]
    pub struct ChatRequest {
        /// Id or alias of a model.
        pub model: String,
        /// The conversation so far.
        #[schema(min_items = 1)]
        pub messages: Vec<ChatMessage>,
        /// The newer name of `max_tokens`; it wins if both are there.
        #[schema(minimum = 1)]
        pub max_completion_tokens: Option<u32>,
        /// Tell the log probability of each token.
        pub logprobs: Option<bool>,
        /// How many of the likeliest tokens are told at each place; needs `logprobs`.
        #[schema(minimum = 0, maximum = 20)]
        pub top_logprobs: Option<u32>,
        /// What the answer must look like; a text, if left out.
        pub response_format: Option<ResponseFormat>,
    }
}

generating_request! {
    /// A text to continue.
    #[schema(example = json!({"max_tokens": 8, "model": "reverse", "prompt": "Once upon"}))]
    pub struct CompletionRequest {
        /// Id or alias of a model.
        pub model: String,
        pub prompt: PromptInput,
        /// Tell the log probability of each token, and of so many of the likeliest ones at each place.
        #[schema(minimum = 0, maximum = 5)]
        pub logprobs: Option<u32>,
    }
}

/// The shared fields of a generating request.
#[derive(Debug, Default)]
pub struct Options {
    pub stream: bool,
    pub include_usage: bool,
    pub max_tokens: Option<u32>,
    pub temperature: Option<f32>,
    pub top_p: Option<f32>,
    pub top_k: Option<u32>,
    pub min_p: Option<f32>,
    pub typical_p: Option<f32>,
    pub frequency_penalty: Option<f32>,
    pub presence_penalty: Option<f32>,
    pub repetition_penalty: Option<f32>,
    pub dry_multiplier: Option<f32>,
    pub dry_base: Option<f32>,
    pub dry_allowed_length: Option<u32>,
    pub dry_penalty_last_n: Option<i32>,
    pub dry_sequence_breakers: Option<Vec<String>>,
    pub logit_bias: BTreeMap<String, f32>,
    pub seed: Option<i64>,
    pub stop: Vec<String>,
    pub stop_token_ids: Vec<u32>,
    pub n: Option<u32>,
    pub guided: Guided,
    /// How many of the likeliest tokens are told beside the chosen one.
    pub logprobs: Option<u32>,
    pub response_format: Option<ResponseFormat>,
    pub rest: Map<String, Value>,
}

/// What an answer must look like, in vLLM's fields.
#[derive(Debug, Default)]
pub struct Guided {
    pub json: Option<Value>,
    pub regex: Option<String>,
    pub lark: Option<String>,
}

/// What an answer must look like.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ResponseFormat {
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON that a schema accepts.
    JsonSchema {
        json_schema: SchemaFormat,
    },
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct SchemaFormat {
    /// For the client's own use.
    #[expect(dead_code, reason = "it is part of the form")]
    pub name: Option<String>,
    /// A JSON Schema; without it any JSON object will do.
    #[schema(value_type = Option<Object>)]
    pub schema: Option<Value>,
    /// The schema is always kept to.
    #[expect(dead_code, reason = "it is part of the form")]
    pub strict: Option<bool>,
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct StreamOptions {
    /// Send the token counts in a last chunk without choices.
    #[serde(default)]
    pub include_usage: bool,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}
