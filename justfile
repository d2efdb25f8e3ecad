# What is done often. `just --list` shows it.

# The everyday loop: no candle in the graph.
check:
    cargo fmt --all
    cargo clippy --workspace --no-default-features --all-targets -- -D warnings
    cargo test --workspace --no-default-features

# Everything, as CI runs it.
ci:
    .ci/run

# The demo fleet on 127.0.0.1:8080.
serve:
    cargo run --release -- serve

# Writes docs/openapi.json and docs/openapi-admin.json.
openapi:
    cargo run --no-default-features -- openapi > docs/openapi.json
    cargo run --no-default-features -- openapi --admin > docs/openapi-admin.json

# Writes docs/model-registry.schema.json.
schema:
    cargo run --no-default-features -- schema > docs/model-registry.schema.json

# Accuracy of the demo models through a running server.
accuracy:
    cd models && python3 -m recipe.evaluate --url http://127.0.0.1:8080/v1 reverse add roman
