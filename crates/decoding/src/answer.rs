//! The text of an answer, out of the bytes of its tokens.

use crate::{Matched, StopMatcher, Utf8Stream};

/// Bytes in; text out that cuts no character in two and lets no stop text through.
#[derive(Debug)]
pub struct AnswerText {
    bytes: Utf8Stream,
    stops: StopMatcher,
}

impl AnswerText {
    /// For an answer that one of `stops` ends.
    pub fn new(stops: &[String]) -> Self {
        Self { bytes: Utf8Stream::default(), stops: StopMatcher::new(stops) }
    }

    /// Takes a token's bytes; gives what may go out by now, or the last text before a stop text.
    pub fn push(&mut self, bytes: &[u8]) -> Matched {
        let piece = self.bytes.push(bytes);
        self.stops.push(&piece)
    }

    /// What was held back, once it is known that no more follows.
    pub fn finish(&mut self) -> String {
        let piece = self.bytes.finish();
        match self.stops.push(&piece) {
            Matched::Stop(text) => text,
            Matched::Text(text) => text + &self.stops.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_text_is_found_in_characters_that_came_in_pieces() {
        let mut text = AnswerText::new(&["é!".to_owned()]);
        assert_eq!(text.push(b"caf\xc3"), Matched::Text("caf".into()));
        assert_eq!(text.push(b"\xa9"), Matched::Text(String::new()));
        assert_eq!(text.push(b"! and more"), Matched::Stop(String::new()));
    }

    #[test]
    fn half_a_character_and_half_a_stop_text_come_out_at_the_end() {
        let mut text = AnswerText::new(&["END".to_owned()]);
        assert_eq!(text.push(b"abE"), Matched::Text("ab".into()));
        assert_eq!(text.push(b"N\xf0\x9f"), Matched::Text(String::new()));
        assert_eq!(text.finish(), "EN\u{fffd}");
    }
}
