//! Byte-pair encoding: the merges of the vocabulary, applied lowest rank first
//! (<https://arxiv.org/abs/1508.07909>).
//!
//! A merge may make a piece that is no token, as vocabularies that were cut down have them. Such a
//! piece can still be a part of a larger one; what is left of it in the end becomes its bytes' tokens.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use gguf::Header;
use hashbrown::HashMap;

use super::alphabet;
use super::families::Family;
use super::split::split;
use super::vocabulary::{Vocabulary, strings};
use crate::Error;

#[derive(Debug)]
pub struct Merges {
    family: Family,
    /// A pair of pieces, to the rank of their merge and the piece they become.
    ranks: HashMap<(u32, u32), (u32, u32)>,
    /// The piece of each byte.
    bytes: [u32; 256],
    /// Pieces that are no tokens, by their bytes; they count on from the vocabulary's length.
    others: Vec<Box<[u8]>>,
    tokens: u32,
}

/// A piece of a word that is being merged, linked to its neighbours.
#[derive(Clone, Copy, Debug)]
struct Node {
    piece: u32,
    left: usize,
    right: usize,
}

/// A pair that can merge. Of equal ranks the leftmost goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Offer {
    rank: u32,
    at: usize,
    pair: (u32, u32),
    whole: u32,
}

/// What merging needs of memory, kept from word to word.
#[derive(Debug, Default)]
struct Scratch {
    nodes: Vec<Node>,
    offers: BinaryHeap<Reverse<Offer>>,
    name: String,
}

const NONE: usize = usize::MAX;
/// Marks a node that was merged into its left neighbour.
const GONE: u32 = u32::MAX;

/// Gives every name a piece: a token's id, or one behind them.
struct Pieces<'v> {
    vocabulary: &'v Vocabulary,
    others: HashMap<Box<str>, u32>,
    bytes: Vec<Box<[u8]>>,
    tokens: u32,
    name: String,
}

impl Merges {
    /// # Errors
    /// [`Error::File`] for a vocabulary without a list of merges.
    pub fn of(header: &Header, vocabulary: &Vocabulary, family: Family) -> Result<Self, Error> {
        let lines = strings(header, "tokenizer.ggml.merges")?;
        let tokens = u32::try_from(vocabulary.len()).unwrap_or(GONE);
        if lines.len() as u64 * 3 + 256 + u64::from(tokens) >= u64::from(GONE) {
            return Err(Error::File("the vocabulary is too large".into()));
        }
        let mut pieces = Pieces { vocabulary, others: HashMap::new(), bytes: Vec::new(), tokens, name: String::new() };
        let bytes = std::array::from_fn(|byte| pieces.id(alphabet::character(byte as u8).encode_utf8(&mut [0; 4])));
        let mut ranks = HashMap::with_capacity(lines.len());
        let mut whole = 0;
        for (rank, line) in (0u32..).zip(lines) {
            let Some((left, right)) = parts(line) else { continue };
            let pair = (pieces.id(left), pieces.id(right));
            ranks.entry(pair).or_insert_with(|| {
                whole = pieces.joined(left, right, whole + 1);
                (rank, whole)
            });
        }
        Ok(Self { family, ranks, bytes, others: pieces.bytes, tokens })
    }

    /// Appends the tokens of a text.
    pub fn encode(&self, vocabulary: &Vocabulary, text: &str, out: &mut Vec<u32>) {
        let mut scratch = Scratch::default();
        split(self.family.steps, text, &mut |word| match self
            .family
            .whole_words
            .then(|| scratch.token(vocabulary, word))
            .flatten()
        {
            Some(token) => out.push(token),
            None => self.merge(word.as_bytes(), &mut scratch, out),
        });
    }

    /// Appends the token of one byte, if there is one.
    pub fn encode_byte(&self, byte: u8, out: &mut Vec<u32>) {
        out.extend(Some(self.bytes[usize::from(byte)]).filter(|piece| *piece < self.tokens));
    }

    /// Bytes of so many merges, all of which make tokens.
    pub fn estimate(merges: u64) -> u64 {
        super::table(merges, size_of::<((u32, u32), (u32, u32))>()).saturating_add(size_of::<Self>() as u64)
    }

