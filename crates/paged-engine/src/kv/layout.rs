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
        LANES.saturating_mul(halves.saturating_mul(2).saturating_add(codes)) as u64
    }

    /// Bytes of one token's part of a block.
    pub fn token_bytes(&self) -> u64 {
        self.block_bytes() / BLOCK as u64
    }

    /// Rows of one head's values, filled up.
    pub fn value_rows(&self) -> usize {
        self.head.div_ceil(LANES).saturating_mul(BLOCK)
    }

    /// Rows of scales of one plane in Q8_0.
    pub fn scale_rows(&self) -> usize {
        self.head.div_ceil(SCALED)
    }

    /// Rows of one head's keys and values together.
    pub(super) fn head_rows(&self) -> usize {
        self.head.saturating_add(self.value_rows())
    }

    /// Rows of halves and rows of codes of one block.
    pub(super) fn rows(&self) -> (usize, usize) {
        // A header can say anything; what it says is looked at before it is believed.
        let planes = self.layers.saturating_mul(self.kv_heads);
        let numbers = planes.saturating_mul(self.head_rows());
        match self.kind {
            KvType::F16 => (numbers, 0),
            KvType::Q8_0 => (planes.saturating_mul(2 * self.scale_rows()), numbers),
        }
    }

    /// Which of a block's heads this is.
    pub(super) fn head_at(&self, layer: usize, kv_head: usize) -> usize {
        layer * self.kv_heads + kv_head
    }
}
