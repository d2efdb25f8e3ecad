//! The header of a file: metadata and the tensor directory.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use crate::reader::Reader;
use crate::{DEFAULT_ALIGNMENT, Error, MAGIC, TensorType, Value};

/// Everything that stands before the tensor data, checked against the file's length.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    pub version: u32,
    pub metadata: BTreeMap<String, Value>,
    pub tensors: Vec<TensorInfo>,
    /// Where tensor data starts, in bytes from the start of the file.
    pub data_offset: u64,
    /// Bytes of the whole file.
    pub file_len: u64,
}

/// One tensor: its name, type, shape and place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    pub name: String,
    pub kind: TensorType,
    /// Elements per dimension, the row length first (ggml's order), one to four of them.
    pub dims: Vec<u64>,
    /// Bytes from the start of the file.
    pub offset: u64,
    /// Bytes in the file.
    pub bytes: u64,
}

/// A tensor as the directory states it: its offset still counts from the start of the data.
struct Entry {
    name: String,
    kind: TensorType,
    dims: Vec<u64>,
    relative: u64,
    bytes: u64,
}

impl Header {
    /// Reads the header of the file at `path`. Only the header's bytes are read.
    ///
    /// # Errors
    /// [`Error`] names the key or tensor that is wrong.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let file = File::open(path)?;
        let file_len = file.metadata()?.len();
        Self::parse(BufReader::with_capacity(1 << 16, file), file_len)
    }

    /// Reads a header from `source`, which holds `file_len` bytes in all.
    ///
    /// # Errors
    /// As [`Header::read`].
    pub fn parse(source: impl Read, file_len: u64) -> Result<Self, Error> {
        let mut reader = Reader::new(source, file_len);
        let version = preamble(&mut reader)?;
        let tensor_count = reader.u64("the tensor count")?;
        let key_count = reader.u64("the key count")?;
        let metadata = metadata(&mut reader, key_count)?;
        let entries = directory(&mut reader, tensor_count)?;
        let alignment = alignment(&metadata)?;
        let data_offset = reader.offset.next_multiple_of(alignment);
        let tensors = place(entries, data_offset, alignment, file_len)?;
        Ok(Self { version, metadata, tensors, data_offset, file_len })
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// The integer at `key`, or an error that names it.
    pub fn u64(&self, key: &str) -> Result<u64, Error> {
        self.get(key)?.as_u64().ok_or_else(|| Error::key(key, "must be a non-negative integer"))
    }

    /// The string at `key`, or an error that names it.
    pub fn str(&self, key: &str) -> Result<&str, Error> {
        self.get(key)?.as_str().ok_or_else(|| Error::key(key, "must be a string"))
    }

    fn get(&self, key: &str) -> Result<&Value, Error> {
        self.metadata.get(key).ok_or_else(|| Error::key(key, "is missing"))
    }
}

impl TensorInfo {
    /// Elements in the tensor.
    pub fn elements(&self) -> u64 {
        self.dims.iter().product()
    }
}

fn preamble<R: Read>(reader: &mut Reader<R>) -> Result<u32, Error> {
    let found = reader.magic()?;
    if found != MAGIC {
        return Err(Error::Magic { found });
    }
    match reader.u32("the version")? {
        version @ (2 | 3) => Ok(version),
        swapped if (1..=3).contains(&swapped.swap_bytes()) => Err(Error::BigEndian),
        other => Err(Error::Version(other)),
    }
}

fn metadata<R: Read>(reader: &mut Reader<R>, count: u64) -> Result<BTreeMap<String, Value>, Error> {
    const SMALLEST: u64 = 8 + 4 + 1; // an empty key, a type, one byte
    reader.expect_room(count, SMALLEST, "the metadata")?;
    let mut metadata = BTreeMap::new();
    for _ in 0..count {
        let key = reader.string("a metadata key")?;
        let value = reader.value(&key)?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(Error::key(key, "stands twice"));
        }
    }
    Ok(metadata)
}

