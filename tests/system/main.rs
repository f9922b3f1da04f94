//! The whole system: a real hub and real agents as processes on loopback.
#![allow(clippy::print_stdout)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod agent_input;
mod answers;
mod audit;
mod authors;
mod backup;
mod bad_component;
mod bad_input;
mod blobs;
mod books;
mod cancel;
mod churn;
mod command;
mod convergence;
mod data;
mod docs;
mod events;
mod evidence;
mod gemm;
mod idempotency;
mod kernels;
mod kills;
mod provider;
mod quickstart;
mod replay;
mod restart;
mod same_bits;
mod schema;
mod stages;
mod statistics;
mod stranger;
mod tenants;
mod tls;
mod tracing;
mod up;
mod wire_input;
