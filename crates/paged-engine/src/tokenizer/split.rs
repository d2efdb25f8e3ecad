//! How a text is cut into words before merging: one pattern for each family of vocabularies, named
//! by `tokenizer.ggml.pre`.

use fancy_regex::Regex;

use crate::Error;

#[derive(Debug)]
pub struct Splitter(Regex);

/// GPT-2's own pattern.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Llama 3's: numbers in groups of three.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2's: every digit for itself.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The pattern of a family; a file that names none is of GPT-2's time.
pub fn pattern(pre: Option<&str>) -> Option<&'static str> {
    match pre {
        None | Some("gpt-2" | "default") => Some(GPT2),
        Some("llama-bpe" | "llama3" | "llama-v3") => Some(LLAMA3),
        Some("qwen2") => Some(QWEN2),
        Some(_) => None,
    }
}

impl Splitter {
    pub fn of(pre: Option<&str>) -> Result<Self, Error> {
        let pattern = pattern(pre).ok_or_else(|| Error::Unsupported("an unknown pre-tokenizer".into()))?;
        Regex::new(pattern).map(Self).map_err(|error| Error::Internal(error.to_string()))
    }

    /// Calls `word` with each word of `text`; together they are the text.
    pub fn split<'t>(&self, text: &'t str, mut word: impl FnMut(&'t str)) {
        let mut from = 0;
        for found in self.0.find_iter(text).map_while(Result::ok) {
            if found.start() > from {
                word(&text[from..found.start()]);
            }
            word(found.as_str());
            from = found.end();
        }
        if from < text.len() {
            word(&text[from..]);
        }
    }
}
