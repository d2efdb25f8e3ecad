//! How the numbers of a block lie: tiles of 16 columns, which attention multiplies as they are.
//!
//! Per layer and key/value head there is a plane of keys and a plane of values. A row of a plane
//! has 16 numbers. Keys lie transposed, `[head width][token]`, so that a row times one number of a
//! query goes to 16 scores; values lie `[head width / 16][token][16]`, so that a row times one
//! weight goes to 16 sums. A head width that is no multiple of 16 is filled up with zeros.
//!
//! In Q8_0 (<https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h>) 32 numbers of one token
//! share a scale in half precision; a row of scales has those of the 16 tokens.

use super::BLOCK;
use crate::model::Config;

/// Numbers in a row of a plane.
pub const LANES: usize = 16;
/// Numbers of one token and head that share a scale.
pub const SCALED: usize = 32;

/// What keys and values are kept as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvType {
    /// Half precision: 2 bytes a number.
    #[default]
    F16,
    /// 8-bit codes, and a scale in half precision for every 32: 1.0625 bytes a number.
    Q8_0,
}

/// Bytes that the keys and values of one token take in the pool, from what a header says.
pub fn bytes_per_token(layers: u64, kv_heads: u64, head: u64, kind: KvType) -> u64 {
    let numbers = head.saturating_add(head.div_ceil(LANES as u64).saturating_mul(LANES as u64));
    let scales = head.div_ceil(SCALED as u64).saturating_mul(2);
    let each = match kind {
        KvType::F16 => numbers.saturating_mul(2),
        KvType::Q8_0 => numbers.saturating_add(scales.saturating_mul(2)),
    };
    layers.saturating_mul(kv_heads).saturating_mul(each)
}

/// The shape of a model's blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub kind: KvType,
    pub layers: usize,
    pub kv_heads: usize,
    /// Numbers of one head.
    pub head: usize,
}

impl Layout {
    pub fn of(config: &Config, kind: KvType) -> Self {
        Self { kind, layers: config.layers, kv_heads: config.kv_heads, head: config.head }
    }

    /// Bytes of one block: 16 tokens, all layers, keys and values.
    pub fn block_bytes(&self) -> u64 {
        let (halves, codes) = self.rows();
        (LANES * (2 * halves + codes)) as u64
    }

    /// Rows of one head's values, filled up.
    pub fn value_rows(&self) -> usize {
        self.head.div_ceil(LANES) * BLOCK
    }

    /// Rows of scales of one plane in Q8_0.
    pub fn scale_rows(&self) -> usize {
        self.head.div_ceil(SCALED)
    }

    /// Rows of one head's keys and values together.
    pub(super) fn head_rows(&self) -> usize {
        self.head + self.value_rows()
    }

    /// Rows of halves and rows of codes of one block.
    pub(super) fn rows(&self) -> (usize, usize) {
        let planes = self.layers * self.kv_heads;
        match self.kind {
            KvType::F16 => (planes * self.head_rows(), 0),
            KvType::Q8_0 => (planes * 2 * self.scale_rows(), planes * self.head_rows()),
        }
    }

    /// Which of a block's heads this is.
    pub(super) fn head_at(&self, layer: usize, kv_head: usize) -> usize {
        layer * self.kv_heads + kv_head
    }
}
