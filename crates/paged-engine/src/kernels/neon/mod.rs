//! NEON with 8-bit products: aarch64 processors of the last years, Apple's from the M1 on (`sdot`)
//! and from the M2 on (`smmla`). Older ones have the reference.
#![allow(unsafe_code, reason = "intrinsics and instructions; each function states what it needs")]

mod attention;
mod columns;
mod dotprod;
mod dots;
mod floats;
mod i8mm;
mod k_quants;
mod small;

use gguf::TensorType;

use self::columns::TILE;
use self::dotprod::DotProd;
use self::dots::Dots;
use self::floats::dot_f32;
use self::i8mm::I8mm;
use super::Kernels;
use crate::quant::{Panel32, Panel256, Panels};

/// The sets that this processor has, the fastest first.
pub fn kernels() -> impl Iterator<Item = Kernels> {
    [set::<I8mm>(), set::<DotProd>()].into_iter().flatten()
}

fn set<D: Dots>() -> Option<Kernels> {
    let attention = attention::LOOPS;
    let (tile256, tile32) = (tile256::<D>, tile32::<D>);
    D::there().then_some(Kernels {
        name: D::NAME,
        tile: TILE,
        tile256,
        tile32,
        dot_f32,
        attention,
        rows: super::rows::PLAIN,
    })
}

// The functions below are handed out by `set` alone, so the extension they need is there.

fn tile256<D: Dots>(weights: TensorType, rows: &[u8], values: &Panels<Panel256>, out: &mut [f32]) {
    // SAFETY: the extension is there.
    unsafe { k_quants::tile::<D>(weights, rows, values, out) }
}

fn tile32<D: Dots>(weights: TensorType, rows: &[u8], values: &Panels<Panel32>, out: &mut [f32]) {
    // SAFETY: the extension is there.
    unsafe { small::tile::<D>(weights, rows, values, out) }
}
