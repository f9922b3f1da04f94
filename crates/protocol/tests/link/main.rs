//! Hub and agents over real QUIC on loopback.
//!
//! Nothing sleeps to let something happen: every wait is for an event, bounded only so that a failure is not a hang.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod enrolment;
mod fetching;
mod foreign;
mod leases;
mod pair;
mod raw;
mod sessions;
