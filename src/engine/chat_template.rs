//! Chat messages into the one prompt text that a model was trained on.
//!
//! Templates are Jinja, written for Python's `transformers`; what they may count on is its
//! `apply_chat_template`: blocks trimmed, string methods of Python, `raise_exception`,
//! `strftime_now`, and `tools` and `documents` that are none. Engines share this file.

use minijinja::{Environment, ErrorKind, Value, context};

use super::{Error, Message};

const NAME: &str = "chat";

/// A model's chat template with the tokens that it may write.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    source: String,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    /// The template in a model's header.
    ///
    /// # Errors
    /// Why this model has no chat, as a sentence for the one who asked: there is no template, or it
    /// is no Jinja.
    pub fn of(header: &gguf::Header) -> Result<Self, String> {
        let token = |key: &str| special_token(header, key).unwrap_or_default();
        let source = header.str("tokenizer.chat_template").ok();
        Self::given(source, &token("tokenizer.ggml.bos_token_id"), &token("tokenizer.ggml.eos_token_id"))
    }

    /// The template that an engine found in a model's header, if it found one.
    ///
    /// # Errors
    /// As [`ChatTemplate::of`].
    pub fn given(source: Option<&str>, bos: &str, eos: &str) -> Result<Self, String> {
        let none = "this model has no chat template: send a text prompt instead of messages";
        source.map_or_else(|| Err(none.into()), |source| Self::new(source, bos, eos))
    }

    /// A template from its source.
    ///
    /// # Errors
    /// The template is no Jinja; the message says where.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self, String> {
        let template = Self { source: source.to_owned(), bos: bos.to_owned(), eos: eos.to_owned() };
        template.environment().map_err(|error| format!("this model's chat template cannot be read: {error}"))?;
        Ok(template)
    }

    /// The prompt for `messages`, ending where the assistant is to speak.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] with the template's own words if it refuses the messages.
    pub fn render(&self, messages: &[Message]) -> Result<String, Error> {
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| context! { role => message.role.as_str(), content => message.text.as_str() })
            .collect();
        let context = context! {
            messages,
            add_generation_prompt => true,
            bos_token => self.bos,
            eos_token => self.eos,
            tools => Value::from(()),
            documents => Value::from(()),
        };
        self.environment()
            .and_then(|environment| environment.get_template(NAME)?.render(context))
            .map_err(|error| Error::invalid(format!("the model's chat template says: {}", words(&error)), "messages"))
    }

    /// Parsed anew for each prompt: an environment that owns its source needs minijinja's `loader`,
    /// and parsing takes less time than one token.
    fn environment(&self) -> Result<Environment<'_>, minijinja::Error> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_template(NAME, &self.source)?;
        Ok(environment)
    }
}

/// The text of the token whose id stands at `key`.
fn special_token(header: &gguf::Header, key: &str) -> Option<String> {
    let id = usize::try_from(header.u64(key).ok()?).ok()?;
    let tokens = header.metadata.get("tokenizer.ggml.tokens")?.as_array()?.as_strings()?;
    tokens.get(id).cloned()
}

/// What `raise_exception` was given, or else the engine's description with its line.
fn words(error: &minijinja::Error) -> String {
    match (error.kind(), error.detail()) {
        (ErrorKind::InvalidOperation, Some(detail)) => detail.to_owned(),
        _ => error.to_string(),
    }
}

fn raise_exception(message: String) -> Result<String, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
}

fn strftime_now(format: &str) -> Result<String, minijinja::Error> {
    use std::fmt::Write as _;
    let mut text = String::new();
    // Not `to_string`: chrono's Display fails on a format that it does not know, and that panics.
    write!(text, "{}", chrono::Utc::now().format(format))
        .map_err(|_| minijinja::Error::new(ErrorKind::InvalidOperation, format!("no date format: {format}")))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Role;

    const CHATML: &str = "{%- for message in messages %}\n\
        {{- '<|im_start|>' + message['role'] + '\\n' + message.content | trim + '<|im_end|>\\n' }}\n\
        {%- endfor %}\n\
        {%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n{%- endif %}\n";

    fn say(role: Role, text: &str) -> Message {
        Message { role, text: text.into() }
    }

    fn render(source: &str, messages: &[Message]) -> Result<String, Error> {
        ChatTemplate::new(source, "<s>", "</s>").unwrap().render(messages)
    }

    #[test]
    fn chatml_ends_where_the_assistant_speaks() {
        let prompt = render(CHATML, &[say(Role::System, "Be brief."), say(Role::User, " Hi ")]).unwrap();
        assert_eq!(
            prompt,
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        );
    }

    #[test]
    fn a_template_that_raises_is_an_invalid_request_in_its_own_words() {
        let source =
            "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}";
        let error = render(source, &[say(Role::System, "x")]).unwrap_err();
        assert_eq!(error, Error::invalid("the model's chat template says: System role not supported", "messages"));
    }

    #[test]
    fn a_template_that_is_no_jinja_is_told_with_its_line() {
        let problem = ChatTemplate::new("{% if %}", "", "").unwrap_err();
        assert!(problem.contains("cannot be read") && problem.contains(":1"), "{problem}");
    }

    #[test]
    fn what_templates_in_the_wild_lean_on_works() {
        let user = [say(Role::User, "a"), say(Role::User, "b")];
        for (source, expected) in [
            ("{{ bos_token }}{{ messages[0]['content'].strip().upper() }}{{ eos_token }}", "<s>A</s>"),
            ("{% for m in messages[::-1] %}{{ m.content }}{% endfor %}", "ba"),
            ("{% for i in range(1, -1, -1) %}{{ messages[i].content }}{% endfor %}", "ba"),
            ("{% if tools is not none and tools %}x{% else %}y{% endif %}", "y"),
            (
                "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
                "2",
            ),
            ("{{ messages[0].content.startswith('a') and not 'x' in messages[0].content }}", "True"),
            ("{{ 'é<&' | tojson | length > 0 }}{{ missing is defined }}", "TrueFalse"),
        ] {
            assert_eq!(render(source, &user).as_deref(), Ok(expected), "{source}");
        }
    }

    #[test]
    fn dates_are_formatted_and_bad_formats_are_no_panic() {
        assert_eq!(render("{{ strftime_now('%Y-%m-%d') | length }}", &[]).as_deref(), Ok("10"));
        assert!(render("{{ strftime_now('%!') }}", &[]).is_err());
    }

    #[test]
    fn the_header_gives_the_template_and_its_tokens() {
        let tokens = gguf::Array::String(vec!["<a>".into(), "<b>".into()]);
        let writer = gguf::Writer::new().key("tokenizer.ggml.tokens", tokens).key("tokenizer.ggml.bos_token_id", 1u32);
        let parse = |writer: &gguf::Writer| {
            let bytes = writer.to_bytes();
            gguf::Header::parse(bytes.as_slice(), bytes.len() as u64).unwrap()
        };
        assert!(ChatTemplate::of(&parse(&writer)).unwrap_err().contains("no chat template"));
        let template =
            ChatTemplate::of(&parse(&writer.key("tokenizer.chat_template", "{{ bos_token }}|{{ eos_token }}")))
                .unwrap();
        assert_eq!(template.render(&[]).as_deref(), Ok("<b>|"));
    }
}
