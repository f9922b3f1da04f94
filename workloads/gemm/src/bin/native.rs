//! The kernel's own source, compiled natively: what the sandboxed kernel is compared with.
//!
//! `gemm-native [--size N] [--single] [--json]` multiplies one tile of 512 x 512 with k = N and prints GFLOP/s.
#![expect(clippy::print_stdout, reason = "a command that prints its measurement")]

use std::time::Instant;

use forge_sdk_guest::Rectangle;
use kernel_gemm::{Arguments, Real, tile};

const TILE: u32 = 512;

fn main() {
    let (mut depth, mut single, mut json) = (1024, false, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--single" => single = true,
            "--json" => json = true,
            "--size" => depth = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(depth),
            _ => {}
        }
    }
    let gflops = if single { measure::<f32>(depth) } else { measure::<f64>(depth) };
    if json {
        println!("{{\"k\":{depth},\"gflops\":{gflops}}}");
    } else {
        println!("512 x 512 x {depth}: {gflops:.2} GFLOP/s");
    }
}

/// The best of five, in GFLOP/s.
fn measure<T: Real>(depth: u64) -> f64 {
    let side = u64::from(TILE);
    let given = Arguments { m: side, n: side, k: depth, alpha: 1.0, beta: 0.0 };
    let (a, b) = (file::<T>(side, depth, 1), file::<T>(depth, side, 2));
    let at = Rectangle { row: 0, column: 0, rows: TILE, columns: TILE };
    let mut fastest = f64::INFINITY;
    for _ in 0..5 {
        let begun = Instant::now();
        let found = tile::<T, &[u8]>(&given, at, |name| Ok(if name == "a" { &a } else { &b }));
        fastest = fastest.min(begun.elapsed().as_secs_f64());
        assert!(found.is_ok_and(|bytes| bytes.len() == TILE as usize * TILE as usize * size_of::<T>()));
    }
    2.0 * (side * side * depth) as f64 / fastest / 1e9
}

/// A `.npy` file of numbers between -1 and 1.
fn file<T: Real>(rows: u64, columns: u64, seed: u64) -> Vec<u8> {
    let descr = forge_sdk_guest::npy::descr(T::NUMBER);
    let dictionary = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    let mut bytes = b"\x93NUMPY\x01\0".to_vec();
    bytes.extend([118, 0]);
    bytes.extend(format!("{dictionary:<117}\n").bytes());
    let mut state = seed;
    for _ in 0..rows * columns {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        T::nearest((state >> 11) as f64 / (1u64 << 52) as f64 - 1.0).write(&mut bytes);
    }
    bytes
}
