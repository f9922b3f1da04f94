//! Faults with real processes.
