use gguf::{Array, Writer};
use proptest::prelude::*;

use super::*;

fn open(writer: &Writer) -> Result<Tokenizer, Error> {
    let bytes = writer.to_bytes();
    Tokenizer::of(&Header::parse(bytes.as_slice(), bytes.len() as u64).unwrap())
}

fn strings(names: &[&str]) -> Array {
    Array::String(names.iter().map(|name| (*name).to_owned()).collect())
}

/// All bytes, then a few merges and two special tokens.
fn byte_level(pre: &str) -> Writer {
    let mut names: Vec<String> = (0..=255).map(|byte| alphabet::character(byte).to_string()).collect();
    names.extend(["he", "ll", "hell", "lo", "Ġw", "<|im_start|>", "<|im_end|>"].map(str::to_owned));
    let kinds = (0..names.len()).map(|id| if id >= names.len() - 2 { 3 } else { 1 }).collect();
    Writer::new()
        .key("tokenizer.ggml.model", "gpt2")
        .key("tokenizer.ggml.pre", pre)
        .key("tokenizer.ggml.tokens", Array::String(names))
        .key("tokenizer.ggml.token_type", Array::I32(kinds))
        .key("tokenizer.ggml.merges", strings(&["h e", "l l", "he ll", "l o", "Ġ w", "Ġw o", "Ġwo r"]))
        .key("tokenizer.ggml.bos_token_id", 261u32)
        .key("tokenizer.ggml.eos_token_id", 262u32)
}

/// Three special tokens, all bytes, then pieces with scores.
fn sentence_piece() -> Writer {
    let pieces = [("▁", -3.0), ("h", -4.0), ("e", -5.0), ("he", -1.0), ("l", -6.0), ("▁h", -0.5)];
    let mut names = vec!["<unk>".to_owned(), "<s>".to_owned(), "</s>".to_owned()];
    names.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    names.extend(pieces.iter().map(|(name, _)| (*name).to_owned()));
    let kinds = (0..names.len()).map(|id| [2, 3, 3].get(id).copied().unwrap_or(if id < 259 { 6 } else { 1 })).collect();
    let scores = [0.0; 259].into_iter().chain(pieces.iter().map(|(_, score)| *score)).collect();
    Writer::new()
        .key("tokenizer.ggml.model", "llama")
        .key("tokenizer.ggml.tokens", Array::String(names))
        .key("tokenizer.ggml.token_type", Array::I32(kinds))
        .key("tokenizer.ggml.scores", Array::F32(scores))
}

fn names<'t>(tokenizer: &'t Tokenizer, text: &str) -> Vec<&'t str> {
    tokenizer.encode(text).iter().filter_map(|id| tokenizer.name(*id)).collect()
}

#[test]
fn merges_apply_in_the_order_of_their_ranks() {
    let tokenizer = open(&byte_level("qwen2")).unwrap();
    assert_eq!(names(&tokenizer, "hello w"), ["hell", "o", "Ġw"]);
}

#[test]
fn a_merge_into_no_token_falls_apart_into_bytes() {
    let tokenizer = open(&byte_level("qwen2")).unwrap();
    // Both ` wo` and ` wor` are made by merges, and neither is a token.
    assert_eq!(names(&tokenizer, " world"), ["Ġ", "w", "o", "r", "l", "d"]);
}

#[test]
fn special_names_become_their_tokens_and_have_no_text() {
    let tokenizer = open(&byte_level("qwen2")).unwrap();
    assert_eq!(tokenizer.encode("<|im_start|>a<|im_end|>"), [261, u32::from(b'a'), 262]);
    assert_eq!(tokenizer.decode(&[261, u32::from(b'a'), 262]).unwrap(), "a");
    assert!(tokenizer.is_end(262) && !tokenizer.is_end(261));
    assert!(tokenizer.decode(&[263]).is_err());
}

#[test]
fn unknown_families_are_refused_by_name() {
    assert!(supported("gpt2", Some("mystery")).unwrap_err().contains("`mystery`"));
    assert!(supported("bert", None).unwrap_err().contains("`bert` tokenizers"));
    assert_eq!((supported("gpt2", Some("qwen2")), supported("llama", None)), (Ok(()), Ok(())));
}

#[test]
fn the_start_token_is_added_where_the_family_or_the_file_wants_it_and_never_twice() {
    let starts =
        |writer: &Writer, text: &str| open(writer).unwrap().encode(text).iter().filter(|id| **id == 261).count();
    assert_eq!((starts(&byte_level("llama-bpe"), "x"), starts(&byte_level("qwen2"), "x")), (1, 0));
    let told = byte_level("qwen2").key("tokenizer.ggml.add_bos_token", true);
    assert_eq!(starts(&told, "x"), 1);
    let tokenizer = open(&sentence_piece()).unwrap();
    assert_eq!(tokenizer.encode("<s>h"), tokenizer.encode("h"));
    assert_eq!(tokenizer.encode(""), [1]);
}

