//! The committed kernels give the recorded bytes and burn the recorded fuel, under every backend.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test stops where it fails"
)]

mod examples;
mod generator;
mod known;
mod pins;
mod products;
mod quickstart;

use forge_golden::{corpus, dist};
