//! Every set against the reference, and the reference against floats.

use half::f16;
use proptest::prelude::*;

use super::team::Team;
use super::*;
use crate::quant::{Activations, Kind, dequantize};
use gguf::TensorType as T;

const QUANTIZED: [T; 11] =
    [T::Q2_K, T::Q3_K, T::Q4_K, T::Q5_K, T::Q6_K, T::Q4_0, T::Q4_1, T::Q5_0, T::Q5_1, T::Q8_0, T::IQ4_NL];

/// Bytes from a small generator: every code and scale occurs, halves are kept finite.
fn packed(weights: T, elements: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    let block = weights.block_bytes() as usize;
    let mut bytes: Vec<u8> = (0..elements / weights.block_elements() as usize * block).map(|_| next()).collect();
    for block in bytes.chunks_exact_mut(block) {
        let halves: &[usize] = match weights {
            T::Q2_K => &[80, 82],
            T::Q3_K => &[108],
            T::Q4_K | T::Q5_K | T::Q4_1 | T::Q5_1 => &[0, 2],
            T::Q6_K => &[208],
            _ => &[0],
        };
        for at in halves {
            let value = f16::from_f32((f32::from(next()) - 128.0) / 1000.0).to_le_bytes();
            block[*at..at + 2].copy_from_slice(&value);
        }
    }
    bytes
}

fn activations(rows: usize, width: usize, seed: u64) -> Activations {
    let value = |at: usize| ((at as u64).wrapping_mul(0x9E37_79B9).wrapping_add(seed) % 2003) as f32 / 1001.0 - 1.0;
    quantized((0..rows * width).map(value).collect(), width)
}

fn quantized(floats: Vec<f32>, width: usize) -> Activations {
    let (mut alone, mut activations) = (Team::new(1).unwrap(), Activations::default());
    activations.replace(floats.into(), width);
    let kinds = [Kind::Rows256, Kind::Rows32];
    kinds.into_iter().for_each(|kind| activations.quantize(&mut alone, Kernels::best().rows, kind));
    activations
}

/// The product, by one thread.
fn product(kernels: Kernels, matrix: Matrix<'_>, activations: &Activations) -> Vec<f32> {
    let mut out = [Buffer::default().resized(matrix.rows * activations.rows)];
    matmul(&mut Team::new(1).unwrap(), kernels, [matrix], activations, &mut out);
    out[0].to_vec()
}

/// The product in double precision, from dequantized weights and the float activations.
fn exact(matrix: Matrix<'_>, activations: &Activations) -> Vec<f64> {
    let mut weights = vec![0.0; matrix.rows * matrix.width];
    dequantize(matrix.weights, matrix.bytes, &mut weights);
    let rows = activations.floats.chunks_exact(matrix.width);
    rows.flat_map(|row| {
        let dot = |weights: &[f32]| row.iter().zip(weights).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        weights.chunks_exact(matrix.width).map(dot).collect::<Vec<f64>>()
    })
    .collect()
}

fn root_mean_square(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value * value, count + 1.0));
    f64::sqrt(sum / count)
}

/// Where the processor is emulated it is known what it has, so a set that is not found would show.
#[test]
fn the_best_set_comes_first_and_the_reference_last() {
    let names: Vec<_> = Kernels::all().map(|kernels| kernels.name).collect();
    assert_eq!(names.first(), Some(&Kernels::best().name));
    assert_eq!(names.last(), Some(&scalar::KERNELS.name));
    if let Ok(expected) = std::env::var("EXPECTED_KERNELS") {
        assert_eq!(names.join(" "), expected);
    }
}

#[test]
fn products_are_within_the_error_of_eight_bit_activations() {
    for kernels in Kernels::all() {
        for weights in QUANTIZED {
            let bytes = packed(weights, 96 * 512, 7);
            let matrix = Matrix { weights, rows: 96, width: 512, bytes: &bytes };
            let activations = activations(5, 512, 3);
            let (got, want) = (product(kernels, matrix, &activations), exact(matrix, &activations));
            let error = root_mean_square(got.iter().zip(&want).map(|(got, want)| f64::from(*got) - want));
            let share = error / root_mean_square(want.iter().copied());
            assert!(share < 0.012, "{} {weights}: {share}", kernels.name);
        }
    }
}

#[test]
fn a_team_computes_what_one_thread_does_for_several_matrices_at_once() {
    let [a, b] = [300, 47].map(|rows| packed(T::Q3_K, rows * 256, 5));
    let matrix = |bytes, rows| Matrix { weights: T::Q3_K, rows, width: 256, bytes };
    let (a, b, activations) = (matrix(&a, 300), matrix(&b, 47), activations(6, 256, 1));
    let mut together = [a, b].map(|matrix| Buffer::default().resized(matrix.rows * activations.rows));
    matmul(&mut Team::new(3).unwrap(), Kernels::best(), [a, b], &activations, &mut together);
    assert_eq!(together.map(|out| out.to_vec()), [a, b].map(|matrix| product(Kernels::best(), matrix, &activations)));
}

