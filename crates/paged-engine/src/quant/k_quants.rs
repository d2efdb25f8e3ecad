//! The k-quants, Q2_K to Q6_K: 256 weights in 16 groups with integer scales.

use gguf::TensorType;

use super::{GROUP, K, half_at};

/// 256 weights, unpacked. Weight `i` of group `g = i / 16` is
/// `d * scales[g] * codes[i] - dmin * mins[g]`.
///
/// Types with signed codes (Q3_K, Q6_K) are brought to this form by their offset, so one kernel
/// serves all.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Block256 {
    /// 0 to 63.
    pub codes: [u8; K],
    pub scales: [i16; GROUP],
    pub mins: [i16; GROUP],
    pub d: f32,
    pub dmin: f32,
}

impl Default for Block256 {
    fn default() -> Self {
        Self { codes: [0; K], scales: [0; GROUP], mins: [0; GROUP], d: 0.0, dmin: 0.0 }
    }
}

impl Block256 {
    /// Unpacks one block of a k-quant; `packed` has the type's block length.
    pub fn unpack(&mut self, weights: TensorType, packed: &[u8]) {
        match weights {
            TensorType::Q2_K => self.q2(packed),
            TensorType::Q3_K => self.q3(packed),
            TensorType::Q4_K => self.q4(packed),
            TensorType::Q5_K => self.q5(packed),
            _ => self.q6(packed),
        }
    }

    /// The weights as floats.
    pub fn dequantize(&self, out: &mut [f32]) {
        for (group, (codes, out)) in self.codes.chunks_exact(GROUP).zip(out.chunks_exact_mut(GROUP)).enumerate() {
            let scale = self.d * f32::from(self.scales[group]);
            let min = self.dmin * f32::from(self.mins[group]);
            for (code, out) in codes.iter().zip(out) {
                *out = scale * f32::from(*code) - min;
            }
        }
    }

    /// 16 bytes of 4-bit scale and 4-bit min, 64 bytes of codes, d, dmin.
    fn q2(&mut self, packed: &[u8]) {
        let (scales, codes) = (&packed[..16], &packed[16..80]);
        (self.d, self.dmin) = (half_at(packed, 80), half_at(packed, 82));
        for (group, byte) in scales.iter().enumerate() {
            self.scales[group] = i16::from(byte & 15);
            self.mins[group] = i16::from(byte >> 4);
        }
        for (part, out) in self.codes.chunks_exact_mut(32).enumerate() {
            let from = &codes[part / 4 * 32..][..32];
            let shift = part % 4 * 2;
            for (out, byte) in out.iter_mut().zip(from) {
                *out = (byte >> shift) & 3;
            }
        }
    }

    /// 32 bytes of high bits, 64 bytes of low code bits, 12 bytes of 6-bit scales, d.
    fn q3(&mut self, packed: &[u8]) {
        let (high, codes, scales) = (&packed[..32], &packed[32..96], &packed[96..108]);
        self.d = half_at(packed, 108);
        self.dmin = self.d;
        for (group, scale) in scales_q3(scales).into_iter().enumerate() {
            self.scales[group] = i16::from(scale) - 32;
            self.mins[group] = 4 * self.scales[group];
        }
        for (part, out) in self.codes.chunks_exact_mut(32).enumerate() {
            let from = &codes[part / 4 * 32..][..32];
            let shift = part % 4 * 2;
            for ((out, byte), high) in out.iter_mut().zip(from).zip(high) {
                *out = (byte >> shift) & 3 | ((high >> part) & 1) << 2;
            }
        }
    }

    /// d, dmin, 12 bytes of scales and mins, 128 bytes of codes.
    fn q4(&mut self, packed: &[u8]) {
        self.scales_and_mins(packed);
        for (part, out) in self.codes.chunks_exact_mut(64).enumerate() {
            let from = &packed[16 + part * 32..][..32];
            let (low, high) = out.split_at_mut(32);
            for ((low, high), byte) in low.iter_mut().zip(high).zip(from) {
                (*low, *high) = (byte & 15, byte >> 4);
            }
        }
    }

