//! Byte-pair encoding: the merges of the vocabulary, applied lowest rank first
//! (<https://arxiv.org/abs/1508.07909>).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use gguf::{Array, Header, Value};

use super::vocabulary::Vocabulary;
use crate::Error;

#[derive(Debug)]
pub struct Merges {
    /// A pair of tokens, to the rank of their merge and the token they become.
    ranks: HashMap<(u32, u32), (u32, u32)>,
    /// The token of each byte; every byte has one, or the vocabulary is refused.
    bytes: Vec<u32>,
}

/// A token of a word that is being merged, linked to its neighbours.
#[derive(Clone, Copy)]
struct Node {
    token: u32,
    left: usize,
    right: usize,
}

const NONE: usize = usize::MAX;
/// Marks a node that was merged into its left neighbour.
const GONE: u32 = u32::MAX;

impl Merges {
    pub fn of(header: &Header, vocabulary: &Vocabulary) -> Result<Self, Error> {
        let byte = |byte: u8| {
            vocabulary
                .id(&[byte])
                .ok_or_else(|| Error::File(format!("the vocabulary has no token for the byte {byte}")))
        };
        let bytes = (0..=255).map(byte).collect::<Result<_, _>>()?;
        let lines = header.metadata.get("tokenizer.ggml.merges").and_then(Value::as_array).and_then(Array::as_strings);
        let names = |name: &str| vocabulary.id_of_name(name);
        let mut ranks = HashMap::new();
        for (rank, line) in (0u32..).zip(lines.unwrap_or_default()) {
            // A merge whose parts or result are no tokens can never apply.
            let Some((left, right)) = line.split_once(' ') else { continue };
            let whole = names(&format!("{left}{right}"));
            if let (Some(left), Some(right), Some(whole)) = (names(left), names(right), whole) {
                ranks.entry((left, right)).or_insert((rank, whole));
            }
        }
        Ok(Self { ranks, bytes })
    }

    /// Appends the tokens of one word.
    pub fn encode(&self, word: &[u8], out: &mut Vec<u32>) {
        let last = word.len().wrapping_sub(1);
        let node = |(at, byte): (usize, &u8)| Node {
            token: self.bytes[usize::from(*byte)],
            left: at.wrapping_sub(1),
            right: if at == last { NONE } else { at + 1 },
        };
        let mut nodes: Vec<Node> = word.iter().enumerate().map(node).collect();
        let mut queue = BinaryHeap::new();
        for at in 0..nodes.len() {
            self.offer(&nodes, at, &mut queue);
        }
        while let Some(Reverse((_, at, pair, whole))) = queue.pop() {
            let right = nodes[at].right;
            // The pair may have changed since it was offered.
            if right == NONE || (nodes[at].token, nodes[right].token) != pair {
                continue;
            }
            nodes[at].token = whole;
            nodes[at].right = nodes[right].right;
            nodes[right].token = GONE;
            if nodes[at].right != NONE {
                let next = nodes[at].right;
                nodes[next].left = at;
            }
            self.offer(&nodes, at, &mut queue);
            if nodes[at].left != NONE {
                self.offer(&nodes, nodes[at].left, &mut queue);
            }
        }
        out.extend(nodes.iter().map(|node| node.token).filter(|token| *token != GONE));
    }

    /// Puts the pair that begins at `at` into the queue, if it can merge. Of equal ranks the
    /// leftmost goes first.
    #[expect(clippy::type_complexity, reason = "rank, place, pair, result")]
    fn offer(&self, nodes: &[Node], at: usize, queue: &mut BinaryHeap<Reverse<(u32, usize, (u32, u32), u32)>>) {
        let Some(right) = nodes.get(nodes[at].right) else { return };
        let pair = (nodes[at].token, right.token);
        if let Some((rank, whole)) = self.ranks.get(&pair) {
            queue.push(Reverse((*rank, at, pair, *whole)));
        }
    }
}
