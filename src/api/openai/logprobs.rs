//! Log probabilities on their way out: beside the text they belong to, in OpenAI's two shapes.

use std::collections::VecDeque;

use decoding::Utf8Stream;

use super::types::{ChatLogprobs, ChatTokenLogprob, CompletionLogprobs, TopLogprob};
use crate::engine::{FinishReason, Logprob, Piece, TokenLogprobs};

/// OpenAI's number for what is all but impossible; JSON has no infinity.
const LEAST: f32 = -9999.0;

/// Holds back what is to be told of tokens until their text goes out, so that a stop text stays
/// inside here as well.
#[derive(Debug, Default)]
pub struct Aligned {
    /// With the place in the text, in bytes, where each begins.
    waiting: VecDeque<(usize, TokenLogprobs)>,
    /// Makes text of bytes as the engines do: what is no character has the length of U+FFFD.
    bytes: Utf8Stream,
    generated: usize,
    sent: usize,
}

impl Aligned {
    /// Takes what is told of the next token, and the text that goes out with it; gives what goes
    /// out beside that text.
    pub fn token(&mut self, told: Option<TokenLogprobs>, text: &str) -> Vec<TokenLogprobs> {
        if let Some(told) = told {
            let start = match &told.chosen.piece {
                Piece::Text(bytes) => self.generate(bytes),
                Piece::Special(_) => self.generated,
            };
            self.waiting.push_back((start, told));
        }
        self.release(text)
    }

    /// What goes out beside the last text. Behind a stop there is nothing more to tell of.
    pub fn finish(&mut self, text: &str, reason: FinishReason) -> Vec<TokenLogprobs> {
        let mut out = self.release(text);
        if reason == FinishReason::Length {
            out.extend(self.waiting.drain(..).map(|(_, told)| told));
        }
        out
    }

    /// Counts the text of a token's bytes; gives the place where it begins, which is that of the
    /// whole character for a part of one.
    fn generate(&mut self, bytes: &[u8]) -> usize {
        let broken = bytes.first().is_some_and(|first| self.bytes.breaks(*first));
        let before = if broken { char::REPLACEMENT_CHARACTER.len_utf8() } else { 0 };
        let start = self.generated + before;
        self.generated += self.bytes.push(bytes).len();
        start
    }

    fn release(&mut self, text: &str) -> Vec<TokenLogprobs> {
        self.sent += text.len();
        let count = self.waiting.iter().take_while(|(start, _)| *start < self.sent).count();
        self.waiting.drain(..count).map(|(_, told)| told).collect()
    }
}

/// The shape of the chat endpoint; `None` for no tokens.
pub fn chat(told: &[TokenLogprobs]) -> Option<ChatLogprobs> {
    let content: Vec<ChatTokenLogprob> = told.iter().map(chat_token).collect();
    (!content.is_empty()).then_some(ChatLogprobs { content, refusal: None })
}

fn chat_token(told: &TokenLogprobs) -> ChatTokenLogprob {
    let top = |one: &Logprob| TopLogprob {
        token: lossy(&one.piece),
        logprob: one.logprob.max(LEAST),
        bytes: bytes(&one.piece).to_vec(),
    };
    let TopLogprob { token, logprob, bytes } = top(&told.chosen);
    ChatTokenLogprob { token, logprob, bytes, top_logprobs: told.top.iter().map(top).collect() }
}

/// The shape of the completions endpoint; `None` for no tokens. `offset` is the place of the first,
/// in characters, and becomes that of the next.
pub fn completion(told: &[TokenLogprobs], offset: &mut usize) -> Option<CompletionLogprobs> {
    let mut out = CompletionLogprobs::default();
    for told in told {
        out.tokens.push(exact(&told.chosen.piece));
        out.token_logprobs.push(told.chosen.logprob.max(LEAST));
        let all = told.top.iter().chain([&told.chosen]);
        out.top_logprobs.push(all.map(|one| (exact(&one.piece), one.logprob.max(LEAST))).collect());
        out.text_offset.push(*offset);
        *offset += match &told.chosen.piece {
            // Counted where they begin, so that a character in pieces counts once.
            Piece::Text(bytes) => bytes.iter().filter(|byte| **byte & 0xC0 != 0x80).count(),
            Piece::Special(_) => 0,
        };
    }
    (!out.tokens.is_empty()).then_some(out)
}

