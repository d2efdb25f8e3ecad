//! Which tokens begin a text and end an answer.
//!
//! Files name some of them by id; the rest are known by their names, as in `llama-vocab.cpp` of
//! <https://github.com/ggml-org/llama.cpp>, and what is known is a control token whatever type the
//! file gives it.

use gguf::{Header, Value};

use super::vocabulary::{Kind, Vocabulary};

/// The tokens with a role in one vocabulary.
#[derive(Debug)]
pub struct Roles {
    /// Put before a text, if the model wants it.
    pub start: Option<u32>,
    /// Put behind a text, if the model wants it.
    pub finish: Option<u32>,
    /// Any of these ends an answer.
    pub ends: Vec<u32>,
    pub unknown: Option<u32>,
}

/// What holds where the file says nothing.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// Ids of the start, end and unknown tokens.
    pub ids: Option<(u32, u32, u32)>,
    /// Whether texts begin with the start token.
    pub starts: bool,
}

/// Tokens that end an answer, in models of every family.
const ENDS: [&str; 22] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// Tokens for filling in the middle that end an answer too: keys, and names where there is no key.
const FILL_ENDS: [(&str, &[&str]); 3] = [
    ("tokenizer.ggml.fim_pad_token_id", &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"]),
    ("tokenizer.ggml.fim_rep_token_id", &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"]),
    ("tokenizer.ggml.fim_sep_token_id", &["<|file_sep|>"]),
];

/// Tokens for filling in the middle that only have a meaning.
const FILL: [(&[&str], &[&str]); 3] = [
    (
        &["tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id"],
        &[
            "<|fim_prefix|>",
            "<fim-prefix>",
            "<fim_prefix>",
            "<｜fim▁begin｜>",
            "<PRE>",
            "▁<PRE>",
            "<|code_prefix|>",
            "<|prefix|>",
        ],
    ),
    (
        &["tokenizer.ggml.fim_suf_token_id", "tokenizer.ggml.suffix_token_id"],
        &[
            "<|fim_suffix|>",
            "<fim-suffix>",
            "<fim_suffix>",
            "<｜fim▁hole｜>",
            "<SUF>",
            "▁<SUF>",
            "<|code_suffix|>",
            "<|suffix|>",
        ],
    ),
    (
        &["tokenizer.ggml.fim_mid_token_id", "tokenizer.ggml.middle_token_id"],
        &[
            "<|fim_middle|>",
            "<fim-middle>",
            "<fim_middle>",
            "<｜fim▁end｜>",
            "<MID>",
            "▁<MID>",
            "<|code_middle|>",
            "<|middle|>",
        ],
    ),
];

/// Control tokens by their looks that are written out all the same.
const WRITTEN: [&str; 4] = ["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

/// Finds the roles, and corrects the kinds of tokens that are known by name.
pub fn roles(header: &Header, vocabulary: &mut Vocabulary, defaults: Defaults) -> Roles {
    let flag = |key: &str| header.metadata.get(key).and_then(Value::as_bool);
    let known = |id: &u32| (*id as usize) < vocabulary.len();
    let id = |key: &str| token_at(header, key).filter(known);
    let default = |pick: fn((u32, u32, u32)) -> u32| defaults.ids.map(pick).filter(known);
    let start = id("tokenizer.ggml.bos_token_id").or_else(|| default(|ids| ids.0));
    let end = id("tokenizer.ggml.eos_token_id").or_else(|| default(|ids| ids.1));
    let unknown = id("tokenizer.ggml.unknown_token_id").or_else(|| default(|ids| ids.2));
    let turns = [id("tokenizer.ggml.eot_token_id"), id("tokenizer.ggml.eom_token_id")];
    let mut ends = named_ends(header, vocabulary);
    ends.extend([end].into_iter().chain(turns).flatten());
    except(vocabulary, &mut ends);
    ends.sort_unstable();
    ends.dedup();
    Roles {
        start: start.filter(|_| flag("tokenizer.ggml.add_bos_token").unwrap_or(defaults.starts)),
        finish: end.filter(|_| flag("tokenizer.ggml.add_eos_token").unwrap_or(false)),
        ends,
        unknown,
    }
}

fn token_at(header: &Header, key: &str) -> Option<u32> {
    header.u64(key).ok().and_then(|id| u32::try_from(id).ok())
}

/// The end tokens that are known by name, made control tokens; and the written ones, made written.
fn named_ends(header: &Header, vocabulary: &mut Vocabulary) -> Vec<u32> {
    let mut ends = Vec::new();
    let known =
        |key: &str, vocabulary: &Vocabulary| token_at(header, key).filter(|id| (*id as usize) < vocabulary.len());
    for (key, names) in FILL_ENDS {
        ends.extend(known(key, vocabulary).or_else(|| control(vocabulary, names)));
    }
    for (keys, names) in FILL {
        if !keys.iter().any(|key| known(key, vocabulary).is_some()) {
            control(vocabulary, names);
        }
    }
    ends.extend(ENDS.iter().filter_map(|name| control(vocabulary, &[name])));
    for name in WRITTEN {
        if let Some(id) = vocabulary.id(name) {
            vocabulary.set_kind(id, Kind::UserDefined);
        }
    }
    ends
}

/// The token with the first of these names that there is, now a control token.
fn control(vocabulary: &mut Vocabulary, names: &[&str]) -> Option<u32> {
    let id = names.iter().find_map(|name| vocabulary.id(name))?;
    vocabulary.set_kind(id, Kind::Control);
    Some(id)
}

/// In two formats a name from the list means something else.
fn except(vocabulary: &mut Vocabulary, ends: &mut Vec<u32>) {
    let has = |ends: &[u32], name: &str| vocabulary.id(name).filter(|id| ends.contains(id));
    let calls = has(ends, "<|call|>").or_else(|| has(ends, "<|calls|>")).is_some();
    let harmony = calls && (has(ends, "<|return|>").is_some() || has(ends, "<|flush|>").is_some());
    let marked = has(ends, "<|tool_response>").or_else(|| has(ends, "<|plamo:eos|>")).is_some();
    let message_end = has(ends, "<|end|>").filter(|_| harmony);
    let plain = has(ends, "</s>").filter(|_| marked);
    for (id, kind) in [(message_end, Kind::UserDefined), (plain, Kind::Normal)] {
        if let Some(id) = id {
            ends.retain(|end| *end != id);
            vocabulary.set_kind(id, kind);
        }
    }
}