    /// Bytes of memory held.
    pub fn bytes_held(&self) -> u64 {
        let others: usize = self.others.iter().map(|bytes| bytes.len()).sum();
        (self.ranks.allocation_size() + self.others.capacity() * size_of::<Box<[u8]>>() + others) as u64
    }

    /// Appends the tokens of one word.
    fn merge(&self, word: &[u8], scratch: &mut Scratch, out: &mut Vec<u32>) {
        let Scratch { nodes, offers, .. } = scratch;
        let last = word.len().wrapping_sub(1);
        nodes.clear();
        nodes.extend(word.iter().enumerate().map(|(at, byte)| Node {
            piece: self.bytes[usize::from(*byte)],
            left: at.wrapping_sub(1),
            right: if at == last { NONE } else { at + 1 },
        }));
        offers.clear();
        offers.extend((0..nodes.len()).filter_map(|at| self.offer(nodes, at)));
        while let Some(Reverse(offer)) = offers.pop() {
            let (at, right) = (offer.at, nodes[offer.at].right);
            // The pair may have changed since it was offered.
            if right == NONE || (nodes[at].piece, nodes[right].piece) != offer.pair {
                continue;
            }
            nodes[at].piece = offer.whole;
            nodes[at].right = nodes[right].right;
            nodes[right].piece = GONE;
            if nodes[at].right != NONE {
                let next = nodes[at].right;
                nodes[next].left = at;
            }
            offers.extend(self.offer(nodes, at));
            offers.extend(self.offer(nodes, nodes[at].left));
        }
        nodes.iter().filter(|node| node.piece != GONE).for_each(|node| self.emit(node.piece, out));
    }

    /// The pair that begins at `at`, if it can merge.
    fn offer(&self, nodes: &[Node], at: usize) -> Option<Reverse<Offer>> {
        let left = nodes.get(at)?;
        let pair = (left.piece, nodes.get(left.right)?.piece);
        self.ranks.get(&pair).map(|(rank, whole)| Reverse(Offer { rank: *rank, at, pair, whole: *whole }))
    }

    fn emit(&self, piece: u32, out: &mut Vec<u32>) {
        match piece.checked_sub(self.tokens).and_then(|other| self.others.get(other as usize)) {
            None => out.push(piece),
            Some(bytes) => bytes.iter().for_each(|byte| self.encode_byte(*byte, out)),
        }
    }
}

impl Scratch {
    /// The token that a word is, if it is one.
    fn token(&mut self, vocabulary: &Vocabulary, word: &str) -> Option<u32> {
        self.name.clear();
        alphabet::write(word.as_bytes(), &mut self.name);
        vocabulary.id(&self.name)
    }
}

/// The two parts of a merge, which a space divides; one at the very beginning is a part itself.
fn parts(line: &str) -> Option<(&str, &str)> {
    let at = 1 + line.as_bytes().get(1..)?.iter().position(|byte| *byte == b' ')?;
    Some((line.get(..at)?, line.get(at + 1..)?))
}

impl Pieces<'_> {
    /// The piece that two parts make. Merges mostly stand in the order of their tokens, so `guess`,
    /// the token behind the one before, is looked at first.
    fn joined(&mut self, left: &str, right: &str, guess: u32) -> u32 {
        if self.vocabulary.name(guess).and_then(|name| name.strip_prefix(left)) == Some(right) {
            return guess;
        }
        self.name.clear();
        self.name.extend([left, right]);
        let name = std::mem::take(&mut self.name);
        let id = self.id(&name);
        self.name = name;
        id
    }

    fn id(&mut self, name: &str) -> u32 {
        if let Some(id) = self.vocabulary.id(name).or_else(|| self.others.get(name).copied()) {
            return id;
        }
        let id = self.tokens + self.bytes.len() as u32;
        let mut bytes = Vec::new();
        alphabet::read(name, &mut bytes);
        self.bytes.push(bytes.into_boxed_slice());
        self.others.insert(name.into(), id);
        id
    }
}
