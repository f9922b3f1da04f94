//! The committed kernels give the recorded bytes and burn the recorded fuel, under every backend.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test stops where it fails"
)]

mod corpus;
mod dist;
mod examples;
mod generator;
mod pins;
mod products;
mod quickstart;
