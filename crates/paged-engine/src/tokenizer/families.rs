//! The families of byte-level vocabularies, by the names that files give them in
//! `tokenizer.ggml.pre`.
//!
//! Names and steps follow `llama-vocab.cpp` of <https://github.com/ggml-org/llama.cpp>. A name that is
//! not here is refused: a text that is cut otherwise than in training gives other tokens, and the
//! answers get worse without a word.

use super::characters::{Class, class, is_letter, is_newline, is_number, is_punctuation, is_space};
use super::deepseek_llm;
use super::split::{Contractions, Letters, Runs, Step, Words};

/// How texts are made ready for merging.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    pub steps: &'static [Step],
    /// A word that is a token is taken whole, whatever the merges say.
    pub whole_words: bool,
    /// Whether texts begin with the start token, if the file does not say.
    pub starts: bool,
}

/// The family of this name; a file that names none is of `default`.
pub fn family(pre: Option<&str>) -> Option<Family> {
    let plain = |steps| Some(Family { steps, whole_words: false, starts: false });
    match pre.unwrap_or("default") {
        "default" | "" => plain(DEFAULT),
        "gpt-2" | "phi-2" | "jina-es" | "jina-de" | "jina-v2-es" | "jina-v2-de" | "gigachat" | "a.x-4.0" | "mellum"
        | "modern-bert" | "mpt" | "olmo" | "jais" | "trillion" | "granite-docling" | "exaone4" => plain(GPT2),
        "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone" | "minerva-7b" | "mellum2" => {
            plain(SMOLLM)
        }
        "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "falcon-h1" | "pixtral" | "midm-2.0" | "lfm2"
        | "jina-v5-nano" => Some(Family { steps: LLAMA3, whole_words: true, starts: true }),
        "dbrx" | "smaug-bpe" | "chatglm-bpe" => plain(LLAMA3),
        "glm4" | "glm5" => Some(Family { steps: LLAMA3, whole_words: true, starts: false }),
        "qwen2" | "deepseek-r1-qwen" | "kormo" | "f2llmv2" | "megrez" | "stablelm2" | "hunyuan" | "solar-open"
        | "grok-2" => plain(QWEN2),
        "qwen35" => plain(QWEN35),
        "ufakzeka" => plain(UFAKZEKA),
        "seed-coder" => plain(SEED_CODER),
        "minicpm5" => Some(Family { steps: MINICPM5, whole_words: true, starts: false }),
        "tekken" => Some(Family { steps: TEKKEN, whole_words: true, starts: true }),
        "gpt-4o" | "llama4" | "kanana2" | "talkie" | "minimax-m2" => plain(GPT4O),
        "falcon" => plain(FALCON),
        "deepseek-llm" => plain(DEEPSEEK_LLM),
        "deepseek-coder" => plain(DEEPSEEK_CODER),
        "deepseek-v3" | "hunyuan-dense" | "joyai-llm" | "hy_v4" => plain(DEEPSEEK3),
        "viking" => plain(VIKING),
        "poro-chat" | "bloom" | "gpt3-finnish" => plain(PORO),
        _ => None,
    }
}

const NEWLINES: &[char] = &['\r', '\n'];
const NEWLINES_AND_SLASH: &[char] = &['\r', '\n', '/'];

const WORDS: Words =
    Words { letters: Letters::Any, contractions: Contractions::Alone, digits: usize::MAX, tail: NEWLINES };

const GPT2: &[Step] = &[Step::Gpt2];
const LLAMA3: &[Step] = &[Step::Words(Words { digits: 3, ..WORDS })];
const QWEN2: &[Step] = &[Step::Words(Words { digits: 1, ..WORDS })];
const QWEN35: &[Step] = &[Step::Words(Words { digits: 1, letters: Letters::WithMarks, ..WORDS })];
const UFAKZEKA: &[Step] = &[Step::Words(Words { digits: 1, contractions: Contractions::None, ..WORDS })];
const SEED_CODER: &[Step] = &[Step::Words(Words { digits: 1, tail: &[], ..WORDS })];
const MINICPM5: &[Step] = &[numbers(1, 3), Step::Words(WORDS)];
const TEKKEN: &[Step] = &[Step::Words(Words {
    letters: Letters::Cased,
    contractions: Contractions::None,
    digits: 1,
    tail: NEWLINES_AND_SLASH,
})];
const GPT4O: &[Step] = &[Step::Words(Words {
    letters: Letters::Cased,
    contractions: Contractions::WithWord,
    digits: 3,
    tail: NEWLINES_AND_SLASH,
})];
const SMOLLM: &[Step] = &[numbers(1, 1), Step::Gpt2];
const DEFAULT: &[Step] = &[
    runs(no_lead, |character| class(character) == Class::Punctuation || "$+<=>^~|".contains(character)),
    Step::Gpt2,
    numbers(1, usize::MAX),
    THREE_DIGITS,
];
const FALCON: &[Step] = &[
    runs(no_lead, |character| class(character) == Class::Punctuation || "$+<=>^~|`".contains(character)),
    Step::Gpt2,
    THREE_DIGITS,
];
const DEEPSEEK_LLM: &[Step] = &[
    ONE_NEWLINE,
    runs(is_space, deepseek_llm::is_cased),
    runs(is_space, deepseek_llm::is_sign),
    Step::SpacesAtTheEnd,
    EAST_ASIAN,
    numbers(1, usize::MAX),
];
const DEEPSEEK_CODER: &[Step] =
    &[ONE_NEWLINE, runs(is_space, is_letter), runs(is_space, is_punctuation), EAST_ASIAN, numbers(1, 1)];
const DEEPSEEK3: &[Step] = &[
    numbers(1, 3),
    runs(no_lead, |character| matches!(character, '\u{3040}'..='\u{30ff}' | '\u{4e00}'..='\u{9fa5}')),
    Step::DeepSeek3,
];
const PORO: &[Step] = &[runs(is_blank, |character| !is_space(character) && !"(|.,!?…。，、।۔،)".contains(character))];
const VIKING: &[Step] = &[PORO[0], numbers(1, 1)];

/// `[\r\n]`
const ONE_NEWLINE: Step = Step::Runs(Runs { lead: no_lead, class: is_newline, least: 1, most: 1 });
/// `[一-龥ࠀ-一가-퟿]+`; whitespace from in between does not count.
const EAST_ASIAN: Step = runs(no_lead, |character| {
    matches!(character, '\u{800}'..='\u{9fa5}' | '\u{ac00}'..='\u{d7ff}') && !is_space(character)
});
/// `[0-9][0-9][0-9]`
const THREE_DIGITS: Step = Step::Runs(Runs { lead: no_lead, class: |c| c.is_ascii_digit(), least: 3, most: 3 });

const fn numbers(least: usize, most: usize) -> Step {
    Step::Runs(Runs { lead: no_lead, class: is_number, least, most })
}

const fn runs(lead: fn(char) -> bool, class: fn(char) -> bool) -> Step {
    Step::Runs(Runs { lead, class, least: 1, most: usize::MAX })
}

fn no_lead(_: char) -> bool {
    false
}

fn is_blank(character: char) -> bool {
    character == ' '
}
