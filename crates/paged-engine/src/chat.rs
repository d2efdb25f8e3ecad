//! What a chat template needs of a model's file. Rendering it is the caller's affair.

use gguf::{Header, Value};

use crate::tokenizer::Tokenizer;

/// The template of a model and the tokens that it may write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chat {
    /// `tokenizer.chat_template`, in Jinja.
    pub template: Option<String>,
    /// The names of the tokens that begin and end a text; empty where the file names none.
    pub start: String,
    pub end: String,
}

impl Chat {
    pub fn of(header: &Header, tokenizer: &Tokenizer) -> Self {
        let name = |key: &str| {
            let id = header.u64(key).ok().and_then(|id| u32::try_from(id).ok());
            id.and_then(|id| tokenizer.name(id)).unwrap_or_default().to_owned()
        };
        Self {
            template: header.metadata.get("tokenizer.chat_template").and_then(Value::as_str).map(str::to_owned),
            start: name("tokenizer.ggml.bos_token_id"),
            end: name("tokenizer.ggml.eos_token_id"),
        }
    }

    /// Bytes of memory held.
    pub fn bytes_held(&self) -> u64 {
        let template = self.template.as_ref().map_or(0, String::capacity);
        (template + self.start.capacity() + self.end.capacity()) as u64
    }
}
