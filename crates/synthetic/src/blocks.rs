//! Random blocks of every type: any codes are valid, so only the scales have to be made.

use gguf::TensorType;

/// Splitmix64 (<https://prng.di.unimi.it/splitmix64.c>).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Uniform from 0 to 1.
    pub fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// Of either sign, its size uniform between these.
    pub fn signed(&mut self, least: f32, most: f32) -> f32 {
        let size = least + self.unit() * (most - least);
        if self.next() & 1 == 0 { size } else { -size }
    }
}

/// How random codes of a type are scattered, and where its scales stand.
struct Layout {
    /// The deviation of weights at scale 1.
    deviation: f32,
    /// Where the scale stands in a block.
    scale: usize,
    /// Where the offset's scale stands, and how many scales it has to be to bring the mean to 0.
    offset: Option<(usize, f32)>,
}

/// `elements` numbers of about this standard deviation and a mean of about 0.
pub fn random(kind: TensorType, elements: u64, deviation: f32, random: &mut Random) -> Vec<u8> {
    let Some(layout) = layout(kind) else {
        // Uniform numbers deviate by their half width over the root of 3.
        let mut one = || (random.unit() * 2.0 - 1.0) * deviation * 3f32.sqrt();
        return (0..elements).flat_map(|_| float(kind, one())).collect();
    };
    let block = kind.block_bytes() as usize;
    let mut bytes = vec![0; (elements / kind.block_elements()) as usize * block];
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]);
    }
    for block in bytes.chunks_exact_mut(block) {
        // Scales differ from block to block, so that a mistaken one shows.
        let scale = deviation / layout.deviation * (0.75 + random.unit() / 2.0);
        block[layout.scale..layout.scale + 2].copy_from_slice(&half(scale));
        if let Some((at, scales)) = layout.offset {
            block[at..at + 2].copy_from_slice(&half(scale * scales));
        }
    }
    bytes
}

/// None for types without blocks. Deviations are those of uniform codes and sub-scales.
fn layout(kind: TensorType) -> Option<Layout> {
    use TensorType::*;
    let layout = |deviation, scale, offset| Some(Layout { deviation, scale, offset });
    match kind {
        Q4_0 => layout(4.6, 0, None),
        Q4_1 => layout(4.6, 0, Some((2, -7.5))),
        Q5_0 => layout(9.2, 0, None),
        Q5_1 => layout(9.2, 0, Some((2, -15.5))),
        Q8_0 => layout(73.9, 0, None),
        IQ4_NL => layout(67.4, 0, None),
        Q2_K => layout(13.9, 80, Some((82, 1.5))),
        Q3_K => layout(43.0, 108, None),
        Q4_K => layout(256.0, 0, Some((2, 7.5))),
        Q5_K => layout(522.0, 0, Some((2, 15.5))),
        Q6_K => layout(1365.0, 208, None),
        _ => None,
    }
}

fn float(kind: TensorType, value: f32) -> Vec<u8> {
    match kind {
        TensorType::F16 => half(value).to_vec(),
        TensorType::BF16 => value.to_le_bytes()[2..].to_vec(),
        _ => value.to_le_bytes().to_vec(),
    }
}

/// Half precision, truncated. Scales of real files are often too small for a normal number.
fn half(value: f32) -> [u8; 2] {
    let bits = value.to_bits();
    let exponent = (bits >> 23 & 0xff) as i32 - 127 + 15;
    let sign = (bits >> 16 & 0x8000) as u16;
    let magnitude = match exponent {
        31.. => 0x7bff,
        1.. => (exponent as u16) << 10 | (bits >> 13 & 0x3ff) as u16,
        -9.. => ((bits & 0x7f_ffff | 0x80_0000) >> (14 - exponent)) as u16,
        _ => 0,
    };
    (sign | magnitude).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_keeps_sign_and_size() {
        for (value, bits) in [(1.0, 0x3c00u16), (-2.0, 0xc000), (0.5, 0x3800), (1e-9, 0), (1e9, 0x7bff), (3e-5, 503)] {
            assert_eq!(half(value), bits.to_le_bytes(), "{value}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_another_gives_others() {
        let bytes = |seed| random(TensorType::Q3_K, 512, 0.1, &mut Random::new(seed));
        assert_eq!(bytes(1), bytes(1));
        assert_ne!(bytes(1), bytes(2));
        assert_eq!(bytes(1).len(), 220);
    }
}
