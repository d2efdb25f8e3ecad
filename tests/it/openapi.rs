//! The OpenAPI documents, as files, as routes and as pages.

use std::collections::BTreeSet;
use std::path::Path;

use pensieve::api::openapi::{admin_document, public_document};
use serde_json::Value;

use crate::support::{Setup, TestServer};

fn public() -> Value {
    serde_json::to_value(public_document()).unwrap()
}

fn admin() -> Value {
    serde_json::to_value(admin_document()).unwrap()
}

/// `METHOD path` of every operation.
fn operations(document: &Value) -> BTreeSet<String> {
    let paths = document["paths"].as_object().unwrap().iter();
    let named = paths.flat_map(|(path, item)| {
        item.as_object().unwrap().keys().map(move |method| format!("{} {path}", method.to_uppercase()))
    });
    named.collect()
}

#[test]
fn the_documents_have_every_route_and_no_other() {
    let expected = |lines: &[&str]| lines.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    let public_routes = ["POST /v1/chat/completions", "POST /v1/completions", "GET /v1/models", "GET /v1/models/{id}"];
    assert_eq!(operations(&public()), expected(&public_routes));
    let admin_routes = [
        "GET /admin/v1/status",
        "GET /admin/v1/models",
        "GET /admin/v1/models/{id}",
        "POST /admin/v1/models/{id}/load",
        "POST /admin/v1/models/{id}/unload",
        "POST /admin/v1/swap",
        "GET /livez",
        "GET /readyz",
        "GET /metrics",
    ];
    assert_eq!(operations(&admin()), expected(&admin_routes));
}

#[tokio::test]
async fn every_operation_of_the_documents_is_served() {
    let server = Setup::new(&["a: {}"]).start().await;
    for (document, base) in [(public(), server.api("")), (admin(), server.admin(""))] {
        for operation in operations(&document) {
            let (method, path) = operation.split_once(' ').unwrap();
            let url = format!("{base}{}", path.replace("{id}", "a"));
            let response = server.client.request(method.parse().unwrap(), url).send().await.unwrap();
            // Without a body some are refused, but none for its route or method.
            assert!(![404, 405].contains(&response.status().as_u16()), "{operation}: {}", response.status());
        }
    }
}

#[test]
fn every_operation_has_an_id_of_its_own_a_summary_and_a_tag() {
    for document in [public(), admin()] {
        let mut ids = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let id = operation["operationId"].as_str().unwrap_or_else(|| panic!("{method} {path} has no id"));
                assert!(ids.insert(id.to_owned()), "{id} twice");
                assert!(operation["summary"].is_string(), "{method} {path} has no summary");
                assert_eq!(operation["tags"].as_array().map(Vec::len), Some(1), "{method} {path}");
            }
        }
    }
}

#[test]
fn every_reference_of_the_documents_leads_somewhere() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|field| references(field, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    for document in [public(), admin()] {
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            let pointer =
                reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference} leads out of the document"));
            assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
        }
    }
}

#[test]
fn errors_are_described_by_the_envelope() {
    let document = public();
    let responses = &document["paths"]["/v1/chat/completions"]["post"]["responses"];
    for status in ["400", "404", "413", "429", "500", "503"] {
        let schema = &responses[status]["content"]["application/json"]["schema"]["$ref"];
        assert_eq!(schema, "#/components/schemas/ErrorBody", "{status}");
    }
}

#[test]
fn the_files_in_docs_are_what_the_code_says() {
    for (file, document) in [("docs/openapi.json", public()), ("docs/openapi-admin.json", admin())] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}: run `just openapi`"));
        // Compared as values: the order of keys in an example depends on the features of the build.
        let written: Value = serde_json::from_str(&text).unwrap();
        assert!(written == document, "{file} is out of date: run `just openapi`");
    }
}

#[tokio::test]
async fn each_listener_serves_its_own_document() {
    let server = Setup::new(&["a: {}"]).start().await;
    for (url, document) in [(server.api("/openapi.json"), public()), (server.admin("/openapi.json"), admin())] {
        let served: Value = server.get(url).await.json().await.unwrap();
        assert!(served == document);
    }
}

#[tokio::test]
async fn the_pages_of_the_documentation_need_no_network() {
    let server = Setup::new(&["a: {}"]).start().await;
    for base in [server.api("/docs/"), server.admin("/docs/")] {
        let assets = assets(&server, &base).await;
        assert!(assets.iter().any(|asset| asset.ends_with(".js")), "{assets:?}");
        assert!(assets.iter().any(|asset| asset.ends_with(".css")), "{assets:?}");
        for asset in assets {
            assert!(!asset.contains("//"), "{asset} is somewhere else");
            let url = format!("{base}{}", asset.trim_start_matches("./"));
            let response = server.get(url).await;
            assert_eq!(response.status(), 200, "{asset}");
            assert!(!response.bytes().await.unwrap().is_empty(), "{asset}");
        }
    }
}

/// Whatever the page loads.
async fn assets(server: &TestServer, page: &str) -> Vec<String> {
    let response = server.get(page.to_owned()).await;
    assert_eq!(response.status(), 200);
    let html = response.text().await.unwrap();
    let after = |mark: &str| html.split(mark).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect();
    let (sources, links): (Vec<String>, Vec<String>) = (after("src=\""), after("href=\""));
    [sources, links].concat()
}