fn bytes(piece: &Piece) -> &[u8] {
    match piece {
        Piece::Text(bytes) => bytes,
        Piece::Special(name) => name.as_bytes(),
    }
}

fn lossy(piece: &Piece) -> String {
    String::from_utf8_lossy(bytes(piece)).into_owned()
}

/// A text no two tokens share: parts of characters are written as their bytes.
fn exact(piece: &Piece) -> String {
    let bytes = bytes(piece);
    std::str::from_utf8(bytes).map_or_else(
        |_| bytes.iter().fold(String::from("bytes:"), |text, byte| text + &format!("\\x{byte:02x}")),
        str::to_owned,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(piece: Piece) -> TokenLogprobs {
        TokenLogprobs { chosen: Logprob { id: 0, piece, logprob: f32::NEG_INFINITY }, top: Vec::new() }
    }

    fn text(text: &[u8]) -> Option<TokenLogprobs> {
        Some(told(Piece::Text(text.to_vec())))
    }

    fn tokens(out: &[TokenLogprobs]) -> Vec<String> {
        out.iter().map(|told| exact(&told.chosen.piece)).collect()
    }

    #[test]
    fn what_is_held_back_of_the_text_is_held_back_of_the_tokens() {
        let mut aligned = Aligned::default();
        assert_eq!(tokens(&aligned.token(text(b"ab"), "ab")), ["ab"]);
        assert_eq!(tokens(&aligned.token(text(b"c E"), "c ")), ["c E"], "it begins in the text that goes out");
        assert!(aligned.token(text(b"N"), "").is_empty());
        let (waiting, sent) = (aligned.waiting.clone(), aligned.sent);
        let mut cut = Aligned { waiting, sent, ..Aligned::default() };
        assert!(cut.finish("", FinishReason::Stop).is_empty(), "a stop text is not told of");
        assert_eq!(tokens(&aligned.finish("EN", FinishReason::Length)), ["N"]);
    }

    #[test]
    fn bytes_that_are_no_text_let_nothing_out_early() {
        // Each becomes one U+FFFD, which is longer than they are.
        for (bad, sent) in [(b"\xff".as_slice(), "\u{fffd}"), (b"a\xff\xff", "a\u{fffd}\u{fffd}")] {
            let mut aligned = Aligned::default();
            assert_eq!(aligned.token(text(bad), sent).len(), 1);
            assert!(aligned.token(text(b"E"), "").is_empty(), "held back with its text");
            assert!(aligned.finish("", FinishReason::Stop).is_empty());
        }
        // Half a character is told of once it is known that the other half does not come.
        let mut aligned = Aligned::default();
        assert!(aligned.token(text(b"\xe2\x82"), "").is_empty());
        assert_eq!(aligned.token(text(b"E"), "\u{fffd}").len(), 1, "the half, not what comes behind it");
        assert!(aligned.finish("", FinishReason::Stop).is_empty());
    }

    #[test]
    fn the_parts_of_a_character_are_told_of_together_and_with_it() {
        let mut aligned = Aligned::default();
        for part in [b"\xf0".as_slice(), b"\x9f\xa6"] {
            assert!(aligned.token(text(part), "").is_empty());
        }
        assert_eq!(aligned.token(text(b"\x80"), "\u{1f980}").len(), 3);
        assert!(aligned.token(text(b"E"), "").is_empty());
    }

    #[test]
    fn the_token_that_ends_an_answer_is_not_told_of() {
        let mut aligned = Aligned::default();
        assert_eq!(aligned.token(Some(told(Piece::Special("<end>".into()))), "").len(), 0);
        assert_eq!(aligned.finish("", FinishReason::Stop).len(), 0);
    }

    #[test]
    fn parts_of_characters_have_a_place_and_a_name_of_their_own() {
        let all: Vec<TokenLogprobs> =
            [b"a".as_slice(), b"\xc3", b"\xa9", b"!"].map(text).into_iter().flatten().collect();
        let mut offset = 0;
        let out = completion(&all, &mut offset).unwrap();
        assert_eq!(out.tokens, ["a", "bytes:\\xc3", "bytes:\\xa9", "!"]);
        assert_eq!((out.text_offset, offset), (vec![0, 1, 2, 2], 3));
        assert_eq!(out.token_logprobs, [LEAST; 4]);
        assert_eq!(chat(&all).unwrap().content[1].token, "\u{fffd}");
        assert!(chat(&[]).is_none() && completion(&[], &mut offset).is_none());
    }
}
