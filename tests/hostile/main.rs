//! Kernels that misbehave in every way we could think of: each ends in a typed failure that names the unit, and the next
//! honest kernel runs as if nothing had been.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod in_process;
mod kernels;
mod processes;
mod shipped;
mod supplied;
mod verdicts;
