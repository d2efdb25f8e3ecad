//! Text out of a stream of bytes, never cutting a character in two.
//!
//! Tokens are pieces of bytes, not of characters: an emoji may be spread over four of them.

/// Bytes in, whole characters out.
#[derive(Debug, Default)]
pub struct Utf8Stream {
    /// The beginning of a character, three bytes at most.
    held: Vec<u8>,
}

impl Utf8Stream {
    /// Takes the next bytes and gives the text that is certain by now. Bytes that can never become
    /// a character come out as U+FFFD, so that one bad token does not silence the rest.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let mut text = String::new();
        loop {
            let (valid, bad) = match std::str::from_utf8(&self.held) {
                Ok(all) => {
                    text.push_str(all);
                    self.held.clear();
                    return text;
                }
                Err(error) => (error.valid_up_to(), error.error_len()),
            };
            text.push_str(&String::from_utf8_lossy(&self.held[..valid]));
            // No length means that the bytes end inside a character.
            let Some(bad) = bad else {
                self.held.drain(..valid);
                return text;
            };
            text.push(char::REPLACEMENT_CHARACTER);
            self.held.drain(..valid + bad);
        }
    }

    /// Whether `next` cannot continue the character that is held, so that U+FFFD will stand before
    /// what begins with it.
    pub fn breaks(&self, next: u8) -> bool {
        let bytes = [self.held.as_slice(), &[next]].concat();
        // An error with a length is bytes that never become a character, whatever follows.
        let broken = std::str::from_utf8(&bytes).is_err_and(|error| error.error_len().is_some());
        !self.held.is_empty() && broken
    }

    /// What is left when no more bytes follow.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.held)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_character_over_four_tokens_comes_out_once_and_whole() {
        let mut stream = Utf8Stream::default();
        let pieces: Vec<String> = "🦀".bytes().map(|byte| stream.push(&[byte])).collect();
        assert_eq!(pieces, ["", "", "", "🦀"]);
        assert_eq!(stream.finish(), "");
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced_and_do_not_block() {
        let mut stream = Utf8Stream::default();
        assert_eq!(stream.push(b"a\xffb\xe2\x82"), "a\u{fffd}b");
        assert_eq!(stream.push(b"\xacc"), "€c");
        assert_eq!(stream.push(b"\xe2"), "");
        assert_eq!(stream.finish(), "\u{fffd}");
    }

    #[test]
    fn what_breaks_a_character_is_known_before_it_comes() {
        let mut stream = Utf8Stream::default();
        assert!(!stream.breaks(b'a') && !stream.breaks(0xff), "nothing is held");
        stream.push(b"\xe2\x82");
        assert!(!stream.breaks(0xac), "the end of a euro sign");
        assert!(stream.breaks(b'a') && stream.breaks(0xe2) && stream.breaks(0xff));
        assert_eq!(stream.push(b"a"), "\u{fffd}a");
    }

    proptest! {
        #[test]
        fn any_split_gives_what_the_whole_gives(bytes: Vec<u8>, cut in 0usize..64) {
            let mut stream = Utf8Stream::default();
            let (left, right) = bytes.split_at(cut.min(bytes.len()));
            let text = stream.push(left) + &stream.push(right) + &stream.finish();
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
        }
    }
}