fn directory<R: Read>(reader: &mut Reader<R>, count: u64) -> Result<Vec<Entry>, Error> {
    const SMALLEST: u64 = 8 + 4 + 8 + 4 + 8; // an empty name, one dimension, a type, an offset
    reader.expect_room(count, SMALLEST, "the tensor directory")?;
    let mut seen = HashSet::new();
    (0..count)
        .map(|_| {
            let entry = entry(reader)?;
            if seen.insert(entry.name.clone()) { Ok(entry) } else { Err(Error::tensor(entry.name, "stands twice")) }
        })
        .collect()
}

fn entry<R: Read>(reader: &mut Reader<R>) -> Result<Entry, Error> {
    let name = reader.string("a tensor name")?;
    let dimensions = reader.u32(&name)?;
    if !(1..=4).contains(&dimensions) {
        return Err(Error::tensor(name, format!("has {dimensions} dimensions, one to four are allowed")));
    }
    let dims = (0..dimensions).map(|_| reader.u64(&name)).collect::<Result<Vec<_>, _>>()?;
    let type_id = reader.u32(&name)?;
    let Some(kind) = TensorType::from_id(type_id) else {
        return Err(Error::tensor(name, format!("its type {type_id} is unknown")));
    };
    let relative = reader.u64(&name)?;
    let bytes = size(kind, &dims).map_err(|problem| Error::tensor(&name, problem))?;
    Ok(Entry { name, kind, dims, relative, bytes })
}

fn size(kind: TensorType, dims: &[u64]) -> Result<u64, String> {
    let row = dims.first().copied().unwrap_or(0);
    if !row.is_multiple_of(kind.block_elements()) {
        return Err(format!(
            "its rows of {row} elements are no multiple of {kind}'s block of {}",
            kind.block_elements()
        ));
    }
    dims.iter()
        .try_fold(1u64, |product, dim| product.checked_mul(*dim))
        .and_then(|elements| (elements / kind.block_elements()).checked_mul(kind.block_bytes()))
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| format!("its shape {dims:?} is empty or too large"))
}

fn alignment(metadata: &BTreeMap<String, Value>) -> Result<u64, Error> {
    const KEY: &str = "general.alignment";
    const LARGEST: u64 = 1 << 20;
    match metadata.get(KEY).map(Value::as_u64) {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(Some(n)) if n.is_power_of_two() && n <= LARGEST => Ok(n),
        Some(_) => Err(Error::key(KEY, format!("must be a power of two up to {LARGEST}"))),
    }
}

/// Turns directory entries into tensors at absolute offsets: aligned, inside the file, apart.
fn place(entries: Vec<Entry>, data_offset: u64, alignment: u64, file_len: u64) -> Result<Vec<TensorInfo>, Error> {
    let tensors = entries
        .into_iter()
        .map(|entry| {
            if !entry.relative.is_multiple_of(alignment) {
                return Err(Error::tensor(entry.name, format!("its offset is not aligned to {alignment} bytes")));
            }
            let end = data_offset.checked_add(entry.relative).and_then(|start| start.checked_add(entry.bytes));
            if end.is_none_or(|end| end > file_len) {
                let offset = data_offset.saturating_add(entry.relative);
                let what = format!("tensor `{}`", entry.name);
                return Err(Error::Truncated { what, needed: entry.bytes, offset, file_len });
            }
            let offset = data_offset + entry.relative;
            Ok(TensorInfo { name: entry.name, kind: entry.kind, dims: entry.dims, offset, bytes: entry.bytes })
        })
        .collect::<Result<Vec<_>, _>>()?;
    refuse_overlaps(&tensors)?;
    Ok(tensors)
}

fn refuse_overlaps(tensors: &[TensorInfo]) -> Result<(), Error> {
    let mut by_offset: Vec<&TensorInfo> = tensors.iter().collect();
    by_offset.sort_by_key(|tensor| tensor.offset);
    match by_offset.windows(2).find(|pair| pair[0].offset + pair[0].bytes > pair[1].offset) {
        Some(pair) => Err(Error::tensor(&pair[1].name, format!("lies over tensor `{}`", pair[0].name))),
        None => Ok(()),
    }
}
