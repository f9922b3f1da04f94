//! Organisations, projects, keys and what keeps them apart.

mod keys;
mod matrix;
mod quotas;
mod routes;
