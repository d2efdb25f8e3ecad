//! The file, mapped: matrices are looked up, never copied; short vectors are read out.
//!
//! Two models of one file share its pages, and the system takes pages back when it needs them.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::path::Path;

use gguf::{Header, TensorInfo, TensorType};
use memmap2::Mmap;

use crate::Error;
use crate::kernels::Matrix;
use crate::quant::{dequantize, kind_of};

/// A mapped GGUF file.
#[derive(Debug)]
pub struct Weights {
    map: Mmap,
}

/// A matrix of a mapped file, checked to lie inside it: `rows` rows of `width` elements.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub kind: TensorType,
    pub rows: usize,
    pub width: usize,
    bytes: Range<usize>,
}

impl Weights {
    /// Maps the file at `path` and reads its header, which has every name of the vocabulary: who
    /// loads drops it when everything was taken out of it.
    ///
    /// # Errors
    /// [`Error::File`] if it is no whole GGUF.
    pub fn open(path: &Path) -> Result<(Self, Header), Error> {
        let file = File::open(path).map_err(|error| Error::File(error.to_string()))?;
        #[expect(unsafe_code, reason = "mapping is the point of this module")]
        // SAFETY: the map is only read. Whoever truncates a model file while it is served breaks
        // the process, as with every program that maps its data; replacing the file does not.
        let map = unsafe { Mmap::map(&file) }.map_err(|error| Error::File(error.to_string()))?;
        let header = Header::parse(&map[..], map.len() as u64)?;
        Ok((Self { map }, header))
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
}

impl Tensor {
    /// Some of the rows as a matrix of their own: a part of a fused one.
    pub fn part(&self, rows: Range<usize>) -> Self {
        let each = self.bytes.len() / self.rows;
        let start = self.bytes.start;
        let bytes = start + rows.start * each..start + rows.end * each;
        Self { kind: self.kind, rows: rows.len(), width: self.width, bytes }
    }
}

/// Takes a model's tensors out of its file, each checked against the shape it must have, and knows
/// what was taken.
pub struct Loader<'a> {
    weights: &'a Weights,
    left: HashMap<&'a str, &'a TensorInfo>,
    mapped: u64,
}

impl<'a> Loader<'a> {
    pub fn new(weights: &'a Weights, header: &'a Header) -> Self {
        let left = header.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        Self { weights, left, mapped: 0 }
    }

    /// Whether this tensor is there and was not taken yet.
    pub fn has(&self, name: &str) -> bool {
        self.left.contains_key(name)
    }

    /// The matrix `name`, which must have this shape.
    ///
    /// # Errors
    /// [`Error::File`] if it is missing or has another shape, [`Error::Unsupported`] for a type
    /// this engine cannot compute with.
    pub fn matrix(&mut self, name: &str, rows: usize, width: usize) -> Result<Tensor, Error> {
        let tensor = self.take(name, rows, width)?;
        self.mapped += tensor.bytes.len() as u64;
        Ok(tensor)
    }

    /// The floats of a vector such as a norm.
    ///
    /// # Errors
    /// As [`Loader::matrix`].
    pub fn vector(&mut self, name: &str, width: usize) -> Result<Box<[f32]>, Error> {
        let tensor = self.take(name, 1, width)?;
        let mut out = vec![0.0; width].into_boxed_slice();
        dequantize(tensor.kind, &self.weights.map[tensor.bytes], &mut out);
        Ok(out)
    }

    /// A vector that not every model has.
    ///
    /// # Errors
    /// As [`Loader::matrix`], but for a missing one.
    pub fn optional_vector(&mut self, name: &str, width: usize) -> Result<Option<Box<[f32]>>, Error> {
        if self.has(name) { self.vector(name, width).map(Some) } else { Ok(None) }
    }

    /// Leaves a tensor out, knowingly.
    pub fn pass_over(&mut self, name: &str) {
        self.left.remove(name);
    }

    /// Ends the loading: bytes of the matrices taken.
    ///
    /// # Errors
    /// [`Error::Unsupported`] names a tensor that nobody took. A model that computes without some
    /// of its parts says wrong things.
    pub fn finish(self) -> Result<u64, Error> {
        match self.left.into_keys().min() {
            None => Ok(self.mapped),
            Some(name) => {
                Err(Error::Unsupported(format!("the paged engine does not know what tensor `{name}` is for")))
            }
        }
    }

    fn take(&mut self, name: &str, rows: usize, width: usize) -> Result<Tensor, Error> {
        let info = self.left.remove(name).ok_or_else(|| Error::File(format!("tensor `{name}` is missing")))?;
        let (found_width, higher) = info.dims.split_first().map_or((0, &[][..]), |(width, higher)| (*width, higher));
        if (found_width, higher.iter().product::<u64>()) != (width as u64, rows as u64) {
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
}
