//! How fast each set of kernels multiplies: products of one matrix, by type, shape and rows of the
//! batch, in billions of multiplications a second. Matrices are taken in turn from far more memory
//! than the caches hold, as in a step of a model.
//!
//! `cargo bench -p paged-engine --bench kernels -- [set] [threads]`

use std::hint::black_box;
use std::time::{Duration, Instant};

use gguf::TensorType as T;
use paged_engine::kernels::team::Team;
use paged_engine::kernels::{Buffer, Kernels, Matrix, matmul};
use paged_engine::quant::{Activations, Kind};

/// Bytes of weights that are gone through before the first comes again.
const BYTES: usize = 160 << 20;
const BATCHES: [usize; 7] = [1, 2, 4, 8, 20, 64, 128];

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let named = arguments.next().and_then(|name| Kernels::named(&name));
    let threads = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(0);
    let kernels = named.unwrap_or_else(Kernels::best);
    let mut team = Team::new(threads)?;
    println!("kernels {}, threads {}; G products/s by rows of the batch", kernels.name, team.threads());
    println!("{:>22} {}", "", BATCHES.map(|batch| format!("{batch:>6}")).join(" "));
    for weights in [T::Q3_K, T::Q4_K, T::Q5_K, T::Q6_K, T::Q2_K, T::Q4_0, T::Q5_1, T::Q8_0, T::IQ4_NL] {
        for (rows, width) in [(1024, 1024), (2816, 1024), (1024, 2816)] {
            let rates = BATCHES.map(|batch| rate(&mut team, kernels, (weights, rows, width), batch));
            let rates = rates.map(|rate| format!("{rate:>6.0}")).join(" ");
            println!("{:>22} {rates}", format!("{weights} {rows}x{width}"));
        }
    }
    Ok(())
}

fn rate(team: &mut Team, kernels: Kernels, (weights, rows, width): (T, usize, usize), batch: usize) -> f64 {
    let length = rows * width / weights.block_elements() as usize * weights.block_bytes() as usize;
    let bytes: Vec<u8> = (0..BYTES / length * length).map(|at| (at * 2_654_435_761) as u8 & 0x3f).collect();
    let floats: Vec<f32> = (0..batch * width).map(|at| (at * 97 % 2003) as f32 / 1001.0 - 1.0).collect();
    let mut activations = Activations::default();
    activations.replace(floats.into(), width);
    [Kind::Rows256, Kind::Rows32].into_iter().for_each(|kind| activations.quantize(team, kernels.rows, kind));
    let mut out = [Buffer::from(vec![0.0; batch * rows])];
    let (started, mut products) = (Instant::now(), 0);
    for bytes in bytes.chunks_exact(length).cycle() {
        let matrix = Matrix { weights, rows, width, bytes };
        matmul(team, kernels, [matrix], &activations, &mut out);
        black_box(&out);
        products += rows * width * batch;
        if started.elapsed() > Duration::from_millis(150) {
            break;
        }
    }
    products as f64 / started.elapsed().as_secs_f64() / 1e9
}
