//! Stop texts, found over token borders and never let out.

/// Watches generated text for stop texts. Text that may be the beginning of one is held back until
/// the next piece decides.
#[derive(Debug)]
pub struct StopMatcher {
    stops: Vec<String>,
    held: String,
}

/// What became of a piece of text.
#[derive(Debug, PartialEq, Eq)]
pub enum Matched {
    /// This much may go out now.
    Text(String),
    /// A stop text was reached; this is the last text before it.
    Stop(String),
}

impl StopMatcher {
    /// Empty stop texts are ignored.
    pub fn new(stops: &[String]) -> Self {
        Self { stops: stops.iter().filter(|stop| !stop.is_empty()).cloned().collect(), held: String::new() }
    }

    /// Takes the next piece of generated text.
    pub fn push(&mut self, piece: &str) -> Matched {
        self.held.push_str(piece);
        let first = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        if let Some(at) = first {
            let mut text = std::mem::take(&mut self.held);
            text.truncate(at);
            return Matched::Stop(text);
        }
        let keep = self.undecided();
        let tail = self.held.split_off(self.held.len() - keep);
        Matched::Text(std::mem::replace(&mut self.held, tail))
    }

    /// The text still held back, once it is known that no more follows.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Bytes at the end of `held` that are a proper prefix of some stop text.
    fn undecided(&self) -> usize {
        self.stops
            .iter()
            .flat_map(|stop| stop.char_indices().map(move |(at, _)| &stop[..at]))
            .filter(|prefix| self.held.ends_with(prefix))
            .map(str::len)
            .max()
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let stops: Vec<String> = stops.iter().map(|s| s.to_string()).collect();
        let mut matcher = StopMatcher::new(&stops);
        let mut out = String::new();
        for piece in pieces {
            match matcher.push(piece) {
                Matched::Text(text) => out.push_str(&text),
                Matched::Stop(text) => return (out + &text, true),
            }
        }
        (out + &matcher.finish(), false)
    }

    #[test]
    fn a_stop_text_over_token_borders_is_trimmed() {
        assert_eq!(run(&["END"], &["abcE", "N", "Dxyz"]), ("abc".into(), true));
    }

    #[test]
    fn a_beginning_that_comes_to_nothing_is_let_out() {
        assert_eq!(run(&["END"], &["abE", "Nx", "E"]), ("abENxE".into(), false));
    }

    #[test]
    fn the_earliest_of_several_wins() {
        assert_eq!(run(&["yz", "c"], &["abcxyz"]), ("ab".into(), true));
    }

    #[test]
    fn overlapping_beginnings_are_kept() {
        assert_eq!(run(&["aab"], &["a", "a", "a", "b"]), ("a".into(), true));
    }

    #[test]
    fn multibyte_stops_do_not_split_characters() {
        assert_eq!(run(&["é!"], &["caf", "é", "?"]), ("café?".into(), false));
        assert_eq!(run(&["é!"], &["caf", "é", "!"]), ("caf".into(), true));
    }

    #[test]
    fn no_stops_hold_nothing_back() {
        let mut matcher = StopMatcher::new(&[String::new()]);
        assert_eq!(matcher.push("abc"), Matched::Text("abc".into()));
    }
}
