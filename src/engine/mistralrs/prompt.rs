//! From a request's prompt to checked token ids. Pure but for the tokenizer.

use std::sync::Arc;

use super::vocabulary::Vocabulary;
use crate::engine::chat_template::ChatTemplate;
use crate::engine::{Error, Message, Prompt};

/// The tokenizer, as a function: its type belongs to a crate beneath mistral.rs.
pub type Encode = Box<dyn Fn(&str) -> Result<Vec<u32>, String> + Send + Sync>;

/// What turns prompts into tokens for one model.
pub struct Prompts {
    pub encode: Encode,
    pub vocabulary: Arc<Vocabulary>,
    /// The chat template, or why there is none.
    pub chat: Result<ChatTemplate, String>,
    /// The token that stands before every text, where the model wants one. mistral.rs does not add
    /// it.
    pub bos: Option<u32>,
    /// Tokens a sequence may hold.
    pub context: u32,
}

impl Prompts {
    /// The token ids of a prompt, none of them unknown, at least one.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for what cannot be a prompt.
    pub fn tokens(&self, prompt: &Prompt) -> Result<Vec<u32>, Error> {
        let tokens = match prompt {
            Prompt::Chat(messages) => self.opened(self.encode(&self.render(messages)?)?),
            Prompt::Text(text) if text.is_empty() => Vec::new(),
            Prompt::Text(text) => self.opened(self.encode(text)?),
            Prompt::Tokens(tokens) => tokens.clone(),
        };
        if tokens.is_empty() {
            return Err(Error::invalid("the prompt is empty: send at least one token", "prompt"));
        }
        match tokens.iter().find(|token| **token as usize >= self.vocabulary.len()) {
            // mistral.rs would look it up in the embedding and fail the whole step.
            Some(unknown) => Err(self.unknown(*unknown, "prompt")),
            None => Ok(tokens),
        }
    }

    /// How many tokens may be generated behind a prompt of `prompt` tokens.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for none at all, [`Error::ContextLength`] for more than there is
    /// room for.
    pub fn room(&self, prompt: usize, max_tokens: Option<u32>) -> Result<u32, Error> {
        let prompt = prompt as u64;
        let context = u64::from(self.context);
        let wanted = match max_tokens {
            Some(0) => return Err(Error::invalid("max_tokens must be at least 1", "max_tokens")),
            Some(wanted) => u64::from(wanted),
            None => context.saturating_sub(prompt).max(1),
        };
        match u32::try_from(wanted) {
            Ok(room) if prompt + wanted <= context => Ok(room),
            _ => Err(Error::ContextLength { prompt, max_tokens: wanted, context }),
        }
    }

    /// # Errors
    /// [`Error::InvalidRequest`] with the template's own words, or because there is none.
    pub fn render(&self, messages: &[Message]) -> Result<String, Error> {
        match &self.chat {
            Ok(template) => template.render(messages),
            Err(reason) => Err(Error::invalid(reason, "messages")),
        }
    }

    /// # Errors
    /// [`Error::Internal`] if the tokenizer fails.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        (self.encode)(text).map_err(|error| Error::Internal(format!("the tokenizer failed: {error}")))
    }

    /// # Errors
    /// [`Error::InvalidRequest`] for an id outside the vocabulary.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, Error> {
        self.vocabulary.text(tokens).map_err(|unknown| self.unknown(unknown, "tokens"))
    }

    /// Templates often write the opening token themselves; two of them make answers worse.
    fn opened(&self, tokens: Vec<u32>) -> Vec<u32> {
        match self.bos {
            Some(bos) if tokens.first() != Some(&bos) => std::iter::once(bos).chain(tokens).collect(),
            _ => tokens,
        }
    }

    fn unknown(&self, token: u32, param: &'static str) -> Error {
        Error::invalid(format!("token {token} is not in the vocabulary of {} tokens", self.vocabulary.len()), param)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Role;

    fn prompts(bos: Option<u32>) -> Prompts {
        let names = gguf::Array::String((0..8).map(|n| n.to_string()).collect());
        let bytes = gguf::Writer::new().key("tokenizer.ggml.tokens", names).to_bytes();
        let header = gguf::Header::parse(bytes.as_slice(), bytes.len() as u64).unwrap();
        Prompts {
            encode: Box::new(|text| text.chars().map(|c| c.to_digit(10).ok_or_else(|| format!("no {c}"))).collect()),
            vocabulary: Arc::new(Vocabulary::of(&header).unwrap()),
            chat: ChatTemplate::new("1{% for m in messages %}{{ m.content }}{% endfor %}", "", ""),
            bos,
            context: 10,
        }
    }

    #[test]
    fn the_opening_token_is_added_once_and_never_to_tokens() {
        let prompts = prompts(Some(1));
        assert_eq!(prompts.tokens(&Prompt::Text("23".into())), Ok(vec![1, 2, 3]));
        assert_eq!(prompts.tokens(&Prompt::Text("123".into())), Ok(vec![1, 2, 3]));
        let chat = Prompt::Chat(vec![Message { role: Role::User, text: "5".into() }]);
        assert_eq!(prompts.tokens(&chat), Ok(vec![1, 5]));
        assert_eq!(prompts.tokens(&Prompt::Tokens(vec![2])), Ok(vec![2]));
    }

    #[test]
    fn empty_prompts_and_unknown_tokens_are_invalid() {
        let prompts = prompts(Some(1));
        for prompt in [Prompt::Text(String::new()), Prompt::Tokens(vec![]), Prompt::Tokens(vec![1, 8])] {
            let error = prompts.tokens(&prompt).unwrap_err();
            assert!(matches!(error, Error::InvalidRequest { param: Some("prompt"), .. }), "{prompt:?}: {error}");
        }
    }

    #[test]
    fn room_is_what_the_context_leaves() {
        let prompts = prompts(None);
        assert_eq!(prompts.room(4, None), Ok(6));
        assert_eq!(prompts.room(4, Some(6)), Ok(6));
        assert_eq!(prompts.room(4, Some(7)), Err(Error::ContextLength { prompt: 4, max_tokens: 7, context: 10 }));
        assert_eq!(prompts.room(10, None), Err(Error::ContextLength { prompt: 10, max_tokens: 1, context: 10 }));
        assert!(matches!(prompts.room(4, Some(0)), Err(Error::InvalidRequest { param: Some("max_tokens"), .. })));
    }
}
