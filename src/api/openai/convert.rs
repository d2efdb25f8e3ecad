//! From wire types to the seam's request. Pure; every refusal names its field.

use std::collections::BTreeMap;

use serde_json::Value;

use super::grammar;
use super::types::{ChatMessage, ChatRequest, ChatRole, CompletionRequest, Content, Options, PromptInput};
use crate::api::ApiError;
use crate::config::registry_file::Sampling as Defaults;
use crate::engine::{Dry, GenerateRequest, Message, Prompt, Role, Sampling};

const MOST_STOPS: usize = 16;
const MOST_STOP_TOKENS: usize = 64;
const MOST_ANSWERS: u32 = 8;
const MOST_LOGPROBS: [u32; 2] = [20, 5];

/// A request understood, and how its answer is wanted.
#[derive(Debug)]
pub struct Understood {
    pub request: GenerateRequest,
    /// How many answers are wanted.
    pub answers: u32,
    /// The field that holds the prompt.
    pub prompt_field: &'static str,
    /// The field that says what the answer must look like.
    pub grammar_field: &'static str,
    pub stream: bool,
    pub include_usage: bool,
    /// Fields that were accepted and change nothing.
    pub ignored: Vec<String>,
}

pub fn chat(mut wire: ChatRequest, defaults: &Defaults) -> Result<Understood, ApiError> {
    if wire.messages.is_empty() {
        return Err(ApiError::invalid("messages", "`messages` is empty: say something"));
    }
    let messages = (0..).zip(&wire.messages).map(|(index, message)| text_message(index, message));
    let prompt = Prompt::Chat(messages.collect::<Result<_, _>>()?);
    let mut options = wire.options();
    let name = if wire.max_completion_tokens.is_some() { "max_completion_tokens" } else { "max_tokens" };
    options.max_tokens = wire.max_completion_tokens.or(options.max_tokens);
    options.logprobs = chat_logprobs(wire.logprobs, wire.top_logprobs)?;
    options.response_format = wire.response_format;
    understand(prompt, options, ["messages", name], defaults)
}

pub fn completion(mut wire: CompletionRequest, defaults: &Defaults) -> Result<Understood, ApiError> {
    let mut options = wire.options();
    options.logprobs = at_most("logprobs", MOST_LOGPROBS[1], wire.logprobs)?;
    let one = || ApiError::unsupported("prompt", "send one prompt a request");
    let prompt = match wire.prompt {
        PromptInput::Text(text) => Prompt::Text(text),
        PromptInput::Tokens(tokens) => Prompt::Tokens(tokens),
        PromptInput::Texts(mut texts) if texts.len() == 1 => Prompt::Text(texts.pop().unwrap_or_default()),
        PromptInput::TokenLists(mut lists) if lists.len() == 1 => Prompt::Tokens(lists.pop().unwrap_or_default()),
        PromptInput::Texts(_) | PromptInput::TokenLists(_) => return Err(one()),
    };
    understand(prompt, options, ["prompt", "max_tokens"], defaults)
}

