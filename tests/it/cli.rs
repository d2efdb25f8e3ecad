//! The program, as a process: what it prints and what it ends with.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::DEADLINE;

const GOOD: &str = "version: 1\nmemory: { budget: 1GiB }\nmodels:\n  a: { engine: fake, preload: true }\n";
/// Two mistakes, in lines 4 and 5.
const BAD: &str = "version: 1\nmemory: { budget: 1GiB }\nmodels:\n  a: { source: gone.gguf }\n  b: {}\n";

/// The program with nothing of this process's environment.
fn pensieve(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pensieve"));
    command.args(arguments).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(arguments: &[&str]) -> Output {
    ended(pensieve(arguments).spawn().unwrap())
}

/// Waits for the end, but not for ever.
fn ended(mut child: Child) -> Output {
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > DEADLINE {
            child.kill().unwrap();
            panic!("it does not end: {:?}", child.wait_with_output().unwrap());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A registry file and the directory that holds it while the test runs.
fn registry(yaml: &str) -> (TempDir, String) {
    let directory = TempDir::new().unwrap();
    let file: PathBuf = directory.path().join("registry.yaml");
    std::fs::write(&file, yaml).unwrap();
    (directory, file.to_string_lossy().into_owned())
}

#[test]
fn a_plan_needs_no_files_where_sizes_are_declared_and_a_server_does() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/registries/fleet-20gb.yaml");
    let planned = run(&["validate", "--registry", file]);
    assert_eq!(planned.status.code(), Some(0), "{}", stderr(&planned));
    let table = stdout(&planned);
    assert_eq!(table.matches("Q3_K (declared)").count(), 20, "{table}");
    assert!(table.contains("all models fit together"), "{table}");
    assert!(table.contains("Not there yet: 20 of the files"), "{table}");
    let served = run(&["serve", "--registry", file]);
    assert_eq!(served.status.code(), Some(64));
    assert_eq!(stderr(&served).matches("`declared` serves `validate` only").count(), 20, "{}", stderr(&served));
}

#[test]
fn a_missing_file_without_declared_sizes_is_told_how_to_plan() {
    let (_directory, file) = registry(BAD);
    let output = run(&["validate", "--registry", &file]);
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("to plan without it, write `declared`"), "{}", stderr(&output));
}

#[test]
fn a_reader_that_has_read_enough_ends_the_program_quietly() {
    let (_directory, file) = registry(GOOD);
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/models/add.Q3_K_M.gguf");
    let bench =
        ["bench", "engine", "--model", model, "--sequences", "1", "--prompt", "8", "--tokens", "1", "--rounds", "1"];
    for arguments in [&["openapi"][..], &["validate", "--registry", &file], &bench] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = ended(pensieve(arguments).stdout(writer).spawn().unwrap());
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()), "{arguments:?}");
    }
}

