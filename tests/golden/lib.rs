//! Recorded answers, and what checks them: kernels (`corpus`) and generated modules (`generated`).
//!
//! The files beside this one are the same for every processor. Tests run them here; `golden-runner` is the same code as
//! a program, to be built for another processor and run there.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    reason = "a test stops where it fails"
)]

pub mod corpus;
pub mod dist;
pub mod generated;
pub mod wrap;
