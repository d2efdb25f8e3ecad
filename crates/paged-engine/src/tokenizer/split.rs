//! How a text is cut into words before merging: each family's patterns, as scanners.
//!
//! A pre-tokenizer is a list of steps; each cuts the pieces of the one before it. A step finds its
//! pattern again and again, and what lies between two finds is a piece as well. The scanners read
//! every character a bounded number of times, so a text without spaces costs no more than another.
//!
//! The patterns are written above the scanners in the notation of the models' `tokenizer.json`; what
//! llama.cpp makes of them (`llama-vocab.cpp`, `unicode.cpp` in
//! <https://github.com/ggml-org/llama.cpp>) decides where the two differ.

use super::characters::{Class, class, first, is_letter, is_newline, is_number, is_sign, is_space, run};

/// One pattern.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// GPT-2's words.
    Gpt2,
    /// The words of Llama 3, Qwen 2, Tekken, GPT-4o and those after them.
    Words(Words),
    /// DeepSeek 3's words.
    DeepSeek3,
    /// Runs of one class of characters.
    Runs(Runs),
    /// `\s+$`
    SpacesAtTheEnd,
}

/// `contraction | [^\r\n\p{L}\p{N}]?letters | \p{N}{1,digits} | ?[^\s\p{L}\p{N}]+[tail]* |
/// \s*[\r\n]+ | \s+(?!\S) | \s+`
#[derive(Clone, Copy, Debug)]
pub struct Words {
    pub letters: Letters,
    pub contractions: Contractions,
    pub digits: usize,
    /// What may follow signs in the same piece.
    pub tail: &'static [char],
}

/// What a word is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Letters {
    /// `\p{L}+`
    Any,
    /// `[\p{L}\p{M}]+`; marks are then no signs.
    WithMarks,
    /// Upper case, then lower case: `U*L+|U+L*`, where a letter outside ASCII is of both.
    Cased,
}

/// `(?i:'s|'t|'re|'ve|'m|'ll|'d)`, ASCII only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contractions {
    None,
    /// A piece of their own.
    Alone,
    /// The end of the word before them.
    WithWord,
}

/// `lead?class{least,most}`
#[derive(Clone, Copy, Debug)]
pub struct Runs {
    /// A character that may stand before the run.
    pub lead: fn(char) -> bool,
    pub class: fn(char) -> bool,
    pub least: usize,
    pub most: usize,
}

/// Calls `word` with each piece of `text`; together they are the text.
pub fn split<'t>(steps: &[Step], text: &'t str, word: &mut dyn FnMut(&'t str)) {
    let Some((step, later)) = steps.split_first() else { return word(text) };
    let (mut gap, mut at) = (0, 0);
    while let Some((character, _)) = first(&text[at..]) {
        let Some(length) = step.next(&text[at..]) else {
            at += character.len_utf8();
            continue;
        };
        if gap < at {
            split(later, &text[gap..at], word);
        }
        split(later, &text[at..at + length], word);
        at += length;
        gap = at;
    }
    if gap < text.len() {
        split(later, &text[gap..], word);
    }
}

impl Step {
    /// Bytes of the pattern's match at the beginning of `text`, which is not empty.
    fn next(&self, text: &str) -> Option<usize> {
        match self {
            Self::Gpt2 => gpt2(text),
            Self::Words(words) => words.next(text),
            Self::DeepSeek3 => deepseek3(text),
            Self::Runs(runs) => runs.next(text),
            Self::SpacesAtTheEnd => Some(run(text, is_space)).filter(|length| *length == text.len()),
        }
    }
}

/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
fn gpt2(text: &str) -> Option<usize> {
    if let Some(length) = contraction(text, |byte| byte) {
        return Some(length);
    }
    let body = text.strip_prefix(' ').unwrap_or(text);
    let space = text.len() - body.len();
    match first(body).map(|(character, _)| class(character)) {
        None | Some(Class::Space) => spaces(text, false),
        Some(Class::Letter) => Some(space + run(body, is_letter)),
        Some(Class::Number) => Some(space + run(body, is_number)),
        Some(_) => Some(space + run(body, is_sign)),
    }
}

impl Words {
    fn next(&self, text: &str) -> Option<usize> {
        let alone = self.contractions == Contractions::Alone;
        if let Some(length) = alone.then(|| contraction(text, |byte| byte.to_ascii_lowercase())).flatten() {
            return Some(length);
        }
        self.word(text).or_else(|| self.number(text)).or_else(|| self.signs(text)).or_else(|| spaces(text, true))
    }

    /// `[^\r\n\p{L}\p{N}]?letters`
    fn word(&self, text: &str) -> Option<usize> {
        let (character, rest) = first(text)?;
        let before = match class(character) {
            Class::Letter => 0,
            Class::Number => return None,
            _ if is_newline(character) => return None,
            _ if first(rest).is_some_and(|(next, _)| self.is_letter(next)) => character.len_utf8(),
            Class::Mark if self.is_letter(character) => 0,
            _ => return None,
        };
        let word = &text[before..];
        let length = match self.letters {
            Letters::Cased => cased(word),
            Letters::Any | Letters::WithMarks => run(word, |character| self.is_letter(character)),
        };
        let end = before + length;
        let suffix = (self.contractions == Contractions::WithWord)
            .then(|| contraction(&text[end..], |byte| byte.to_ascii_lowercase()))
            .flatten();
        Some(end + suffix.unwrap_or(0))
    }

    fn is_letter(&self, character: char) -> bool {
        match class(character) {
            Class::Letter => true,
            Class::Mark => self.letters == Letters::WithMarks,
            _ => false,
        }
    }

