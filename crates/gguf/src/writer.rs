//! Makes GGUF files: what the tests break on purpose, and synthetic models.

use crate::reader::id;
use crate::{Array, DEFAULT_ALIGNMENT, MAGIC, TensorType, Value};

/// Collects metadata and tensors and lays them out as a version 3 file.
#[derive(Default)]
pub struct Writer {
    metadata: Vec<(String, Value)>,
    tensors: Vec<(String, TensorType, Vec<u64>, Vec<u8>)>,
}

impl Writer {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a metadata value. Integers are written as 32 bits where they fit, as the field does.
    #[must_use]
    pub fn key(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.metadata.push((key.to_owned(), value.into()));
        self
    }

    /// Adds a tensor with `dims` (row length first) and its raw block bytes, whose length the
    /// writer does not check.
    #[must_use]
    pub fn tensor(mut self, name: &str, kind: TensorType, dims: &[u64], data: Vec<u8>) -> Self {
        self.tensors.push((name.to_owned(), kind, dims.to_vec(), data));
        self
    }

    /// The bytes of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            string(&mut out, key);
            typed_value(&mut out, value);
        }
        let mut relative = 0u64;
        for (name, kind, dims, data) in &self.tensors {
            string(&mut out, name);
            out.extend((dims.len() as u32).to_le_bytes());
            dims.iter().for_each(|dim| out.extend(dim.to_le_bytes()));
            out.extend(kind.id().to_le_bytes());
            out.extend(relative.to_le_bytes());
            relative = (relative + data.len() as u64).next_multiple_of(DEFAULT_ALIGNMENT);
        }
        for (_, _, _, data) in &self.tensors {
            pad(&mut out);
            out.extend(data);
        }
        out
    }
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(DEFAULT_ALIGNMENT as usize), 0);
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn typed_value(out: &mut Vec<u8>, value: &Value) {
    let mut put = |type_id: u32, bytes: &[u8]| {
        out.extend(type_id.to_le_bytes());
        out.extend(bytes);
    };
    match value {
        Value::Uint(n) => match u32::try_from(*n) {
            Ok(n) => put(id::U32, &n.to_le_bytes()),
            Err(_) => put(id::U64, &n.to_le_bytes()),
        },
        Value::Int(n) => match i32::try_from(*n) {
            Ok(n) => put(id::I32, &n.to_le_bytes()),
            Err(_) => put(id::I64, &n.to_le_bytes()),
        },
        Value::F32(n) => put(id::F32, &n.to_le_bytes()),
        Value::F64(n) => put(id::F64, &n.to_le_bytes()),
        Value::Bool(flag) => put(id::BOOL, &[u8::from(*flag)]),
        Value::String(text) => {
            put(id::STRING, &[]);
            string(out, text);
        }
        Value::Array(items) => {
            put(id::ARRAY, &[]);
            array(out, items);
        }
    }
}

fn array(out: &mut Vec<u8>, items: &Array) {
    let mut head = |type_id: u32| {
        out.extend(type_id.to_le_bytes());
        out.extend((items.len() as u64).to_le_bytes());
    };
    macro_rules! numbers {
        ($type_id:expr, $values:expr) => {{
            head($type_id);
            $values.iter().for_each(|n| out.extend(n.to_le_bytes()));
        }};
    }
    match items {
        Array::U8(v) => numbers!(id::U8, v),
        Array::I8(v) => numbers!(id::I8, v),
        Array::U16(v) => numbers!(id::U16, v),
        Array::I16(v) => numbers!(id::I16, v),
        Array::U32(v) => numbers!(id::U32, v),
        Array::I32(v) => numbers!(id::I32, v),
        Array::F32(v) => numbers!(id::F32, v),
        Array::U64(v) => numbers!(id::U64, v),
        Array::I64(v) => numbers!(id::I64, v),
        Array::F64(v) => numbers!(id::F64, v),
        Array::Bool(v) => {
            head(id::BOOL);
            out.extend(v.iter().map(|flag| u8::from(*flag)));
        }
        Array::String(v) => {
            head(id::STRING);
            v.iter().for_each(|text| string(out, text));
        }
        Array::Array(v) => {
            head(id::ARRAY);
            v.iter().for_each(|inner| array(out, inner));
        }
    }
}
