//! The file, mapped: tensors are looked up, never copied.
//!
//! Two models of one file share its pages, and the system takes pages back when it needs them.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use gguf::{Header, TensorType};
use memmap2::Mmap;

use crate::Error;
use crate::kernels::Matrix;
use crate::quant::{dequantize, kind_of};

/// A mapped GGUF file.
#[derive(Debug)]
pub struct Weights {
    map: Mmap,
    pub header: Header,
}

/// A tensor of a mapped file, checked to lie inside it: `rows` rows of `width` elements.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub kind: TensorType,
    pub rows: usize,
    pub width: usize,
    bytes: Range<usize>,
}

impl Weights {
    /// Maps the file at `path` and reads its header.
    ///
    /// # Errors
    /// [`Error::File`] if it is no whole GGUF.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|error| Error::File(error.to_string()))?;
        #[expect(unsafe_code, reason = "mapping is the point of this module")]
        // SAFETY: the map is only read. Whoever truncates a model file while it is served breaks
        // the process, as with every program that maps its data; replacing the file does not.
        let map = unsafe { Mmap::map(&file) }.map_err(|error| Error::File(error.to_string()))?;
        let header = Header::parse(&map[..], map.len() as u64)?;
        Ok(Self { map, header })
    }

    /// The tensor `name`, which must have this shape (rows, width).
    ///
    /// # Errors
    /// [`Error::File`] if it is missing or has another shape, [`Error::Unsupported`] for a type
    /// this engine cannot compute with.
    pub fn tensor(&self, name: &str, rows: usize, width: usize) -> Result<Tensor, Error> {
        let info = self.header.tensor(name).ok_or_else(|| Error::File(format!("tensor `{name}` is missing")))?;
        let shape = (info.dims[0], info.dims[1..].iter().product::<u64>());
        if shape != (width as u64, rows as u64) {
            let message = format!("tensor `{name}` is {:?}, {width} x {rows} was expected", info.dims);
            return Err(Error::File(message));
        }
        if kind_of(info.kind).is_none() {
            return Err(Error::Unsupported(format!("tensor `{name}`: type {} is not supported", info.kind)));
        }
        // The header has checked that both fit the file, so they fit the map.
        let bytes = info.offset as usize..(info.offset + info.bytes) as usize;
        Ok(Tensor { kind: info.kind, rows, width, bytes })
    }

    /// The floats of a vector such as a norm.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn vector(&self, name: &str, width: usize) -> Result<Vec<f32>, Error> {
        let tensor = self.tensor(name, 1, width)?;
        let mut out = vec![0.0; width];
        dequantize(tensor.kind, &self.map[tensor.bytes], &mut out);
        Ok(out)
    }

    pub fn matrix(&self, tensor: &Tensor) -> Matrix<'_> {
        Matrix { weights: tensor.kind, rows: tensor.rows, width: tensor.width, bytes: &self.map[tensor.bytes.clone()] }
    }

    /// The floats of one row.
    pub fn row(&self, tensor: &Tensor, row: usize, out: &mut [f32]) {
        let bytes = &self.map[tensor.bytes.clone()];
        let each = bytes.len() / tensor.rows;
        dequantize(tensor.kind, &bytes[row * each..][..each], out);
    }

    /// Bytes of all tensors: what the mapping can take of physical memory at most.
    pub fn tensor_bytes(&self) -> u64 {
        self.header.tensors.iter().map(|tensor| tensor.bytes).sum()
    }
}