    fn number(&self, text: &str) -> Option<usize> {
        let digits = text.chars().take_while(|character| is_number(*character)).take(self.digits);
        Some(digits.map(char::len_utf8).sum()).filter(|length| *length > 0)
    }

    /// ` ?[^\s\p{L}\p{N}]+[tail]*`
    fn signs(&self, text: &str) -> Option<usize> {
        let body = text.strip_prefix(' ').unwrap_or(text);
        let signs = run(body, |character| is_sign(character) && !self.is_letter(character));
        if signs == 0 {
            return None;
        }
        let tail = run(&body[signs..], |character| self.tail.contains(&character));
        Some(text.len() - body.len() + signs + tail)
    }
}

/// `U*L+|U+L*` at the beginning of a text that starts with a letter. A letter of ASCII has one case,
/// every other is of both; the first form wins where it matches at all, even if it is shorter.
fn cased(text: &str) -> usize {
    let upper = run(text, |character| is_letter(character) && !character.is_ascii_lowercase());
    let lower = run(&text[upper..], |character| is_letter(character) && !character.is_ascii_uppercase());
    if lower > 0 {
        return upper + lower;
    }
    let both = text[..upper].char_indices().rev().find(|(_, character)| !character.is_ascii());
    both.map_or(upper, |(at, character)| at + character.len_utf8())
}

/// `[ASCII punctuation][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|
/// \s*[\r\n]+|\s+(?!\S)|\s+`
fn deepseek3(text: &str) -> Option<usize> {
    let (character, rest) = first(text)?;
    let is_word = |character: char| matches!(class(character), Class::Letter | Class::Mark);
    let is_sign = |character: char| matches!(class(character), Class::Punctuation | Class::Symbol);
    let ascii = run(rest, |character| character.is_ascii_alphabetic());
    if character.is_ascii_punctuation() && ascii > 0 {
        return Some(1 + ascii);
    }
    let may_lead = !is_newline(character) && !is_letter(character) && !is_sign(character);
    let word = run(rest, is_word);
    if is_word(character) || may_lead && word > 0 {
        return Some(character.len_utf8() + word);
    }
    let body = text.strip_prefix(' ').unwrap_or(text);
    match run(body, is_sign) {
        0 => spaces(text, true),
        signs => Some(text.len() - body.len() + signs + run(&body[signs..], is_newline)),
    }
}

impl Runs {
    fn next(&self, text: &str) -> Option<usize> {
        let (character, rest) = first(text)?;
        let led = (self.lead)(character) && first(rest).is_some_and(|(next, _)| (self.class)(next));
        let body = if led { rest } else { text };
        let (mut count, mut length) = (0, 0);
        for character in body.chars().take(self.most).take_while(|character| (self.class)(*character)) {
            (count, length) = (count + 1, length + character.len_utf8());
        }
        (count >= self.least).then_some(text.len() - body.len() + length)
    }
}

/// Bytes of a contraction at the beginning of `text`, its letters brought to one case by `fold`.
fn contraction(text: &str, fold: fn(u8) -> u8) -> Option<usize> {
    let mut bytes = text.strip_prefix('\'')?.bytes().map(fold);
    match (bytes.next()?, bytes.next()) {
        (b's' | b't' | b'm' | b'd', _) => Some(2),
        (b'r' | b'v', Some(b'e')) | (b'l', Some(b'l')) => Some(3),
        _ => None,
    }
}

/// `\s*[\r\n]+|\s+(?!\S)|\s+`, the first only with `newlines`: up to the last newline, or all but
/// the space that belongs to what follows.
fn spaces(text: &str, newlines: bool) -> Option<usize> {
    let length = run(text, is_space);
    let all = &text[..length];
    if let Some(at) = newlines.then(|| all.rfind(is_newline)).flatten() {
        return Some(at + 1);
    }
    let last = all.chars().next_back()?.len_utf8();
    Some(if length < text.len() && length > last { length - last } else { length })
}

#[cfg(test)]
mod tests {
    use super::super::families::family;
    use super::*;

    fn pieces<'t>(pre: &str, text: &'t str) -> Vec<&'t str> {
        let mut all = Vec::new();
        split(family(Some(pre)).unwrap().steps, text, &mut |piece| all.push(piece));
        all
    }

    #[test]
    fn families_differ_in_digits_contractions_and_spaces() {
        let text = "He'LL  pay 12345";
        assert_eq!(pieces("gpt-2", text), ["He", "'", "LL", " ", " pay", " 12345"]);
        assert_eq!(pieces("llama-bpe", text), ["He", "'LL", " ", " pay", " ", "123", "45"]);
        assert_eq!(pieces("qwen2", text), ["He", "'LL", " ", " pay", " ", "1", "2", "3", "4", "5"]);
        assert_eq!(pieces("smollm", text), ["He", "'", "LL", " ", " pay", " ", "1", "2", "3", "4", "5"]);
        assert_eq!(pieces("gpt-4o", text), ["He'LL", " ", " pay", " ", "123", "45"]);
    }

    #[test]
    fn case_ends_a_word_of_tekken_but_not_outside_ascii() {
        assert_eq!(pieces("tekken", "HTMLParser fooBar"), ["HTMLParser", " foo", "Bar"]);
        assert_eq!(pieces("tekken", "日本ABC"), ["日本", "ABC"]);
        assert_eq!(pieces("tekken", "a/\n//b"), ["a", "/\n//", "b"]);
    }

    #[test]
    fn newlines_end_a_run_of_spaces() {
        assert_eq!(pieces("llama-bpe", "a \n\n  b  "), ["a", " \n\n", " ", " b", "  "]);
        assert_eq!(pieces("gpt-2", "a \n\n  b  "), ["a", " \n\n ", " b", "  "]);
    }
}
