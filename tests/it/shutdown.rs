//! Being told to stop: what runs is finished, what comes is refused, and what takes too long is cut.

use std::time::Duration;

use pensieve::engine::fake::Script;
use tokio::time::timeout;

use crate::support::sse::{Frame, text};
use crate::support::{Setup, TestServer, ask, envelope, refusal, said};

const HOUR: Duration = Duration::from_secs(3600);
/// Long enough for a busy machine, and shorter than any time limit of the server's.
const SOON: Duration = Duration::from_secs(5);

/// Some 60 tokens of text take a good half second, [`long`] ones a quarter of an hour.
fn steady() -> Script {
    Script { token_time: Duration::from_millis(10), ..Script::default() }
}

/// More text than comes out in the time of a test.
fn long() -> String {
    "x".repeat(100_000)
}

async fn draining(server: &TestServer) {
    server.tell_to_stop().await;
    server.until("the server is draining", |status| status["ready"] == false).await;
}

/// Holds a stream to exactly one error event at its end.
fn cut_once(frames: &[Frame]) {
    let (last, before) = frames.split_last().expect("not a bare end");
    assert!(before.iter().all(|frame| !frame.is_done() && frame.json().get("error").is_none()), "{frames:?}");
    assert_eq!(envelope(last.json())["code"], "shutting_down");
}

#[tokio::test]
async fn an_idle_server_ends_at_once() {
    let server = Setup::new(&["a: { preload: true }"]).start().await;
    said(server.chat(&ask("a", "hi")).await).await;
    server.stop().await;
}

#[tokio::test]
async fn running_answers_finish_whole_and_new_ones_are_refused() {
    let prompt = "y".repeat(50);
    let mut server = Setup::new(&["a: {}", "b: {}"]).script("a", steady()).start().await;
    let mut stream = server.stream(&ask("a", &prompt)).await;
    stream.until_text().await;
    let whole = server.begin(&ask("a", &prompt));
    server.until_running("a", 2).await;
    draining(&server).await;
    assert_eq!(refusal(server.chat(&ask("b", "hi")).await, 503).await["code"], "shutting_down");
    let rest = stream.rest().await;
    assert!(rest.last().unwrap().is_done());
    assert_eq!(format!("a{}", text(&rest)), format!("a: {prompt}"));
    assert_eq!(said(whole.answer().await).await, format!("a: {prompt}"));
    server.ended().await;
}

#[tokio::test]
async fn who_waits_in_the_queue_when_the_drain_begins_is_served() {
    let mut server = Setup::new(&["a: { sequences: 1 }"]).script("a", steady()).start().await;
    let mut first = server.stream(&ask("a", &"y".repeat(50))).await;
    first.until_text().await;
    let second = server.begin(&ask("a", "second"));
    server.until_waiting("a", 1).await;
    draining(&server).await;
    assert!(first.rest().await.last().unwrap().is_done());
    assert_eq!(said(second.answer().await).await, "a: second");
    server.ended().await;
}

#[tokio::test]
async fn past_the_deadline_a_stream_ends_with_one_error_event() {
    let setup = Setup::new(&["a: { context: 200000 }"]).script("a", steady()).drain(Duration::from_millis(100));
    let mut server = setup.start().await;
    let mut stream = server.stream(&ask("a", &long())).await;
    stream.until_text().await;
    let whole = server.begin(&ask("a", &long()));
    server.until_running("a", 2).await;
    server.tell_to_stop().await;
    cut_once(&stream.rest().await);
    assert_eq!(refusal(whole.answer().await, 503).await["code"], "shutting_down");
    server.ended().await;
}

#[tokio::test]
async fn a_second_signal_cuts_what_the_first_let_run() {
    let mut server = Setup::new(&["a: { context: 200000 }"]).script("a", steady()).start().await;
    let mut stream = server.stream(&ask("a", &long())).await;
    stream.until_text().await;
    draining(&server).await;
    stream.until_text().await;
    server.tell_to_stop().await;
    cut_once(&stream.rest().await);
    server.ended().await;
}

#[tokio::test]
async fn a_request_that_still_waits_for_its_turn_at_the_deadline_is_refused_at_once() {
    let endless = Script { prefill_time: HOUR, ..Script::default() };
    let setup = Setup::new(&["a: { sequences: 1 }"]).script("a", endless).drain(Duration::from_millis(100));
    let server = setup.start().await;
    let _running = server.stream(&ask("a", "first")).await;
    let waiting = server.begin(&ask("a", "second"));
    server.until_waiting("a", 1).await;
    server.tell_to_stop().await;
    let response = timeout(SOON, waiting.answer()).await.expect("it waits on");
    assert_eq!(refusal(response, 503).await["code"], "shutting_down");
}

#[tokio::test]
async fn a_request_that_still_waits_for_its_model_at_the_deadline_is_refused_at_once() {
    let slow = Script { load_time: HOUR, ..Script::default() };
    let server = Setup::new(&["a: {}"]).script("a", slow).drain(Duration::from_millis(100)).start().await;
    let waiting = server.begin(&ask("a", "hi"));
    server.until_waiting("a", 1).await;
    server.tell_to_stop().await;
    let response = timeout(SOON, waiting.answer()).await.expect("it waits on");
    assert_eq!(refusal(response, 503).await["code"], "shutting_down");
}

#[tokio::test]
async fn a_load_under_way_does_not_hold_up_the_end() {
    let slow = Script { load_time: HOUR, ..Script::default() };
    let mut server = Setup::new(&["a: { preload: true }"]).script("a", slow).start().await;
    server.until_state("a", "loading").await;
    server.tell_to_stop().await;
    timeout(SOON, server.ended()).await.expect("it waits for the load");
}

#[tokio::test]
async fn a_server_that_ended_has_given_its_ports_back() {
    let server = Setup::new(&["a: {}"]).start().await;
    let addresses = [server.api(""), server.admin("")].map(|url| url.replace("http://", ""));
    server.stop().await;
    for address in addresses {
        drop(std::net::TcpListener::bind(&address).unwrap());
    }
}
