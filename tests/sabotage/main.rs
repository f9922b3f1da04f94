//! Liars as processes of their own: they enrol, speak the true protocol, and lie on cue at a real hub among real agents.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]

mod jobs;
mod modes;
mod wire;