#[test]
fn a_row_does_not_depend_on_its_batch() {
    for (kernels, weights) in Kernels::all().flat_map(|set| QUANTIZED.map(|weights| (set, weights)).into_iter()) {
        let bytes = packed(weights, 70 * 256, 11);
        let matrix = Matrix { weights, rows: 70, width: 256, bytes: &bytes };
        let all = activations(9, 256, 5);
        let together = product(kernels, matrix, &all);
        for row in 0..9 {
            let alone = quantized(all.floats[row * 256..][..256].to_vec(), 256);
            assert_eq!(product(kernels, matrix, &alone), together[row * 70..][..70], "{} {weights}", kernels.name);
        }
    }
}

/// The set's products against the reference's. Sums of integers are exact; the floats around them
/// may be rounded in another order, which shows against the size of what is summed and not of what
/// is left of it.
fn agrees(kernels: Kernels, matrix: Matrix<'_>, activations: &Activations) -> Result<(), TestCaseError> {
    let reference = product(scalar::KERNELS, matrix, activations);
    let got = product(kernels, matrix, activations);
    let mut weights = vec![0.0; matrix.rows * matrix.width];
    dequantize(matrix.weights, matrix.bytes, &mut weights);
    for (at, (got, reference)) in got.iter().zip(&reference).enumerate().filter(|(_, (_, r))| r.is_finite()) {
        let weights = &weights[at % matrix.rows * matrix.width..][..matrix.width];
        let values = &activations.floats[at / matrix.rows * matrix.width..];
        let size: f32 = weights.iter().zip(values).map(|(a, b)| (a * b).abs()).sum();
        let near = (got - reference).abs() <= 1e-5 * size.max(1e-6);
        prop_assert!(near, "{} {} at {at}: {got} {reference} {size}", kernels.name, matrix.weights);
    }
    Ok(())
}

/// Sixty-four cases, or what `PROPTEST_CASES` says if that is fewer: an emulated processor is slow.
fn cases() -> ProptestConfig {
    ProptestConfig::with_cases(ProptestConfig::default().cases.min(64))
}

proptest! {
    #![proptest_config(cases())]

    /// Any bytes are some block: codes and scales at their extremes included, and activations that
    /// are all as large as can be, so that any sum too long for its register would show.
    #[test]
    fn every_set_agrees_with_the_reference(
        (seed, kind) in (any::<u64>(), 0usize..11),
        (rows, batch) in (1usize..70, 1usize..10),
        (extreme, same) in (any::<bool>(), any::<bool>()),
    ) {
        let weights = QUANTIZED[kind];
        let mut bytes = packed(weights, rows * 512, seed);
        if extreme {
            let kept = bytes.clone();
            bytes.fill(0xff);
            let tail = bytes.len() - 4;
            bytes[..4].copy_from_slice(&kept[..4]);
            bytes[tail..].copy_from_slice(&kept[tail..]);
        }
        let mut activations = activations(batch, 512, seed);
        if same {
            let sign = if seed % 2 == 0 { 1.0 } else { -1.0 };
            activations = quantized(vec![sign; batch * 512], 512);
        }
        let matrix = Matrix { weights, rows, width: 512, bytes: &bytes };
        for kernels in Kernels::all() {
            agrees(kernels, matrix, &activations)?;
        }
    }

    /// Sets may take several small blocks at once; what is left over must not be lost.
    #[test]
    fn rows_of_any_number_of_small_blocks_agree((kind, blocks, batch) in (5usize..11, 1usize..20, 1usize..6)) {
        let (weights, width) = (QUANTIZED[kind], 32 * blocks);
        let bytes = packed(weights, 40 * width, blocks as u64);
        let matrix = Matrix { weights, rows: 40, width, bytes: &bytes };
        for kernels in Kernels::all() {
            agrees(kernels, matrix, &activations(batch, width, 9))?;
        }
    }

    #[test]
    fn float_loops_agree_with_the_reference(values in proptest::collection::vec(-4.0f32..4.0, 0..70)) {
        let near = |a: f32, b: f32| (a - b).abs() <= 1e-4 * (1.0 + b.abs()) * (1 + values.len()) as f32;
        for set in Kernels::all() {
            prop_assert!(near((set.dot_f32)(&values, &values), (scalar::KERNELS.dot_f32)(&values, &values)));
        }
    }
}
