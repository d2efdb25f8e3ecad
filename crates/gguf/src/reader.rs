//! A reader that knows how many bytes are left and refuses what cannot be there.

use std::io::Read;

use crate::{Array, Error, Value};

/// Arrays of arrays deeper than this are refused; no known file nests at all.
const MAX_NESTING: u32 = 4;

/// Value type ids of the format.
pub(crate) mod id {
    pub const U8: u32 = 0;
    pub const I8: u32 = 1;
    pub const U16: u32 = 2;
    pub const I16: u32 = 3;
    pub const U32: u32 = 4;
    pub const I32: u32 = 5;
    pub const F32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const STRING: u32 = 8;
    pub const ARRAY: u32 = 9;
    pub const U64: u32 = 10;
    pub const I64: u32 = 11;
    pub const F64: u32 = 12;
}

pub(crate) struct Reader<R> {
    inner: R,
    pub(crate) offset: u64,
    pub(crate) file_len: u64,
}

impl<R: Read> Reader<R> {
    pub(crate) fn new(inner: R, file_len: u64) -> Self {
        Self { inner, offset: 0, file_len }
    }

    /// Fails unless `count` things of at least `each` bytes can still follow.
    pub(crate) fn expect_room(&self, count: u64, each: u64, what: &str) -> Result<(), Error> {
        let needed = count.saturating_mul(each);
        if needed <= self.file_len - self.offset {
            return Ok(());
        }
        Err(Error::Truncated { what: what.to_owned(), needed, offset: self.offset, file_len: self.file_len })
    }

    fn bytes<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Error> {
        self.expect_room(1, N as u64, what)?;
        let mut buffer = [0; N];
        self.inner.read_exact(&mut buffer)?;
        self.offset += N as u64;
        Ok(buffer)
    }

    pub(crate) fn magic(&mut self) -> Result<[u8; 4], Error> {
        self.bytes("the magic number")
    }

    pub(crate) fn u32(&mut self, what: &str) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.bytes(what)?))
    }

    pub(crate) fn u64(&mut self, what: &str) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.bytes(what)?))
    }

    /// A length-prefixed string. Bytes that are not UTF-8 become U+FFFD, as vocabularies of real
    /// models hold a few.
    pub(crate) fn string(&mut self, what: &str) -> Result<String, Error> {
        let len = self.u64(what)?;
        self.expect_room(len, 1, what)?;
        let mut buffer = vec![0; usize::try_from(len).map_err(|_| Error::key(what, "the string is too long"))?];
        self.inner.read_exact(&mut buffer)?;
        self.offset += len;
        Ok(String::from_utf8(buffer).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
    }

    pub(crate) fn value(&mut self, key: &str) -> Result<Value, Error> {
        let type_id = self.u32(key)?;
        Ok(match type_id {
            id::U8 => Value::Uint(self.bytes::<1>(key)?[0].into()),
            id::I8 => Value::Int(i8::from_le_bytes(self.bytes(key)?).into()),
            id::U16 => Value::Uint(u16::from_le_bytes(self.bytes(key)?).into()),
            id::I16 => Value::Int(i16::from_le_bytes(self.bytes(key)?).into()),
            id::U32 => Value::Uint(self.u32(key)?.into()),
            id::I32 => Value::Int(i32::from_le_bytes(self.bytes(key)?).into()),
            id::F32 => Value::F32(f32::from_le_bytes(self.bytes(key)?)),
            id::BOOL => Value::Bool(self.bytes::<1>(key)?[0] != 0),
            id::STRING => Value::String(self.string(key)?),
            id::ARRAY => Value::Array(self.array(key, 0)?),
            id::U64 => Value::Uint(self.u64(key)?),
            id::I64 => Value::Int(i64::from_le_bytes(self.bytes(key)?)),
            id::F64 => Value::F64(f64::from_le_bytes(self.bytes(key)?)),
            other => return Err(Error::key(key, format!("value type {other} is unknown"))),
        })
    }

    fn array(&mut self, key: &str, depth: u32) -> Result<Array, Error> {
        if depth == MAX_NESTING {
            return Err(Error::key(key, "arrays are nested too deep"));
        }
        let type_id = self.u32(key)?;
        let count = self.u64(key)?;
        Ok(match type_id {
            id::U8 => Array::U8(self.numbers(key, count, u8::from_le_bytes)?),
            id::I8 => Array::I8(self.numbers(key, count, i8::from_le_bytes)?),
            id::U16 => Array::U16(self.numbers(key, count, u16::from_le_bytes)?),
            id::I16 => Array::I16(self.numbers(key, count, i16::from_le_bytes)?),
            id::U32 => Array::U32(self.numbers(key, count, u32::from_le_bytes)?),
            id::I32 => Array::I32(self.numbers(key, count, i32::from_le_bytes)?),
            id::F32 => Array::F32(self.numbers(key, count, f32::from_le_bytes)?),
            id::BOOL => Array::Bool(self.numbers(key, count, |b: [u8; 1]| b[0] != 0)?),
            id::STRING => Array::String(self.elements(key, count, 8, |r| r.string(key))?),
            id::ARRAY => Array::Array(self.elements(key, count, 12, |r| r.array(key, depth + 1))?),
            id::U64 => Array::U64(self.numbers(key, count, u64::from_le_bytes)?),
            id::I64 => Array::I64(self.numbers(key, count, i64::from_le_bytes)?),
            id::F64 => Array::F64(self.numbers(key, count, f64::from_le_bytes)?),
            other => return Err(Error::key(key, format!("array element type {other} is unknown"))),
        })
    }

    fn numbers<T, const N: usize>(&mut self, key: &str, count: u64, make: fn([u8; N]) -> T) -> Result<Vec<T>, Error> {
        self.elements(key, count, N as u64, |r| Ok(make(r.bytes(key)?)))
    }

    /// `count` elements of at least `each` bytes in the file.
    fn elements<T>(
        &mut self,
        key: &str,
        count: u64,
        each: u64,
        mut one: impl FnMut(&mut Self) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        self.expect_room(count, each, &format!("array `{key}`"))?;
        (0..count).map(|_| one(self)).collect()
    }
}
