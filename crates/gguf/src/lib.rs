//! GGUF headers: metadata and tensor directory, read and written.
//!
//! The reader trusts nothing. Every count, length, offset and type is held against the length of
//! the file before anything is allocated for it, so a truncated or altered file is an error that
//! names the key or the tensor, never a panic or a huge allocation. Tensor data is not touched.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3,
//! little-endian.
//!
//! * [`Header::read`] opens a file; [`Header::parse`] takes any reader and the length it has.
//! * [`Summary`] is the typed view that engines and memory plans need.
//! * [`Writer`] makes files, for tests and for synthetic models.

mod error;
mod header;
mod reader;
mod summary;
mod types;
mod value;
mod writer;

pub use error::Error;
pub use header::{Header, TensorInfo};
pub use summary::Summary;
pub use types::TensorType;
pub use value::{Array, Value};
pub use writer::Writer;

/// The first four bytes of every GGUF file.
pub const MAGIC: [u8; 4] = *b"GGUF";
/// Where tensor data starts is rounded up to this unless `general.alignment` says otherwise.
pub const DEFAULT_ALIGNMENT: u64 = 32;

#[cfg(test)]
mod tests;
