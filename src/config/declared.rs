//! A model whose file is not there, as the registry file declares it: what its header would say.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use gguf::Summary;

use super::registry_file::Declared;

/// Bytes of a token's name in a large byte-level vocabulary, and more than the mean of those in use.
const TOKEN_BYTES: u64 = 8;

/// The summary of such a file. What is not declared is as in most files of that kind: one type for all
/// tensors, a byte-level vocabulary with a merge for each token.
pub fn summary(declared: &Declared) -> Summary {
    let (weights, vocabulary) = (declared.weights.as_u64(), number(declared.vocabulary));
    Summary {
        architecture: declared.architecture.clone(),
        name: None,
        context_length: number(declared.context.unwrap_or(NonZeroU32::MAX)),
        layers: number(declared.layers),
        embedding: number(declared.embedding),
        heads: number(declared.heads),
        kv_heads: number(declared.kv_heads),
        kv_heads_vary: false,
        key_length: number(declared.head),
        value_length: number(declared.head),
        vocabulary,
        token_bytes: vocabulary.saturating_mul(TOKEN_BYTES),
        merges: vocabulary,
        tokenizer: "gpt2".into(),
        pre_tokenizer: None,
        rope_scaling: None,
        rope_factors: None,
        experts: 0,
        has_chat_template: true,
        bytes_by_type: BTreeMap::from([(declared.kind, weights)]),
        vector_elements: 0,
        vector_bytes: 0,
        file_len: weights,
    }
}

fn number(declared: NonZeroU32) -> u64 {
    declared.get().into()
}