#[test]
fn the_end_token_is_added_only_where_the_file_wants_it() {
    let told = sentence_piece().key("tokenizer.ggml.add_eos_token", true);
    let tokenizer = open(&told).unwrap();
    assert_eq!(tokenizer.encode("h").last(), Some(&2));
    assert_eq!(tokenizer.encode("h</s>"), tokenizer.encode("h"));
    assert_ne!(open(&sentence_piece()).unwrap().encode("h").last(), Some(&2));
}

#[test]
fn the_best_score_is_joined_first_even_if_more_would_have_fit() {
    let tokenizer = open(&sentence_piece()).unwrap();
    // `▁h` has the best score, so `he` cannot be made any more.
    assert_eq!(names(&tokenizer, "he"), ["<s>", "▁h", "e"]);
    assert_eq!(names(&tokenizer, "lhe é"), ["<s>", "▁", "l", "he", "▁", "<0xC3>", "<0xA9>"]);
}

#[test]
fn the_space_before_a_text_is_put_in_and_taken_out_but_kept_in_an_answer() {
    let tokenizer = open(&sentence_piece()).unwrap();
    let ids = tokenizer.encode("he </s>he");
    assert_eq!(tokenizer.decode(&ids).unwrap(), "he  he");
    assert_eq!(tokenizer.bytes(ids[1]), b" h");
    let plain = open(&sentence_piece().key("tokenizer.ggml.add_space_prefix", false)).unwrap();
    assert_eq!(names(&plain, "he"), ["<s>", "he"]);
    assert_eq!(plain.decode(&plain.encode(" he")).unwrap(), " he");
}

#[test]
fn special_tokens_of_phi_3_take_the_spaces_behind_them() {
    let phi = open(&sentence_piece().key("general.name", "Phi 3 mini, phi-3")).unwrap();
    assert_eq!(phi.encode("h</s> \n h"), phi.encode("h</s>h"));
    assert_ne!(phi.encode("<unk> h"), phi.encode("<unk>h"));
}

#[test]
fn the_longest_special_name_takes_its_place_first() {
    let mut names: Vec<String> = (0..=255).map(|byte| alphabet::character(byte).to_string()).collect();
    names.extend(["abc", "cdef"].map(str::to_owned));
    let kinds = [1; 256].into_iter().chain([4, 4]).collect();
    let writer = Writer::new()
        .key("tokenizer.ggml.model", "gpt2")
        .key("tokenizer.ggml.tokens", Array::String(names))
        .key("tokenizer.ggml.token_type", Array::I32(kinds))
        .key("tokenizer.ggml.merges", Array::String(vec![]));
    let tokenizer = open(&writer).unwrap();
    assert_eq!(tokenizer.encode("abcdefabc"), [u32::from(b'a'), u32::from(b'b'), 257, 256]);
    assert_eq!(tokenizer.decode(&[257, 256]).unwrap(), "cdefabc");
}

#[test]
fn known_names_end_an_answer_whatever_type_they_have() {
    let named = |extra: &[&str]| {
        let names: Vec<String> = (0..=255)
            .map(|byte| alphabet::character(byte).to_string())
            .chain(extra.iter().map(|n| (*n).to_owned()))
            .collect();
        let writer = Writer::new()
            .key("tokenizer.ggml.model", "gpt2")
            .key("tokenizer.ggml.tokens", Array::String(names))
            .key("tokenizer.ggml.merges", Array::String(vec![]));
        let tokenizer = open(&writer).unwrap();
        (256..256 + extra.len() as u32).map(|id| tokenizer.is_end(id)).collect::<Vec<_>>()
    };
    assert_eq!(named(&["<|im_end|>", "<|endoftext|>", "<|fim_pad|>", "<|fim_prefix|>"]), [true, true, true, false]);
    assert_eq!(named(&["<|return|>", "<|call|>", "<|end|>"]), [true, true, false]);
    assert_eq!(named(&["<|tool_response>", "</s>"]), [true, false]);
}