/// `names` are those of the fields for the prompt and for the limit.
fn understand(
    prompt: Prompt,
    options: Options,
    names: [&'static str; 2],
    defaults: &Defaults,
) -> Result<Understood, ApiError> {
    let [prompt_field, max_name] = names;
    refuse_unsupported(&options)?;
    if options.max_tokens == Some(0) {
        return Err(ApiError::invalid(max_name, format!("`{max_name}` must be at least 1")));
    }
    few("stop", options.stop.len(), MOST_STOPS)?;
    few("stop_token_ids", options.stop_token_ids.len(), MOST_STOP_TOKENS)?;
    let answers = answers(options.n)?;
    let named = options.rest.iter().filter(|(_, value)| !value.is_null());
    let mut ignored: Vec<String> = named.map(|(name, _)| name.clone()).collect();
    // The map keeps the client's order or not, as some other crate of the build decides.
    ignored.sort();
    let sampling = sampling(&options, defaults)?;
    let (grammar_field, grammar) = grammar::wanted(options.response_format, options.guided)?.unzip();
    Ok(Understood {
        request: GenerateRequest {
            prompt,
            max_tokens: options.max_tokens,
            sampling,
            stop: options.stop,
            stop_tokens: options.stop_token_ids,
            logprobs: options.logprobs,
            grammar,
        },
        answers,
        prompt_field,
        grammar_field: grammar_field.unwrap_or(grammar::FORMAT),
        stream: options.stream,
        include_usage: options.include_usage,
        ignored,
    })
}

fn answers(n: Option<u32>) -> Result<u32, ApiError> {
    match n.unwrap_or(1) {
        n @ 1..=MOST_ANSWERS => Ok(n),
        _ => Err(ApiError::invalid("n", format!("`n` must be from 1 to {MOST_ANSWERS}"))),
    }
}

fn few(name: &str, count: usize, most: usize) -> Result<(), ApiError> {
    match count <= most {
        true => Ok(()),
        false => Err(ApiError::invalid(name, format!("`{name}` has more than {most} entries"))),
    }
}

fn at_most(name: &str, most: u32, asked: Option<u32>) -> Result<Option<u32>, ApiError> {
    match asked.is_none_or(|asked| asked <= most) {
        true => Ok(asked),
        false => Err(ApiError::invalid(name, format!("`{name}` must be from 0 to {most}"))),
    }
}

fn chat_logprobs(asked: Option<bool>, top: Option<u32>) -> Result<Option<u32>, ApiError> {
    let top = at_most("top_logprobs", MOST_LOGPROBS[0], top)?;
    match (asked == Some(true), top.unwrap_or(0)) {
        (true, top) => Ok(Some(top)),
        (false, 0) => Ok(None),
        (false, _) => Err(ApiError::invalid("top_logprobs", "`top_logprobs` needs `logprobs` to be true")),
    }
}

fn dry(options: &Options) -> Result<Dry, ApiError> {
    let house = Dry::default();
    let breakers = options.dry_sequence_breakers.clone().unwrap_or(house.breakers);
    few("dry_sequence_breakers", breakers.len(), MOST_STOPS)?;
    Ok(Dry {
        multiplier: within("dry_multiplier", 0.0, 100.0, options.dry_multiplier.unwrap_or(house.multiplier))?,
        base: within("dry_base", 1.0, 10.0, options.dry_base.unwrap_or(house.base))?,
        allowed_length: options.dry_allowed_length.unwrap_or(house.allowed_length),
        last_n: match options.dry_penalty_last_n.unwrap_or(-1) {
            -1 => None,
            last => Some(
                u32::try_from(last)
                    .map_err(|_| ApiError::invalid("dry_penalty_last_n", "`dry_penalty_last_n` must be -1 or more"))?,
            ),
        },
        breakers,
        ..Dry::default()
    })
}

fn sampling(options: &Options, defaults: &Defaults) -> Result<Sampling, ApiError> {
    let house = Sampling::default();
    let pick = |asked: Option<f32>, default: Option<f32>, house: f32| asked.or(default).unwrap_or(house);
    Ok(Sampling {
        temperature: within(
            "temperature",
            0.0,
            2.0,
            pick(options.temperature, defaults.temperature, house.temperature),
        )?,
        top_p: within("top_p", 0.0, 1.0, pick(options.top_p, defaults.top_p, house.top_p))?,
        top_k: options.top_k.or(defaults.top_k).unwrap_or(house.top_k),
        min_p: within("min_p", 0.0, 1.0, pick(options.min_p, defaults.min_p, house.min_p))?,
        typical_p: within("typical_p", 0.0, 1.0, options.typical_p.unwrap_or(house.typical_p))?,
        dry: dry(options)?,
        frequency_penalty: within("frequency_penalty", -2.0, 2.0, options.frequency_penalty.unwrap_or(0.0))?,
        presence_penalty: within("presence_penalty", -2.0, 2.0, options.presence_penalty.unwrap_or(0.0))?,
        repetition_penalty: within(
            "repetition_penalty",
            0.01,
            10.0,
            pick(options.repetition_penalty, defaults.repetition_penalty, house.repetition_penalty),
        )?,
        logit_bias: logit_bias(&options.logit_bias)?,
        // The bits are kept: a seed is a name, not a number.
        seed: options.seed.map(i64::cast_unsigned),
    })
}

fn within(name: &str, low: f32, high: f32, value: f32) -> Result<f32, ApiError> {
    match (low..=high).contains(&value) {
        true => Ok(value),
        false => Err(ApiError::invalid(name, format!("`{name}` must be from {low} to {high}"))),
    }
}

fn logit_bias(wire: &BTreeMap<String, f32>) -> Result<BTreeMap<u32, f32>, ApiError> {
    let one = |(token, bias): (&String, &f32)| {
        let id = token.parse().map_err(|_| ApiError::invalid("logit_bias", format!("`{token}` is no token id")))?;
        Ok((id, within("logit_bias", -100.0, 100.0, *bias)?))
    };
    wire.iter().map(one).collect()
}

/// Fields whose effect would be missing from the answer without anyone noticing.
fn refuse_unsupported(options: &Options) -> Result<(), ApiError> {
    /// A field, when it asks for something, and what to do instead.
    type Row = (&'static str, fn(&Value) -> bool, &'static str);
    let table: [Row; 8] = [
        ("best_of", |v| v.as_u64() != Some(1), "leave it out"),
        ("echo", is_on, "the prompt is yours already"),
        ("suffix", |v| v.as_str() != Some(""), "leave it out"),
        ("top_logprobs", is_on, "`logprobs` says how many"),
        ("tools", is_on, "leave it out"),
        ("functions", is_on, "leave it out"),
        ("response_format", |v| v.get("type").and_then(Value::as_str) != Some("text"), "the chat endpoint has it"),
        ("modalities", |v| v != &serde_json::json!(["text"]), "only text is"),
    ];
    for (name, asks, instead) in table {
        if options.rest.get(name).is_some_and(|value| !value.is_null() && asks(value)) {
            return Err(ApiError::unsupported(name, instead));
        }
    }
    Ok(())
}

/// Whether a field asks for something: true, a positive number, a list with something in it.
fn is_on(value: &Value) -> bool {
    match value {
        Value::Bool(on) => *on,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    }
}

fn text_message(index: usize, message: &ChatMessage) -> Result<Message, ApiError> {
    let role = match message.role {
        ChatRole::System | ChatRole::Developer => Role::System,
        ChatRole::User => Role::User,
        ChatRole::Assistant => Role::Assistant,
        ChatRole::Tool => Role::Tool,
    };
    let text = match &message.content {
        Some(Content::Text(text)) => text.clone(),
        Some(Content::Parts(parts)) => {
            let mut all = String::new();
            for (at, part) in parts.iter().enumerate() {
                match (part.r#type.as_str(), &part.text) {
                    ("text", Some(text)) => all.push_str(text),
                    (other, _) => {
                        let param = format!("messages[{index}].content[{at}]");
                        let message = format!("a part of type `{other}` is not supported: this model reads text only");
                        return Err(ApiError::invalid(param, message));
                    }
                }
            }
            all
        }
        None if matches!(role, Role::Assistant) => String::new(),
        None => {
            let param = format!("messages[{index}].content");
            return Err(ApiError::invalid(&param, format!("`{param}` is missing")));
        }
    };
    Ok(Message { role, text })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::engine::Grammar;

    fn understood(body: Value) -> Result<Understood, ApiError> {
        chat(serde_json::from_value(body).unwrap(), &Defaults { temperature: Some(0.0), ..Defaults::default() })
    }

    fn refused(extra: Value) -> String {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        serde_json::to_value(understood(body).unwrap_err().body()).unwrap()["error"]["param"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    #[test]
    fn what_the_request_says_wins_over_the_models_defaults() {
        let base = json!({"model": "m", "messages": [{"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]});
        let plain = understood(base.clone()).unwrap();
        assert_eq!(plain.request.sampling, Sampling { temperature: 0.0, ..Sampling::default() });
        assert_eq!(plain.request.prompt, Prompt::Chat(vec![Message { role: Role::System, text: "ab".into() }]));
        let mut asked = base;
        asked["temperature"] = json!(0.7);
        asked["max_tokens"] = json!(5);
        asked["max_completion_tokens"] = json!(6);
        asked["logit_bias"] = json!({"7": -100});
        asked["seed"] = json!(-1);
        asked["stop"] = json!("x");
        let asked = understood(asked).unwrap().request;
        assert_eq!((asked.sampling.temperature, asked.max_tokens), (0.7, Some(6)));
        assert_eq!((asked.sampling.logit_bias[&7], asked.sampling.seed), (-100.0, Some(u64::MAX)));
        assert_eq!(asked.stop, ["x"]);
    }

    #[test]
    fn fields_without_effect_are_listed_and_nulls_are_not() {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}], "user": "me", "store": null,
            "logprobs": false, "tools": [], "response_format": {"type": "text"}});
        assert_eq!(understood(body).unwrap().ignored, ["tools", "user"]);
    }

    #[test]
    fn fields_whose_effect_is_missing_are_refused_by_name() {
        for (extra, param) in [
            (json!({"n": 9}), "n"),
            (json!({"n": 0}), "n"),
            (json!({"logprobs": true, "top_logprobs": 21}), "top_logprobs"),
            (json!({"top_logprobs": 1}), "top_logprobs"),
            (json!({"typical_p": 1.1}), "typical_p"),
            (json!({"dry_multiplier": -1}), "dry_multiplier"),
            (json!({"dry_base": 0.5}), "dry_base"),
            (json!({"dry_penalty_last_n": -2}), "dry_penalty_last_n"),
            (json!({"dry_sequence_breakers": vec!["x"; 17]}), "dry_sequence_breakers"),
            (json!({"stop_token_ids": vec![1; 65]}), "stop_token_ids"),
            (json!({"tools": [{}]}), "tools"),
            (json!({"temperature": 3}), "temperature"),
            (json!({"top_p": -0.1}), "top_p"),
            (json!({"max_tokens": 0}), "max_tokens"),
            (json!({"max_completion_tokens": 0}), "max_completion_tokens"),
            (json!({"logit_bias": {"x": 1}}), "logit_bias"),
            (json!({"messages": []}), "messages"),
            (json!({"messages": [{"role": "user"}]}), "messages[0].content"),
            (json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}), "messages[0].content[0]"),
        ] {
            assert_eq!(refused(extra), param);
        }
    }

    #[test]
    fn what_goes_beyond_the_text_reaches_the_request() {
        let asked = |more: Value| {
            let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            understood(body).unwrap()
        };
        let schema = json!({"type": "integer"});
        let format = |format: Value| asked(json!({"response_format": format})).request.grammar;
        assert_eq!(format(json!({"type": "json_object"})), Some(Grammar::Json));
        let strict = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": true}});
        assert_eq!(format(strict), Some(Grammar::JsonSchema(schema)));
        assert_eq!(format(json!({"type": "text"})), None);
        assert_eq!(asked(json!({"logprobs": true})).request.logprobs, Some(0));
        assert_eq!(asked(json!({"logprobs": true, "top_logprobs": 20})).request.logprobs, Some(20));
        assert_eq!(asked(json!({"logprobs": false, "top_logprobs": 0})).request.logprobs, None);
        assert_eq!(asked(json!({"stop_token_ids": [3, 4], "n": 8})).request.stop_tokens, [3, 4]);
        let dry = asked(json!({"dry_multiplier": 0.8, "dry_penalty_last_n": 64, "dry_sequence_breakers": ["."]}));
        let breakers = vec![".".to_owned()];
        assert_eq!(dry.request.sampling.dry, Dry { multiplier: 0.8, last_n: Some(64), breakers, ..Dry::default() });
    }

    #[test]
    fn a_completion_takes_one_prompt_in_any_form() {
        let prompt = |prompt: Value| {
            let wire = serde_json::from_value(json!({"model": "m", "prompt": prompt})).unwrap();
            completion(wire, &Defaults::default()).map(|understood| understood.request.prompt)
        };
        assert_eq!(prompt(json!("a")), Ok(Prompt::Text("a".into())));
        assert_eq!(prompt(json!(["a"])), Ok(Prompt::Text("a".into())));
        assert_eq!(prompt(json!([1, 2])), Ok(Prompt::Tokens(vec![1, 2])));
        assert_eq!(prompt(json!([[1, 2]])), Ok(Prompt::Tokens(vec![1, 2])));
        assert!(prompt(json!(["a", "b"])).is_err());
    }
}
