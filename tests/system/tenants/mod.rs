//! Organisations, projects, keys and what keeps them apart.

mod commands;
mod keys;
mod matrix;
mod pools;
mod quotas;
pub(crate) mod routes;
