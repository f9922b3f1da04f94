//! insurance.v1 of mc@1 against an independent truth: closed forms and a convolution, sharing nothing with the kernel;
//! and what the cheap check of gemm@1 says of true and false tiles.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a test stops where it fails; grids are indexed"
)]

mod aggregate;
mod cases;
mod coverage;
mod examples;
mod expected;
mod fourier;
mod model;
mod normal;
mod output;
mod published;
mod randomness;
mod run;
mod sample;
mod tiles;

use forge_golden::dist;
