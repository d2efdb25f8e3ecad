//! The JSON schema of the registry file, and the registries that are shipped.

use std::path::{Path, PathBuf};

use serde_json::Value;

use pensieve::config::schema;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn text(file: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The repository's own registry and every example.
fn registries() -> Vec<PathBuf> {
    let examples = std::fs::read_dir(Path::new(ROOT).join("examples/registries")).unwrap();
    let mut files: Vec<_> = examples.map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 2, "{files:?}");
    files.push(Path::new(ROOT).join("model-registry.yaml"));
    files
}

/// What of `value` does not keep to `schema`, by path: unknown and missing keys, and values that are
/// none of those listed.
fn mistakes(schema: &Value, root: &Value, value: &Value, path: &str) -> Vec<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let definition = root.pointer(reference.trim_start_matches('#')).unwrap_or_else(|| panic!("{reference}"));
        return mistakes(definition, root, value, path);
    }
    for choices in ["anyOf", "oneOf", "allOf"] {
        if let Some(choices) = schema[choices].as_array() {
            let each = choices.iter().map(|choice| mistakes(choice, root, value, path));
            return each.min_by_key(Vec::len).unwrap_or_default();
        }
    }
    if let Some(only) = schema.get("const").or_else(|| schema["enum"].as_array().and_then(|all| all.first())) {
        let listed = schema["enum"].as_array().is_some_and(|all| all.contains(value));
        return if listed || only == value { vec![] } else { vec![format!("{path}: {value}")] };
    }
    let Some(object) = value
        .as_object()
        .filter(|_| schema.get("properties").is_some() || schema.get("additionalProperties").is_some())
    else {
        return if schema["type"] == "null" { vec![format!("{path}: not null")] } else { vec![] };
    };
    let missing = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut found: Vec<_> =
        missing.filter(|key| !object.contains_key(*key)).map(|key| format!("{path}.{key}: missing")).collect();
    for (key, value) in object {
        match schema["properties"]
            .get(key)
            .or_else(|| schema.get("additionalProperties").filter(|other| other.is_object()))
        {
            Some(schema) => found.extend(mistakes(schema, root, value, &format!("{path}.{key}"))),
            None => found.push(format!("{path}.{key}: unknown")),
        }
    }
    found
}

fn mistakes_of(yaml: &str) -> Vec<String> {
    let (schema, value) = (schema::document(), serde_saphyr::from_str(yaml).unwrap());
    mistakes(&schema, &schema, &value, "")
}

#[test]
fn the_file_in_docs_is_what_the_types_say() {
    let written: Value = serde_json::from_str(&text("docs/model-registry.schema.json")).unwrap();
    assert!(written == schema::document(), "docs/model-registry.schema.json is out of date: run `just schema`");
}

#[test]
fn shipped_registries_keep_to_the_schema_and_name_it_to_editors() {
    for file in registries() {
        let yaml = std::fs::read_to_string(&file).unwrap();
        assert_eq!(mistakes_of(&yaml), [""; 0], "{}", file.display());
        let named = yaml.lines().next().and_then(|line| line.strip_prefix("# yaml-language-server: $schema="));
        let named = named.unwrap_or_else(|| panic!("{} names no schema", file.display()));
        assert!(file.with_file_name(named).exists(), "{named}");
    }
}

#[test]
fn the_schema_refuses_what_the_parser_refuses() {
    let good = "version: 1\nmemory: { budget: 1GiB }\nmodels:\n  a: { engine: fake }\n";
    assert_eq!(mistakes_of(good), [""; 0]);
    assert_eq!(mistakes_of(&good.replace("engine", "engin")), [".models.a.engin: unknown"]);
    assert_eq!(mistakes_of(&good.replace("budget", "bytes")), [".memory.budget: missing", ".memory.bytes: unknown"]);
    assert_eq!(mistakes_of(&format!("{good}mode: swarm\n")), [".mode: \"swarm\""]);
}

#[test]
fn every_key_stands_in_the_reference() {
    let (schema, page) = (schema::document(), text("docs/MODEL-REGISTRY.md"));
    let definitions = schema["definitions"].as_object().unwrap().values().chain([&schema]);
    let keys = definitions.filter_map(|definition| definition["properties"].as_object()).flat_map(|keys| keys.keys());
    let named = |key: &str| page.split('`').skip(1).step_by(2).any(|code| code.split('.').any(|part| part == key));
    let absent: Vec<_> = keys.filter(|key| !named(key)).collect();
    assert!(absent.is_empty(), "docs/MODEL-REGISTRY.md does not name {absent:?}");
}