#[test]
fn lists_that_are_too_short_are_errors_that_name_them() {
    let short = [
        (sentence_piece_with("tokenizer.ggml.scores", Array::F32(vec![0.0])), "tokenizer.ggml.scores"),
        (sentence_piece_with("tokenizer.ggml.token_type", Array::I32(vec![1])), "tokenizer.ggml.token_type"),
        (sentence_piece_with("tokenizer.ggml.token_type", Array::F32(vec![1.0])), "tokenizer.ggml.token_type"),
    ];
    for (writer, key) in short {
        assert!(matches!(open(&writer), Err(Error::File(message)) if message.contains(key)), "{key}");
    }
    let no_merges = Writer::new().key("tokenizer.ggml.model", "gpt2").key("tokenizer.ggml.tokens", strings(&["a"]));
    assert!(matches!(open(&no_merges), Err(Error::File(message)) if message.contains("merges")));
}

fn sentence_piece_with(key: &str, value: Array) -> Writer {
    let names = strings(&["<unk>", "<s>"]);
    Writer::new().key("tokenizer.ggml.model", "llama").key("tokenizer.ggml.tokens", names).key(key, value)
}

#[test]
fn memory_grows_with_the_vocabulary() {
    let small = open(&sentence_piece()).unwrap().bytes_held();
    // Three lists of four bytes a token, names and bytes of about six, kinds of one, an index of five.
    assert!((262 * 20..262 * 80).contains(&small), "{small}");
    assert!(open(&byte_level("gpt-2")).unwrap().bytes_held() > 263 * 15);
}

proptest! {
    #[test]
    fn any_text_comes_back_whole(text in "\\PC{0,40}|[ \\n\\t\\rhelow0-9éß中🌍]{0,60}", pre in 0usize..5) {
        let pre = ["llama-bpe", "qwen2", "gpt-2", "tekken", "deepseek-llm"][pre];
        let tokenizer = open(&byte_level(pre)).unwrap();
        prop_assert_eq!(tokenizer.decode(&tokenizer.encode(&text)).unwrap(), text);
    }

    #[test]
    fn any_text_comes_back_whole_from_sentence_piece(text in "[^▁]{0,40}|[ hel\\n]{0,60}", prefix: bool) {
        let tokenizer = open(&sentence_piece().key("tokenizer.ggml.add_space_prefix", prefix)).unwrap();
        prop_assert_eq!(tokenizer.decode(&tokenizer.encode(&text)).unwrap(), text);
    }

    #[test]
    fn any_bytes_come_back_whole(bytes: Vec<u8>) {
        let plain = sentence_piece().key("tokenizer.ggml.add_space_prefix", false);
        for tokenizer in [open(&byte_level("qwen2")).unwrap(), open(&plain).unwrap()] {
            let ids = tokenizer.encode_bytes(&bytes);
            let back: Vec<u8> = ids.iter().flat_map(|id| tokenizer.bytes(*id)).copied().collect();
            prop_assert_eq!(&back, &bytes);
        }
    }

    #[test]
    fn a_hostile_vocabulary_is_an_error_or_works_but_never_panics(
        names in prop::collection::vec("[ab▁ Ġ]{0,3}|<0x[0-9A-G]{1,3}>|<s>|\\PC{0,4}", 0..40),
        kinds in prop::collection::vec(-3i32..9, 0..60),
        scores in prop::collection::vec(prop::num::f32::ANY, 0..60),
        merges in prop::collection::vec("[ab▁ Ġ]{0,5}|\\PC{0,4}", 0..40),
        (start, end, unknown) in (0u32..50, any::<u32>(), 0u32..50),
        model in prop::sample::select(vec!["llama", "gpt2"]),
        text in "[ab▁ Ġ<>s0x]{0,40}|\\PC{0,20}",
        flags: (bool, bool, bool),
    ) {
        let writer = Writer::new()
            .key("tokenizer.ggml.model", model)
            .key("general.name", if flags.0 { "phi-3" } else { "" })
            .key("tokenizer.ggml.tokens", Array::String(names.clone()))
            .key("tokenizer.ggml.token_type", Array::I32(kinds))
            .key("tokenizer.ggml.scores", Array::F32(scores))
            .key("tokenizer.ggml.merges", Array::String(merges))
            .key("tokenizer.ggml.bos_token_id", start)
            .key("tokenizer.ggml.eos_token_id", end)
            .key("tokenizer.ggml.unknown_token_id", unknown)
            .key("tokenizer.ggml.add_bos_token", flags.1)
            .key("tokenizer.ggml.add_eos_token", flags.2);
        if let Ok(tokenizer) = open(&writer) {
            let ids = tokenizer.encode(&text);
            prop_assert!(ids.iter().all(|id| (*id as usize) < names.len()));
            prop_assert!(tokenizer.decode(&ids).is_ok() && tokenizer.bytes_held() > 0);
            prop_assert!(tokenizer.encode_bytes(text.as_bytes()).iter().all(|id| (*id as usize) < names.len()));
        }
    }
}
