//! Limits of one unit's store.

use wasmtime::ResourceLimiter;

use crate::bounds::{INSTANCES_MAX, TABLE_ELEMENTS_MAX};

/// What wasmtime 48 says of a growth past 4 GiB. A test grows that far, so another wording cannot pass unseen.
const BEYOND_TYPE: &str = "memory growth exceeds memory type's limits";

/// Why a unit was stopped by the limiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// Units: bytes over all of the unit's memories.
    #[error("it asked for {asked} bytes of memory where its limit is {limit}")]
    Memory { asked: u64, limit: u64 },
    #[error("it asked for a table of {asked} elements where the limit is {limit}")]
    Table { asked: u64, limit: u64 },
    /// Within its limit, but the machine had no more: says nothing about the kernel.
    #[error("the machine has no memory for it")]
    Machine,
}

/// Grants memory up to the unit's limit and ends the unit at the first request beyond it, so that a kernel cannot
/// tell one machine from another by how a growth fails.
#[derive(Debug)]
pub(crate) struct Limiter {
    memory_bytes: u64,
    granted: u64,
    /// Set once, with the error that unwinds the unit.
    pub(crate) refused: Option<Refused>,
}

impl Limiter {
    pub(crate) fn new(memory_bytes: u64) -> Self {
        Self { memory_bytes, granted: 0, refused: None }
    }

    fn refuse(&mut self, refused: Refused) -> wasmtime::Error {
        self.refused = Some(refused);
        wasmtime::Error::new(refused)
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current) as u64;
        let asked = self.granted.saturating_add(more);
        if asked > self.memory_bytes {
            let limit = self.memory_bytes;
            return Err(self.refuse(Refused::Memory { asked, limit }));
        }
        if maximum.is_some_and(|maximum| desired > maximum) {
            // The kernel's own bound: it sees the growth fail, as WebAssembly says.
            return Ok(false);
        }
        self.granted = asked;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        // Two causes share this call: a size no 32-bit memory can have, for which `memory_growing` is not asked, and
        // an operating system without memory. Only the first is the kernel's doing.
        let refused = if error.to_string() == BEYOND_TYPE {
            Refused::Memory { asked: 1 << 32, limit: self.memory_bytes }
        } else {
            Refused::Machine
        };
        Err(self.refuse(refused))
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS_MAX {
            let (asked, limit) = (desired as u64, TABLE_ELEMENTS_MAX as u64);
            return Err(self.refuse(Refused::Table { asked, limit }));
        }
        Ok(true)
    }

    fn table_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        Ok(())
    }

    fn instances(&self) -> usize {
        INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        INSTANCES_MAX
    }

    fn memories(&self) -> usize {
        INSTANCES_MAX
    }
}
