//! The contract as a client sends it.
