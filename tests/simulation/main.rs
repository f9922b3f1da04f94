//! The pool under a seeded simulator: virtual time, agents that come, go, hang, lie and repeat themselves, links that
//! lose messages, hubs that die at any point. Thousands of runs; every completed one must give the reference bits.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    missing_docs
)]

mod adversaries;
mod churn;
mod converge;
mod cuts;
mod dice;
mod failures;
mod fairness;
mod grid;
mod hand;
mod kernel;
mod leases;
mod looks;
mod private;
mod reopening;
mod scale;
mod world;
