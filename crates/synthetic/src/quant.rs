//! Which type each matrix has: one for all, or a mix as `llama-quantize` makes it.
//!
//! The rules are those of llama.cpp
//! (<https://github.com/ggml-org/llama.cpp/blob/master/src/llama-quant.cpp>).

use gguf::TensorType;

use crate::Shape;
use crate::tensors::{Role, Tensor};

/// How a model is quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quant {
    /// Every matrix has this type.
    Plain(TensorType),
    Q2K,
    Q3KM,
    Q4KM,
    Q5KM,
}

impl Quant {
    /// By the name the field uses, such as `q3_k_m` or `q8_0`.
    pub fn named(name: &str) -> Option<Self> {
        use TensorType::*;
        const PLAIN: [TensorType; 12] = [F32, F16, BF16, Q8_0, Q6_K, Q5_K, Q4_K, Q4_0, Q4_1, Q5_0, Q5_1, IQ4_NL];
        match name {
            "q2_k" => Some(Self::Q2K),
            "q3_k_m" => Some(Self::Q3KM),
            "q4_k_m" => Some(Self::Q4KM),
            "q5_k_m" => Some(Self::Q5KM),
            _ => PLAIN.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(name)).map(Self::Plain),
        }
    }

    /// The type of this matrix.
    pub(crate) fn kind(self, tensor: &Tensor, shape: &Shape) -> TensorType {
        let width = tensor.dims.first().copied().unwrap_or(0);
        if tensor.role == Role::Router {
            return TensorType::F32;
        }
        if let Self::Plain(kind) = self {
            return fitting(kind, width);
        }
        let is_head = tensor.role == Role::Head || (shape.tied && tensor.role == Role::Embedding);
        match is_head {
            true if width.is_multiple_of(256) => TensorType::Q6_K,
            true => TensorType::Q8_0,
            false => fitting(self.mixed(tensor, shape), width),
        }
    }

    fn mixed(self, tensor: &Tensor, shape: &Shape) -> TensorType {
        use TensorType::*;
        let (layer, layers) = (tensor.layer, shape.layers);
        let eighth = layers / 8;
        let more_bits = layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2;
        match (self, tensor.role) {
            (Self::Plain(kind), _) => kind,
            (Self::Q2K, Role::Value) if shape.heads / shape.kv_heads >= 4 => Q4_K,
            (Self::Q2K, Role::Value | Role::Down | Role::AttentionOutput) => Q3_K,
            (Self::Q2K, _) => Q2_K,
            (Self::Q3KM, Role::Value) => {
                if layer < 2 {
                    Q5_K
                } else {
                    Q4_K
                }
            }
            (Self::Q3KM, Role::Down) => {
                if layer < layers / 16 {
                    Q5_K
                } else {
                    Q4_K
                }
            }
            (Self::Q3KM, Role::AttentionOutput | Role::QueryKeyValue) => Q4_K,
            (Self::Q3KM, _) => Q3_K,
            (Self::Q4KM, Role::QueryKeyValue) => Q5_K,
            (Self::Q5KM, Role::QueryKeyValue) => Q6_K,
            (Self::Q4KM | Self::Q5KM, Role::Value | Role::Down) if more_bits => Q6_K,
            (Self::Q4KM, _) => Q4_K,
            (Self::Q5KM, _) => Q5_K,
        }
    }
}

/// This type, or what stands in for it where rows are no multiple of its block.
fn fitting(kind: TensorType, width: u64) -> TensorType {
    use TensorType::*;
    if width.is_multiple_of(kind.block_elements()) {
        return kind;
    }
    let smaller = match kind {
        Q2_K | Q3_K => IQ4_NL,
        Q4_K => Q5_0,
        Q5_K => Q5_1,
        Q6_K => Q8_0,
        _ => F16,
    };
    if width.is_multiple_of(smaller.block_elements()) { smaller } else { F16 }
}
