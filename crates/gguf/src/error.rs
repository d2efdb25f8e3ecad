//! What can be wrong with a GGUF file, each with the place and, where there is one, the remedy.

/// Why a file is not a usable GGUF.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the file: {0}")]
    Io(#[from] std::io::Error),
    #[error("not a GGUF file: it starts with {found:02x?} and not with \"GGUF\"")]
    Magic { found: [u8; 4] },
    #[error("GGUF version {0} is not supported (2 and 3 are): convert the model again with a current converter")]
    Version(u32),
    #[error("big-endian GGUF files are not supported: convert the model on a little-endian machine")]
    BigEndian,
    #[error("the file is truncated: {what} needs {needed} bytes at offset {offset}, the file ends at {file_len}")]
    Truncated { what: String, needed: u64, offset: u64, file_len: u64 },
    #[error("key `{key}`: {problem}")]
    Key { key: String, problem: String },
    #[error("tensor `{tensor}`: {problem}")]
    Tensor { tensor: String, problem: String },
}

impl Error {
    pub(crate) fn key(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Key { key: key.into(), problem: problem.into() }
    }

    pub(crate) fn tensor(tensor: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Tensor { tensor: tensor.into(), problem: problem.into() }
    }
}
