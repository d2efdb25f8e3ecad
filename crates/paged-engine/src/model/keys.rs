//! Numbers of a model's header, each within bounds: nothing computed from them later overflows.

use gguf::{Header, Value};

use crate::Error;

/// More than any width, count or length of a real model, in numbers.
const MOST: u64 = 1 << 24;

/// The keys of one architecture.
pub struct Keys<'a> {
    header: &'a Header,
    architecture: &'a str,
}

impl<'a> Keys<'a> {
    /// # Errors
    /// The file does not name its architecture.
    pub fn of(header: &'a Header) -> Result<Self, Error> {
        Ok(Self { header, architecture: header.str("general.architecture")? })
    }

    /// The value of `architecture.name`.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.header.metadata.get(&format!("{}.{name}", self.architecture))
    }

    /// A size, which must be there.
    ///
    /// # Errors
    /// [`Error::File`] names the key.
    pub fn size(&self, name: &str) -> Result<usize, Error> {
        self.optional_size(name)?.ok_or_else(|| self.wrong(name, "is missing"))
    }

    /// A size, if the file says it.
    ///
    /// # Errors
    /// [`Error::File`] names the key.
    pub fn optional_size(&self, name: &str) -> Result<Option<usize>, Error> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let size = value.as_u64().filter(|size| *size <= MOST).and_then(|size| usize::try_from(size).ok());
        size.map(Some).ok_or_else(|| self.wrong(name, &format!("must be an integer from 0 to {MOST}")))
    }

    /// A finite number of at least zero, if the file says it.
    ///
    /// # Errors
    /// [`Error::File`] names the key.
    pub fn float(&self, name: &str) -> Result<Option<f32>, Error> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let float = match value {
            Value::F32(value) => Some(*value),
            Value::F64(value) => Some(*value as f32),
            _ => None,
        };
        let float = float.filter(|float| float.is_finite() && *float >= 0.0);
        float.map(Some).ok_or_else(|| self.wrong(name, "must be a finite number of at least 0"))
    }

    /// An error about this key.
    pub fn wrong(&self, name: &str, problem: &str) -> Error {
        Error::File(format!("key `{}.{name}`: {problem}", self.architecture))
    }
}

/// A number that the summary has read from the key `name`.
///
/// # Errors
/// [`Error::File`] if it is absurd.
pub fn bounded(name: &str, value: u64) -> Result<usize, Error> {
    let small = Some(value).filter(|value| (1..=MOST).contains(value)).and_then(|value| usize::try_from(value).ok());
    small.ok_or_else(|| Error::File(format!("`{name}` is {value}: 1 to {MOST} can be")))
}
