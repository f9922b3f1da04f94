//! Generated modules: every backend gives the same bits and burns the same fuel.
//!
//! 2,000 modules, or as many as `FORGEPOOL_GENERATED_MODULES` says.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]

mod components;
mod modules;
