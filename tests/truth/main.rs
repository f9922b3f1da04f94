//! insurance.v1 of mc@1 against an independent truth: closed forms and a convolution, sharing nothing with the kernel.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a test stops where it fails; grids are indexed"
)]

mod aggregate;
mod expected;
mod fourier;
mod model;
mod normal;
mod published;
