//! A reader of server-sent events that keeps every frame as it came.

use std::pin::Pin;

use futures::{Stream, StreamExt};
use reqwest::Response;
use serde_json::Value;

/// One event or comment, with the blank line that ends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame(pub String);

impl Frame {
    /// The data, which our frames hold in one line and with nothing beside it.
    pub fn data(&self) -> &str {
        let data = self.0.strip_prefix("data: ").and_then(|data| data.strip_suffix("\n\n"));
        let data = data.unwrap_or_else(|| panic!("not one `data: ` line: {:?}", self.0));
        assert!(!data.contains(['\n', '\r']), "a line break in the data: {data:?}");
        data
    }

    pub fn is_done(&self) -> bool {
        self.data() == "[DONE]"
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(self.data()).unwrap_or_else(|error| panic!("{error}: {:?}", self.0))
    }
}

/// Puts frames together from pieces cut anywhere, also inside a character.
#[derive(Debug, Default)]
pub struct Parser {
    rest: Vec<u8>,
}

impl Parser {
    /// The frames that `piece` completes.
    pub fn feed(&mut self, piece: &[u8]) -> Vec<Frame> {
        self.rest.extend_from_slice(piece);
        let mut frames = Vec::new();
        while let Some(end) = self.rest.windows(2).position(|pair| pair == b"\n\n") {
            let frame: Vec<u8> = self.rest.drain(..end + 2).collect();
            frames.push(Frame(String::from_utf8(frame).expect("a frame is not UTF-8")));
        }
        frames
    }

    /// Says that nothing follows.
    pub fn finish(self) {
        assert!(self.rest.is_empty(), "a frame without an end: {:?}", String::from_utf8_lossy(&self.rest));
    }
}

/// The frames of an answer, as they come.
pub struct Frames {
    pieces: Pin<Box<dyn Stream<Item = reqwest::Result<Vec<u8>>> + Send>>,
    parser: Parser,
    ready: std::collections::VecDeque<Frame>,
}

impl Frames {
    pub fn of(response: Response) -> Self {
        assert_eq!(response.status(), 200, "{response:?}");
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let pieces = response.bytes_stream().map(|piece| piece.map(|piece| piece.to_vec()));
        Self { pieces: Box::pin(pieces), parser: Parser::default(), ready: Default::default() }
    }

    /// The next frame; `None` at an end that was no accident.
    pub async fn next(&mut self) -> Option<Frame> {
        while self.ready.is_empty() {
            match self.pieces.next().await {
                Some(piece) => self.ready.extend(self.parser.feed(&piece.expect("the connection broke"))),
                None => {
                    std::mem::take(&mut self.parser).finish();
                    return None;
                }
            }
        }
        self.ready.pop_front()
    }

    /// Reads on until some text of the answer has come.
    pub async fn until_text(&mut self) -> String {
        loop {
            let frame = self.next().await.expect("the stream ended before any text");
            let text = text(&[frame]);
            if !text.is_empty() {
                return text;
            }
        }
    }

    /// All frames that are left.
    pub async fn rest(mut self) -> Vec<Frame> {
        let mut all = Vec::new();
        while let Some(frame) = self.next().await {
            all.push(frame);
        }
        all
    }
}

/// The text in chunks of either endpoint.
pub fn text(frames: &[Frame]) -> String {
    let piece = |frame: &Frame| {
        if frame.is_done() {
            return None;
        }
        let choice = frame.json()["choices"][0].take();
        choice["delta"]["content"].as_str().or_else(|| choice["text"].as_str()).map(str::to_owned)
    };
    frames.iter().filter_map(piece).collect()
}

#[test]
fn the_reader_puts_frames_together_from_pieces_of_any_size() {
    let text = ": comment\n\ndata: {\"text\":\"héllo 🌍\"}\n\ndata: [DONE]\n\n";
    for size in 1..text.len() {
        let mut parser = Parser::default();
        let frames: Vec<Frame> = text.as_bytes().chunks(size).flat_map(|piece| parser.feed(piece)).collect();
        parser.finish();
        assert_eq!(frames.len(), 3);
        assert_eq!(frames[1].json()["text"], "héllo 🌍");
        assert!(frames[2].is_done());
    }
}
