//! The JSON schema of the registry file, made from its types: what editors complete and check by.
//!
//! It knows shapes, not meanings: what a schema cannot say (names that are taken, budgets that do not
//! suffice) is checked by [`super::catalog`].

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value};

use super::registry_file::RegistryFile;

/// The schema, draft 7, which is what editors know best. Keys stand in order, whatever the build.
pub fn document() -> Value {
    let generator = SchemaSettings::draft07().into_generator();
    let mut schema = generator.into_root_schema_for::<RegistryFile>().to_value();
    describe_once(&mut schema);
    ordered(schema)
}

/// Keys that `defaults:` and models share are described at the former; the latter get the same.
fn describe_once(schema: &mut Value) {
    let shared = schema["definitions"]["Settings"]["properties"].clone();
    let Value::Object(own) = &mut schema["definitions"]["Model"]["properties"] else { return };
    for (key, value) in own {
        if let (Value::Object(value), Some(text)) = (value, shared[key].get("description")) {
            value.entry("description").or_insert_with(|| text.clone());
        }
    }
}

fn ordered(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<(String, Value)> = fields.into_iter().collect();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(fields.into_iter().map(|(key, value)| (key, ordered(value))).collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(ordered).collect()),
        other => other,
    }
}

/// A number of bytes, with or without a unit.
pub struct Size;

/// A length of time.
pub struct Time;

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Bytes: `684MB`, `4GiB`, or a plain number.",
            "type": ["string", "integer"],
            "minimum": 0,
            "pattern": "^[0-9.]+ *([kKmMgGtTpP]?[bB]?|[kKmMgGtTpP]i[bB]?)$",
        })
    }
}

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A time: `30s`, `10m`, `1h 30m`.",
            "type": "string",
            "pattern": "^([0-9]+ *[a-zA-Z]+ *)+$",
        })
    }
}
