//! Our ids against llama.cpp's, for every family of vocabularies (`vocabularies/README.md`).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gguf::{Header, Value};
use paged_engine::tokenizer::Tokenizer;
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    texts: Vec<String>,
    /// For each family the ids of each text, between spaces.
    byte_level: BTreeMap<String, Vec<String>>,
    sentence_piece: BTreeMap<String, Vec<String>>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vocabularies")
}

fn expected() -> Expected {
    serde_json::from_str(&std::fs::read_to_string(folder().join("ids.json")).unwrap()).unwrap()
}

/// The tokenizer of a file with some of its keys changed.
fn tokenizer<V: Into<Value>>(file: &str, changes: impl IntoIterator<Item = (&'static str, V)>) -> Tokenizer {
    let mut header = Header::read(&folder().join(file)).unwrap();
    let changes = changes.into_iter().map(|(key, value)| (key.to_owned(), value.into()));
    header.metadata.extend(changes);
    Tokenizer::of(&header).unwrap()
}

fn byte_level(pre: &str) -> Tokenizer {
    tokenizer("byte_level.gguf", [("tokenizer.ggml.pre", pre)])
}

fn sentence_piece(variant: &str) -> Tokenizer {
    const FILE: &str = "sentence_piece.gguf";
    match variant {
        "plain" => tokenizer::<Value>(FILE, []),
        "no prefix" => tokenizer(FILE, [("tokenizer.ggml.add_space_prefix", false)]),
        "phi-3" => tokenizer(FILE, [("general.name", "Phi-3 mini")]),
        other => panic!("{other}"),
    }
}

/// Texts whose ids differ, with both.
fn differences(tokenizer: &Tokenizer, texts: &[String], lines: &[String]) -> Vec<(String, Vec<u32>, Vec<u32>)> {
    assert_eq!(texts.len(), lines.len());
    let ids = |line: &String| line.split_whitespace().map(|id| id.parse().unwrap()).collect();
    let both = texts.iter().zip(lines).map(|(text, line)| (text.clone(), tokenizer.encode(text), ids(line)));
    both.filter(|(_, ours, theirs): &(_, _, Vec<u32>)| ours != theirs).collect()
}

#[test]
fn byte_level_ids_are_llama_cpps_in_every_family() {
    let expected = expected();
    assert!(expected.texts.len() > 50 && expected.byte_level.len() == 18);
    for (pre, lines) in &expected.byte_level {
        assert_eq!(differences(&byte_level(pre), &expected.texts, lines), [], "{pre}");
    }
}

#[test]
fn sentence_piece_ids_are_llama_cpps_with_and_without_the_space_and_for_phi_3() {
    let expected = expected();
    assert_eq!(expected.sentence_piece.len(), 3);
    for (variant, lines) in &expected.sentence_piece {
        assert_eq!(differences(&sentence_piece(variant), &expected.texts, lines), [], "{variant}");
    }
}

#[test]
fn the_families_can_be_told_apart_by_the_texts() {
    let expected = expected();
    let alike: Vec<_> = expected.byte_level.iter().collect();
    for (at, (pre, lines)) in alike.iter().enumerate() {
        assert!(alike[at + 1..].iter().all(|(_, others)| others != lines), "{pre} is like another");
    }
}

#[test]
fn a_text_without_special_tokens_comes_back_whole_from_every_family() {
    let expected = expected();
    let tokenizers = expected.byte_level.keys().map(|pre| byte_level(pre));
    let tokenizers = tokenizers.chain(["plain", "no prefix"].map(sentence_piece));
    for (at, tokenizer) in tokenizers.enumerate() {
        // `▁` is SentencePiece's own sign for a space. Special tokens have no text, or a space behind
        // them that was not there.
        let plain = |text: &&String| !["▁", "<", "  \n"].iter().any(|special| text.contains(special));
        for text in expected.texts.iter().filter(plain) {
            assert_eq!(tokenizer.decode(&tokenizer.encode(text)).unwrap(), *text, "{at}");
        }
    }
}

#[test]
fn an_answer_comes_out_in_whole_characters_whatever_tokens_they_lie_in() {
    let text = "日本語 👨\u{200d}👩\u{200d}👧 שָׁלוֹם 𝕳𝖊 é";
    for tokenizer in [byte_level("qwen2"), sentence_piece("no prefix")] {
        let mut stream = decoding::Utf8Stream::default();
        let pieces: String = tokenizer.encode(text).iter().map(|id| stream.push(tokenizer.bytes(*id))).collect();
        assert_eq!((pieces.as_str(), stream.finish().as_str()), (text, ""));
    }
}

#[test]
fn a_long_text_without_a_space_does_not_take_the_square_of_its_length() {
    for tokenizer in [byte_level("gpt-2"), sentence_piece("plain")] {
        for unit in ["ab", "x", " ", "\n", "漢", "=-"] {
            let ids = tokenizer.encode(&unit.repeat(200_000 / unit.len()));
            assert!(ids.len() > 10_000, "{unit:?}");
        }
    }
}
