//! The types with blocks of 32: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and IQ4_NL.

use gguf::TensorType;

use super::{SMALL, half_at};

/// 32 weights, unpacked: weight `i` is `d * codes[i] + m`.
#[derive(Clone, Debug)]
#[repr(C, align(32))]
pub struct Block32 {
    pub codes: [i8; SMALL],
    pub d: f32,
    pub m: f32,
}

/// The sixteen values of IQ4_NL.
pub const NON_LINEAR: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

impl Default for Block32 {
    fn default() -> Self {
        Self { codes: [0; SMALL], d: 0.0, m: 0.0 }
    }
}

impl Block32 {
    /// Unpacks one block; `packed` has the type's block length.
    pub fn unpack(&mut self, weights: TensorType, packed: &[u8]) {
        use TensorType as T;
        self.d = half_at(packed, 0);
        self.m = if matches!(weights, T::Q4_1 | T::Q5_1) { half_at(packed, 2) } else { 0.0 };
        match weights {
            T::Q4_0 => self.nibbles(&packed[2..], |code, _| code.cast_signed() - 8),
            T::Q4_1 => self.nibbles(&packed[4..], |code, _| code.cast_signed()),
            T::IQ4_NL => self.nibbles(&packed[2..], |code, _| NON_LINEAR[usize::from(code)]),
            T::Q5_0 => self.five_bits(&packed[2..6], &packed[6..], 16),
            T::Q5_1 => self.five_bits(&packed[4..8], &packed[8..], 0),
            _ => {
                for (code, byte) in self.codes.iter_mut().zip(&packed[2..]) {
                    *code = byte.cast_signed();
                }
            }
        }
    }

    /// The weights as floats.
    pub fn dequantize(&self, out: &mut [f32]) {
        for (code, out) in self.codes.iter().zip(out) {
            *out = self.d * f32::from(*code) + self.m;
        }
    }

    /// Low halves of sixteen bytes first, then the high halves; `value` gets code and place.
    fn nibbles(&mut self, bytes: &[u8], value: impl Fn(u8, usize) -> i8) {
        for (place, byte) in bytes.iter().take(16).enumerate() {
            self.codes[place] = value(byte & 15, place);
            self.codes[place + 16] = value(byte >> 4, place + 16);
        }
    }

    /// Nibbles with a fifth bit each from a 32-bit word.
    fn five_bits(&mut self, top: &[u8], bytes: &[u8], offset: i8) {
        let top = u32::from_le_bytes([top[0], top[1], top[2], top[3]]);
        self.nibbles(bytes, |code, place| {
            let fifth = ((top >> place) & 1) as u8;
            (code | fifth << 4).cast_signed() - offset
        });
    }
}
