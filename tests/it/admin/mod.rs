//! The admin API: what its tests share. Models here weigh what a script says.

mod budget;
mod looking;
mod swaps;

use pensieve::engine::Footprint;
use pensieve::engine::fake::Script;
use serde_json::json;

use crate::support::{Setup, TestServer};

fn weighing(mib: u64) -> Script {
    Script { footprint: Footprint { weights_private: mib << 20, ..Footprint::default() }, ..Script::default() }
}

/// Three models of 40 MiB under a budget of 100 MiB: two fit.
fn crowded() -> Setup {
    let setup = Setup::new(&["a: { aliases: [first] }", "b: {}", "c: {}"]).budget("100MiB");
    setup.script("a", weighing(40)).script("b", weighing(40)).script("c", weighing(40))
}

/// Two models of 60 MiB under a budget of 100 MiB: one fits.
fn tight(b: Script) -> Setup {
    Setup::new(&["a: {}", "b: {}"]).budget("100MiB").script("a", weighing(60)).script("b", Script { ..b })
}

async fn swap(server: &TestServer, from: &str, to: &str) -> reqwest::Response {
    server.post(server.admin("/admin/v1/swap"), &json!({"from": from, "to": to})).await
}

async fn states(server: &TestServer) -> Vec<String> {
    let status = server.status().await;
    let models = status["models"].as_array().unwrap().iter();
    models.map(|model| format!("{} {}", model["id"].as_str().unwrap(), model["state"].as_str().unwrap())).collect()
}

async fn used(server: &TestServer) -> u64 {
    server.status().await["memory"]["used"].as_u64().unwrap()
}
