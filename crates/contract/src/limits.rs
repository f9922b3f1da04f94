//! Limits: of one unit, declared by its kernel, and of the platform, fixed here.

use serde::{Deserialize, Serialize};

/// What one unit may use. Running out is as deterministic as the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitLimits {
    /// Fuel, in units of the engine profile's cost table.
    pub fuel: u64,
    /// Linear memory, bytes; at most [`MEMORY_BYTES_MAX`].
    pub memory_bytes: u64,
    /// Canonical size of the fragment, bytes; at most [`OUTPUT_BYTES_MAX`].
    pub output_bytes: u64,
}

/// Largest request body, bytes.
pub const REQUEST_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting of a JSON request.
pub const JSON_DEPTH_MAX: usize = 64;
/// Largest component, bytes.
pub const COMPONENT_BYTES_MAX: u64 = 16 << 20;
/// Largest input of a job, bytes.
pub const INPUT_BYTES_MAX: u64 = 1 << 30;
/// Largest linear memory of a unit, bytes.
pub const MEMORY_BYTES_MAX: u64 = 512 << 20;
/// Largest fragment of a unit, canonical bytes.
pub const OUTPUT_BYTES_MAX: u64 = 64 << 20;
/// Largest matrix that one job's tiles make together, bytes: the hub holds it up to four times while a job ends.
pub const RESULT_BYTES_MAX: u64 = 256 << 20;
/// Largest fuel of a unit.
pub const FUEL_MAX: u64 = 1 << 50;
/// Most units of a stage.
pub const UNITS_MAX: u64 = 1 << 32;
/// Most shards of a job.
pub const SHARDS_MAX: u64 = 100_000;
/// Most units of a shard: a report carries a digest for each.
pub const SHARD_UNITS_MAX: u64 = 1 << 14;
/// Most agents a policy may ask for.
pub const AGENTS_MAX: u64 = 100_000;
/// Longest `policy.timeout_ms`: thirty days.
pub const TIMEOUT_MS_MAX: u64 = 30 * 24 * 3600 * 1000;
/// Kernel log kept per shard (stdout and stderr together), bytes. It is no part of the result.
pub const LOG_BYTES_MAX: usize = 16 << 10;
/// Longest text of a kernel's refusal or a trap, bytes.
pub const DETAIL_BYTES_MAX: usize = 1 << 10;
/// Longest all reasons of a shard's verdicts together, bytes.
pub const REASONS_BYTES_MAX: usize = 64 << 10;