#[test]
fn help_and_version_are_no_failure() {
    for arguments in [&["--help"][..], &["serve", "--help"], &["--version"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(!stdout(&output).is_empty() && output.stderr.is_empty(), "{output:?}");
    }
    let help = stdout(&run(&["serve", "--help"]));
    for flag in ["--registry", "--listen", "--admin-listen", "--drain-timeout", "--insecure", "PENSIEVE_REGISTRY"] {
        assert!(help.contains(flag), "{flag}: {help}");
    }
}

#[test]
fn an_unknown_flag_or_command_ends_with_64() {
    for arguments in [&["serve", "--prot", "1"][..], &["sevre"], &[], &["serve", "--listen", "nowhere"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_log_filter_that_cannot_be_read_ends_with_64() {
    let (_directory, file) = registry(GOOD);
    let output = run(&["validate", "--registry", &file, "--log", "pensieve=loudly"]);
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    assert!(stderr(&output).contains("loudly"), "{output:?}");
}

#[test]
fn validate_prints_the_plan_of_a_good_registry() {
    let (_directory, file) = registry(GOOD);
    let output = run(&["validate", "--registry", &file]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    let plan = stdout(&output).lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    insta::assert_snapshot!(plan, @"
     model  engine  type  context  at start  weights   kv  other    total
     a      fake    -     2048     preload   1.0 MiB  0 B    0 B  1.0 MiB

    mode fleet, models: 1; budget 1.0 GiB, at start 1.0 MiB, all models fit together.
    ");
}

#[test]
fn validate_names_file_line_and_path_of_every_mistake_and_ends_with_64() {
    let (_directory, file) = registry(BAD);
    let output = run(&["validate", "--registry", &file]);
    assert_eq!(output.status.code(), Some(64));
    assert!(output.stdout.is_empty());
    let said = stderr(&output);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(lines[0].starts_with(&format!("{file}:4: models.a.source: ")), "{said}");
    assert!(lines[1].starts_with(&format!("{file}:5: models.b: ")), "{said}");
}

#[test]
fn mistakes_in_the_text_of_a_registry_end_with_64_and_their_line() {
    let head = "version: 1\nmemory: { budget: 1GiB }\nmodels:\n";
    for (yaml, place) in [
        (format!("{head}  a: {{ engine: fake, preloaded: true }}\n"), ":4: models.a"),
        (format!("{head}  a: {{ engine: fake, context: many }}\n"), ":4: models.a.context"),
        (format!("{head}  a: {{ engine: fake, queue: {{ timeout: soon }} }}\n"), ":4: models.a.queue.timeout"),
        ("version: 2\nmemory: { budget: 1GiB }\nmodels:\n  a: { engine: fake }\n".into(), ":1: version"),
        ("version: 1\nmemory: { budget: lots }\nmodels:\n  a: { engine: fake }\n".into(), ":2: memory.budget"),
        ("version: 1\nmodels: [".into(), ":2: models"),
        (String::new(), ":1: "),
    ] {
        let (_directory, file) = registry(&yaml);
        let output = run(&["validate", "--registry", &file]);
        assert_eq!(output.status.code(), Some(64), "{yaml}: {output:?}");
        assert!(stderr(&output).starts_with(&format!("{file}{place}")), "{yaml}: {output:?}");
        assert_eq!(stderr(&output).lines().count(), 1, "{output:?}");
    }
}

#[test]
fn a_queue_without_a_place_is_a_mistake() {
    let (_directory, file) = registry(&GOOD.replace("preload: true", "queue: { depth: 0 }"));
    let output = run(&["validate", "--registry", &file]);
    assert_eq!(output.status.code(), Some(64), "every request would be answered 429: {output:?}");
}

#[test]
fn a_registry_that_is_not_there_is_named() {
    let output = run(&["serve", "--registry", "nowhere.yaml"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).starts_with("nowhere.yaml: "), "{output:?}");
}

#[test]
fn the_environment_stands_in_for_flags_and_flags_win() {
    let (_directory, file) = registry(GOOD);
    let validate = |arguments: &[&str]| {
        ended(pensieve(arguments).env("PENSIEVE_REGISTRY", "nowhere.yaml").spawn().unwrap()).status.code()
    };
    assert_eq!(validate(&["validate"]), Some(64));
    assert_eq!(validate(&["validate", "--registry", &file]), Some(0));
    let output = ended(pensieve(&["validate"]).env("PENSIEVE_REGISTRY", &file).spawn().unwrap());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn a_bad_registry_ends_serve_with_64_before_any_port_is_bound() {
    let (_directory, file) = registry(BAD);
    // Were a port bound first, this one would end it with 70.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run(&["serve", "--registry", &file, "--listen", &address, "--admin-listen", &address]);
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    assert!(stderr(&output).contains(":4: models.a.source: "), "{output:?}");
}

#[test]
fn an_address_that_others_reach_ends_with_64_unless_it_is_insisted_on() {
    let (_directory, file) = registry(GOOD);
    for flag in ["--listen", "--admin-listen"] {
        for address in ["0.0.0.0:0", "[::]:0"] {
            let output = run(&["serve", "--registry", &file, flag, address]);
            assert_eq!(output.status.code(), Some(64), "{flag} {address}: {output:?}");
            assert!(stderr(&output).contains("--insecure"), "{output:?}");
        }
    }
    let serving = Serving::start(&["--listen", "0.0.0.0:0", "--admin-listen", "127.0.0.1:0", "--insecure"]);
    assert_eq!(serving.stop("TERM").status.code(), Some(0));
}

#[test]
fn a_port_in_use_ends_with_70_and_names_the_flag() {
    let (_directory, file) = registry(GOOD);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (flag, other) in [("--listen", "--admin-listen"), ("--admin-listen", "--listen")] {
        let output = run(&["serve", "--registry", &file, flag, &address, other, "127.0.0.1:0"]);
        assert_eq!(output.status.code(), Some(70), "{output:?}");
        let said = stderr(&output);
        assert!(said.contains(&address) && said.contains(flag), "{said}");
    }
}

#[test]
fn sigterm_and_sigint_end_serve_with_0() {
    for signal in ["TERM", "INT"] {
        let serving = Serving::start(&["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        let output = serving.stop(signal);
        assert_eq!(output.status.code(), Some(0), "SIG{signal}: {output:?}");
    }
}

#[test]
fn serve_logs_the_ports_it_was_given_and_serves_there() {
    let serving = Serving::start(&["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    let ports: Vec<u16> = serving
        .listening
        .split("127.0.0.1:")
        .skip(1)
        .map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap())
        .collect();
    assert!(ports.len() == 2 && !ports.contains(&0), "nobody can find this server: {}", serving.listening);
    for (port, path) in ports.into_iter().zip(["/v1/models", "/livez"]) {
        let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
        write!(connection, "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert_eq!(serving.stop("TERM").status.code(), Some(0));
}

#[test]
fn openapi_prints_the_documents() {
    for (arguments, title) in [(&["openapi"][..], "pensieve"), (&["openapi", "--admin"], "pensieve admin")] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(0));
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(document["info"]["title"], title);
    }
}

#[test]
fn log_lines_are_json_when_asked() {
    let serving = Serving::start(&["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-format", "json"]);
    let line: serde_json::Value = serde_json::from_str(&serving.listening).unwrap();
    serving.stop("TERM");
    assert_eq!((&line["level"], &line["message"]), (&"INFO".into(), &"listening".into()));
}

/// A `pensieve serve` that listens.
struct Serving {
    child: Option<Child>,
    /// The log line that says so.
    listening: String,
    _registry: TempDir,
}

impl Serving {
    fn start(arguments: &[&str]) -> Self {
        let (directory, file) = registry(GOOD);
        let mut child = pensieve(&[&["serve", "--registry", &file], arguments].concat()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let listening = lines.by_ref().map(Result::unwrap).find(|line| line.contains("listening"));
        // Read on, so that the process never waits for a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child: Some(child), listening: listening.expect("it ended without listening"), _registry: directory }
    }

    fn stop(mut self, signal: &str) -> Output {
        let child = self.child.take().unwrap();
        let kill = Command::new("sh").args(["-c", &format!("kill -{signal} {}", child.id())]).status().unwrap();
        assert!(kill.success());
        ended(child)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