    /// d, dmin, 12 bytes of scales and mins, 32 bytes of high bits, 128 bytes of low code bits.
    fn q5(&mut self, packed: &[u8]) {
        self.scales_and_mins(packed);
        let top = &packed[16..48];
        for (part, out) in self.codes.chunks_exact_mut(64).enumerate() {
            let from = &packed[48 + part * 32..][..32];
            let (low, high) = out.split_at_mut(32);
            for (((low, high), byte), top) in low.iter_mut().zip(high).zip(from).zip(top) {
                let bits = top >> (2 * part);
                *low = byte & 15 | (bits & 1) << 4;
                *high = byte >> 4 | (bits & 2) << 3;
            }
        }
    }

    /// 128 bytes of low code bits, 64 bytes of high ones, 16 scales, d.
    fn q6(&mut self, packed: &[u8]) {
        let (low, high, scales) = (&packed[..128], &packed[128..192], &packed[192..208]);
        self.d = half_at(packed, 208);
        self.dmin = self.d;
        for (group, scale) in scales.iter().enumerate() {
            self.scales[group] = i16::from(scale.cast_signed());
            self.mins[group] = 32 * self.scales[group];
        }
        for (part, out) in self.codes.chunks_exact_mut(32).enumerate() {
            let (half, quarter) = (part / 4, part % 4);
            let low = &low[half * 64 + quarter % 2 * 32..][..32];
            let high = &high[half * 32..][..32];
            for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
                *out = (low >> (quarter / 2 * 4)) & 15 | ((high >> (2 * quarter)) & 3) << 4;
            }
        }
    }

    /// Q4_K and Q5_K: d, dmin, and eight 6-bit scales and mins in twelve bytes, one for 32 weights.
    fn scales_and_mins(&mut self, packed: &[u8]) {
        (self.d, self.dmin) = (half_at(packed, 0), half_at(packed, 2));
        let (scales, mins) = scales_q45(&packed[4..16]);
        self.scales = scales.map(i16::from);
        self.mins = mins.map(i16::from);
    }
}

/// The sixteen 6-bit scales of Q3_K in twelve bytes, 32 too large. Four at a time: the low halves
/// lie in the first eight bytes, the high pairs of bits in the last four.
pub fn scales_q3(bytes: &[u8]) -> [u8; GROUP] {
    let [a, b, high] = words(bytes);
    let join = |low: u32, high: u32| low & 0x0f0f_0f0f | (high & 0x0303_0303) << 4;
    from_words([join(a, high), join(b, high >> 2), join(a >> 4, high >> 4), join(b >> 4, high >> 6)])
}

/// The eight 6-bit scales and the eight mins of Q4_K and Q5_K in twelve bytes, each written twice:
/// they hold for two groups.
pub fn scales_q45(bytes: &[u8]) -> ([u8; GROUP], [u8; GROUP]) {
    let [a, b, c] = words(bytes);
    let join = |low: u32, high: u32| low & 0x0f0f_0f0f | (high >> 6 & 0x0303_0303) << 4;
    let twice = |first: u32, second: u32| {
        let [a, b, c, d] = first.to_le_bytes();
        let [e, f, g, h] = second.to_le_bytes();
        [a, a, b, b, c, c, d, d, e, e, f, f, g, g, h, h]
    };
    (twice(a & 0x3f3f_3f3f, join(c, a)), twice(b & 0x3f3f_3f3f, join(c >> 4, b)))
}

fn words(bytes: &[u8]) -> [u32; 3] {
    std::array::from_fn(|at| {
        u32::from_le_bytes([bytes[4 * at], bytes[4 * at + 1], bytes[4 * at + 2], bytes[4 * at + 3]])
    })
}

fn from_words(words: [u32; 4]) -> [u8; GROUP] {
    std::array::from_fn(|at| words[at / 4].to_le_bytes()[at % 4])
}
