//! Memory for numbers that serves again and again.

use std::ops::{Deref, DerefMut};

/// Numbers of some length. What it had room for once it has for good, so that a change of length
/// costs nothing.
#[derive(Debug, Default)]
pub struct Buffer {
    all: Vec<f32>,
    length: usize,
}

impl Buffer {
    /// Numbers that it has room for.
    pub fn room(&self) -> usize {
        self.all.len()
    }

    /// Of this length now, whatever stands in it.
    pub fn resized(mut self, length: usize) -> Self {
        if self.all.len() < length {
            self.all = vec![0.0; length];
        }
        Self { length, ..self }
    }
}

impl From<Vec<f32>> for Buffer {
    fn from(all: Vec<f32>) -> Self {
        Self { length: all.len(), all }
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.all[..self.length]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.all[..self.length]
    }
}
