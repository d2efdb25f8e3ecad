//! A model whose file is not there, as the registry file declares it: what its header would say.

use std::collections::BTreeMap;

use gguf::Summary;

use super::registry_file::Declared;

/// Bytes of a token's name in a large byte-level vocabulary, and more than the mean of those in use.
const TOKEN_BYTES: u64 = 8;

/// The summary of such a file. What is not declared is as in most files of that kind: one type for all
/// tensors, a byte-level vocabulary with a merge for each token.
pub fn summary(declared: &Declared) -> Summary {
    let (weights, vocabulary) = (declared.weights.as_u64(), u64::from(declared.vocabulary));
    Summary {
        architecture: declared.architecture.clone(),
        name: None,
        context_length: u64::from(declared.context.unwrap_or(u32::MAX)),
        layers: declared.layers.into(),
        embedding: declared.embedding.into(),
        heads: declared.heads.into(),
        kv_heads: declared.kv_heads.into(),
        kv_heads_vary: false,
        key_length: declared.head.into(),
        value_length: declared.head.into(),
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
