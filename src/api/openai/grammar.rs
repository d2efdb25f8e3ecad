//! What an answer must look like: OpenAI's one field for it and vLLM's three.

use serde_json::Value;

use super::types::{Guided, ResponseFormat, SchemaFormat};
use crate::api::ApiError;
use crate::engine::Grammar;

/// The field that OpenAI has for it.
pub const FORMAT: &str = "response_format";
/// Bytes; a grammar is compiled before its request is queued, so it must not be any size.
const LONGEST: usize = 64 << 10;

/// The grammar, and the field it came from. One field at most may ask for one.
pub fn wanted(format: Option<ResponseFormat>, guided: Guided) -> Result<Option<(&'static str, Grammar)>, ApiError> {
    let asked = [
        format.and_then(by_format).map(|grammar| (FORMAT, grammar)),
        guided.json.map(schema).transpose()?.map(|schema| ("guided_json", Grammar::JsonSchema(schema))),
        guided.regex.map(|expression| ("guided_regex", Grammar::Regex(expression))),
        guided.lark.map(|grammar| ("guided_grammar", Grammar::Lark(grammar))),
    ];
    let mut asked = asked.into_iter().flatten();
    let Some((field, grammar)) = asked.next() else { return Ok(None) };
    if let Some((other, _)) = asked.next() {
        let message = format!("`{field}` and `{other}` both say what the answer must look like: send one of them");
        return Err(ApiError::invalid(other, message));
    }
    match length(&grammar) <= LONGEST {
        true => Ok(Some((field, grammar))),
        false => Err(ApiError::invalid(field, format!("`{field}` is longer than {LONGEST} bytes"))),
    }
}

fn by_format(format: ResponseFormat) -> Option<Grammar> {
    match format {
        ResponseFormat::Text => None,
        ResponseFormat::JsonObject => Some(Grammar::Json),
        ResponseFormat::JsonSchema { json_schema: SchemaFormat { schema, .. } } => {
            Some(schema.map_or(Grammar::Json, Grammar::JsonSchema))
        }
    }
}

/// A schema, which may come as its text.
fn schema(wire: Value) -> Result<Value, ApiError> {
    match wire {
        Value::String(text) => serde_json::from_str(&text).map_err(|error| {
            ApiError::invalid("guided_json", format!("`guided_json` is a text that is no JSON: {error}"))
        }),
        schema => Ok(schema),
    }
}

fn length(grammar: &Grammar) -> usize {
    match grammar {
        Grammar::Json => 0,
        Grammar::JsonSchema(schema) => schema.to_string().len(),
        Grammar::Regex(text) | Grammar::Lark(text) => text.len(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn regex(expression: &str) -> Guided {
        Guided { regex: Some(expression.into()), ..Guided::default() }
    }

    fn refused(result: Result<Option<(&'static str, Grammar)>, ApiError>) -> Value {
        serde_json::to_value(result.unwrap_err().body()).unwrap()["error"]["param"].take()
    }

    #[test]
    fn each_field_is_a_grammar_of_its_kind() {
        let schema = json!({"type": "integer"});
        for json in [schema.clone(), json!(schema.to_string())] {
            let guided = Guided { json: Some(json), ..Guided::default() };
            assert_eq!(wanted(None, guided), Ok(Some(("guided_json", Grammar::JsonSchema(schema.clone())))));
        }
        assert_eq!(wanted(None, regex("a+")), Ok(Some(("guided_regex", Grammar::Regex("a+".into())))));
        let lark = Guided { lark: Some("start: \"a\"".into()), ..Guided::default() };
        assert_eq!(wanted(None, lark), Ok(Some(("guided_grammar", Grammar::Lark("start: \"a\"".into())))));
        assert_eq!(wanted(Some(ResponseFormat::JsonObject), Guided::default()), Ok(Some((FORMAT, Grammar::Json))));
        assert_eq!(wanted(Some(ResponseFormat::Text), Guided::default()), Ok(None));
    }

    #[test]
    fn two_of_them_one_too_long_and_no_json_are_refused_by_name() {
        assert_eq!(refused(wanted(Some(ResponseFormat::JsonObject), regex("a"))), "guided_regex");
        let two = Guided { lark: Some("start: \"a\"".into()), ..regex("a") };
        assert_eq!(refused(wanted(None, two)), "guided_grammar");
        assert!(wanted(Some(ResponseFormat::Text), regex("a")).is_ok(), "a text asks for nothing");
        assert!(wanted(None, regex(&"a".repeat(LONGEST))).is_ok());
        assert_eq!(refused(wanted(None, regex(&"a".repeat(LONGEST + 1)))), "guided_regex");
        let long = Guided { json: Some(json!({"const": "a".repeat(LONGEST)})), ..Guided::default() };
        assert_eq!(refused(wanted(None, long)), "guided_json");
        assert_eq!(refused(wanted(None, Guided { json: Some(json!("{")), ..Guided::default() })), "guided_json");
    }
}
