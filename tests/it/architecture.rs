//! Who may know whom: `lib.rs` says it, this holds the source to it.

use std::path::{Path, PathBuf};

/// Longer files have more than one thing in them.
const MOST_LINES: usize = 450;

/// A source file: its path under `src/`, with `/`, and its lines without comments.
struct Source {
    path: String,
    lines: Vec<String>,
    length: usize,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            match path.extension().and_then(|extension| extension.to_str()) {
                _ if path.is_dir() => directories.push(path),
                Some("rs") => sources.push(source(&root, &path)),
                _ => {}
            }
        }
    }
    assert!(sources.len() > 30, "the source is somewhere else");
    sources
}

fn source(root: &Path, path: &Path) -> Source {
    let text = std::fs::read_to_string(path).unwrap();
    let code = |line: &&str| !line.trim_start().starts_with("//");
    Source {
        path: path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/"),
        lines: text.lines().filter(code).map(str::to_owned).collect(),
        length: text.lines().count(),
    }
}

/// Asserts that only files under `allowed` have `word` in a line of code.
fn only_in(word: &str, allowed: &[&str]) {
    let sources = sources();
    let used: Vec<&Source> =
        sources.iter().filter(|source| source.lines.iter().any(|line| mentions(line, word))).collect();
    assert!(!used.is_empty(), "nobody writes `{word}`: this test has nothing to hold on to");
    let strangers: Vec<&str> = used
        .iter()
        .map(|source| source.path.as_str())
        .filter(|path| !allowed.iter().any(|allowed| path.starts_with(allowed)))
        .collect();
    assert!(strangers.is_empty(), "`{word}` belongs in {allowed:?}, and is in {strangers:?} too");
}

/// Whether `word` stands in the line and is not the end of a longer name.
fn mentions(line: &str, word: &str) -> bool {
    let name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| !line[..at].ends_with(name))
}

/// Asserts that no file under `from` mentions a module of `away`.
fn never(from: &str, away: &[&str]) {
    let mut seen = 0;
    for source in sources().iter().filter(|source| source.path.starts_with(from)) {
        seen += 1;
        for module in away {
            let forms = [format!("crate::{module}::"), format!("crate::{module};"), format!("crate::{module}}}")];
            let grouped = format!("{module}::");
            for line in &source.lines {
                let direct = forms.iter().any(|form| line.contains(form));
                let in_group = line.contains("use crate::{") && mentions(line, &grouped);
                assert!(!direct && !in_group, "{} knows {module}: {line}", source.path);
            }
        }
    }
    assert!(seen > 0, "there is nothing under {from}");
}

#[test]
#[cfg(feature = "mistralrs")]
fn mistralrs_is_written_behind_the_seam_only() {
    let sources = sources();
    for source in sources.iter().filter(|source| !source.path.starts_with("engine/mistralrs")) {
        for line in source.lines.iter().filter(|line| mentions(line, "mistralrs::")) {
            let names_the_engine = line.contains("crate::engine::mistralrs::") && source.path == "app.rs";
            assert!(names_the_engine, "{}: {line}", source.path);
        }
    }
    only_in("mistralrs::", &["engine/mistralrs", "app.rs"]);
}

#[test]
fn http_is_known_to_the_api_and_the_root_only() {
    for word in ["axum::", "utoipa_axum::", "utoipa_swagger_ui::", "tower_http::"] {
        only_in(word, &["api/", "app.rs"]);
    }
    // These two derive the schemas of values that go out as they are.
    only_in("utoipa::", &["api/", "engine/types.rs", "registry/swap.rs"]);
}

#[test]
fn status_codes_are_written_in_one_file() {
    // extract.rs asks whether axum's own rejection was for the length.
    only_in("StatusCode::", &["api/error.rs", "api/extract.rs"]);
}

#[test]
fn metrics_are_made_in_one_file() {
    // The queue holds one gauge that it was given; the root hands on the error of making them.
    only_in("prometheus::", &["telemetry/metrics.rs", "gateway/queue.rs", "app.rs"]);
}

#[test]
fn yaml_and_the_command_line_stay_where_they_are_read() {
    only_in("serde_saphyr::", &["config/"]);
    // The log format is an option like any other.
    only_in("clap::", &["cli/", "main.rs", "telemetry/logging.rs"]);
}

#[test]
fn the_arrows_never_turn_back() {
    never("gateway/", &["api", "app", "cli"]);
    never("registry/", &["api", "app", "cli", "gateway"]);
    never("engine/", &["api", "app", "cli", "gateway", "registry", "config", "telemetry"]);
    never("config/", &["api", "app", "cli", "gateway", "registry", "telemetry"]);
    never("api/", &["app", "cli"]);
    never("telemetry/", &["api", "app", "cli", "gateway", "registry", "engine", "config", "domain"]);
    never("domain.rs", &["api", "app", "cli", "gateway", "registry", "engine", "config", "telemetry", "shutdown"]);
}

#[test]
fn every_file_says_what_lives_in_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for source in sources() {
        // Tests of a file that grew too long say nothing that their file does not.
        if source.path.ends_with("/tests.rs") {
            continue;
        }
        let text = std::fs::read_to_string(root.join(&source.path)).unwrap();
        assert!(text.starts_with("//! "), "{} does not say what lives in it", source.path);
    }
}

#[test]
fn no_file_is_too_long() {
    let long: Vec<(String, usize)> = sources()
        .into_iter()
        .filter(|source| source.length > MOST_LINES)
        .map(|source| (source.path, source.length))
        .collect();
    assert!(long.is_empty(), "more than {MOST_LINES} lines: {long:?}");
}
