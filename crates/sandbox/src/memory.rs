//! Linear memory that is cleared and used again.
//!
//! A fresh instance needs zeros, not fresh pages. Pages from the operating system cost a fault each: for mc@1 a tenth of
//! its run time. So memory is kept for the next unit: every byte its unit could reach is overwritten with zeros, and what
//! lies beyond the next unit's own size is made inaccessible again. Of a large one only the first pages are kept.
//!
//! Order: one worker process runs one job, so memory passes between units of one kernel only.
//! Determinism: a unit sees zeros and its own size, whatever ran before; nothing else of the memory is visible to it.

use std::io;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap_anonymous, mprotect, munmap};
use wasmtime::{LinearMemory, MemoryCreator, MemoryType};

use crate::bounds::INSTANCES_MAX;

/// Bytes of a memory that are cleared and kept; pages behind them go back to the system, for a unit that needs as many
/// runs for long enough to fault them in again.
const CLEARED_BYTES_MAX: usize = 4 << 20;
/// Alignment of a memory's base, that of the largest page any machine has.
const ALIGNMENT: usize = 64 << 10;
/// What a failed creation says; it is the machine's fault, not the kernel's.
const NO_MEMORY: &str = "the machine has no address space or memory for a kernel";

/// Reservations that no unit uses now. At most [`INSTANCES_MAX`] are kept.
#[derive(Debug, Default, Clone)]
pub(crate) struct Reservations {
    free: Arc<Mutex<Vec<Reservation>>>,
}

impl Reservations {
    fn take(&self, capacity: usize, guard: usize) -> io::Result<Reservation> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting = free.iter().position(|kept| kept.capacity == capacity && kept.guard == guard);
        match fitting {
            Some(at) => Ok(free.swap_remove(at)),
            None => Reservation::new(capacity, guard),
        }
    }

    /// Keeps a reservation, which must be all zeros.
    fn keep(&self, reservation: Reservation) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < INSTANCES_MAX {
            free.push(reservation);
        }
    }
}

/// Address space: `guard` bytes, `capacity` bytes of which the first `open` are accessible, `guard` bytes.
#[derive(Debug)]
struct Reservation {
    mapping: NonNull<u8>,
    mapping_bytes: usize,
    base: NonNull<u8>,
    capacity: usize,
    guard: usize,
    open: usize,
}

#[expect(unsafe_code, reason = "the mapping is owned and used by one owner at a time")]
// SAFETY: a reservation owns its mapping and has no interior mutability.
unsafe impl Send for Reservation {}

#[expect(unsafe_code, reason = "the mapping is owned and used by one owner at a time")]
// SAFETY: nothing is reachable through a shared reference but numbers and the base address.
unsafe impl Sync for Reservation {}

impl Reservation {
    fn new(capacity: usize, guard: usize) -> io::Result<Self> {
        let too_large = || io::Error::from(io::ErrorKind::OutOfMemory);
        // Guards on both sides, and room to align the base.
        let mapping_bytes = guard
            .checked_mul(2)
            .and_then(|guards| guards.checked_add(capacity))
            .and_then(|bytes| bytes.checked_add(ALIGNMENT))
            .ok_or_else(too_large)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        #[expect(unsafe_code, reason = "mapping memory has no safe wrapper")]
        // SAFETY: a new mapping at an address the system chooses overlaps nothing.
        let mapping = unsafe { mmap_anonymous(std::ptr::null_mut(), mapping_bytes, ProtFlags::empty(), flags) }?;
        let mapping = NonNull::new(mapping.cast::<u8>()).ok_or_else(too_large)?;
        let inside = mapping.addr().get().saturating_add(guard).next_multiple_of(ALIGNMENT);
        let base = mapping.map_addr(|_| inside.try_into().unwrap_or(mapping.addr()));
        Ok(Self { mapping, mapping_bytes, base, capacity, guard, open: 0 })
    }

    /// Makes exactly the first `size` bytes accessible.
    fn open_to(&mut self, size: usize) -> io::Result<()> {
        if size > self.capacity {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let (from, to, access) = match size > self.open {
            true => (self.open, size, MprotectFlags::READ | MprotectFlags::WRITE),
            false => (size, self.open, MprotectFlags::empty()),
        };
        if from < to {
            #[expect(unsafe_code, reason = "changing access has no safe wrapper")]
            // SAFETY: `from..to` lies within the capacity, and nobody holds a reference into this memory: the host
            // reaches it through wasmtime alone, which is told the same size.
            unsafe {
                mprotect(self.base.as_ptr().add(from).cast(), to - from, access)?;
            }
        }
        self.open = size;
        Ok(())
    }

    /// Makes every byte that was accessible zero: the first are overwritten, the pages of the others given back. Those
    /// are inaccessible then, so that what is kept never counts for much among the process's memory.
    ///
    /// # Errors
    /// The system's, where it does not take them: then the reservation must be dropped.
    fn clear(&mut self) -> io::Result<()> {
        let overwritten = self.open.min(CLEARED_BYTES_MAX);
        let rest = self.open - overwritten;
        #[expect(unsafe_code, reason = "raw memory is cleared")]
        // SAFETY: the first `open` bytes are accessible, and the instance that used them is gone. They are private
        // and of no file, so pages that were given back read as zeros.
        unsafe {
            self.base.as_ptr().write_bytes(0, overwritten);
            if rest > 0 {
                madvise(self.base.as_ptr().add(overwritten).cast(), rest, Advice::LinuxDontNeed)?;
            }
        }
        self.open_to(overwritten)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "unmapping has no safe wrapper")]
        // SAFETY: the mapping is this reservation's own, and nothing points into it any more.
        let _ = unsafe { munmap(self.mapping.as_ptr().cast(), self.mapping_bytes) };
    }
}

/// The linear memory of one instance.
struct Memory {
    /// `None` only while it is dropped.
    reservation: Option<Reservation>,
    home: Reservations,
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(mut reservation) = self.reservation.take()
            && reservation.clear().is_ok()
        {
            self.home.keep(reservation);
        }
    }
}

#[expect(unsafe_code, reason = "wasmtime compiles accesses to this memory without bounds checks")]
// SAFETY: the base never moves and is aligned; the first `byte_size` bytes and no others of `byte_capacity` and of the
// guards on both sides are accessible; growing within the capacity keeps contents.
unsafe impl LinearMemory for Memory {
    fn byte_size(&self) -> usize {
        self.reservation.as_ref().map_or(0, |reservation| reservation.open)
    }

    fn byte_capacity(&self) -> usize {
        self.reservation.as_ref().map_or(0, |reservation| reservation.capacity)
    }

    fn grow_to(&mut self, new_size: usize) -> wasmtime::Result<()> {
        match &mut self.reservation {
            Some(reservation) if new_size >= reservation.open => Ok(reservation.open_to(new_size)?),
            _ => Err(io::Error::from(io::ErrorKind::InvalidInput).into()),
        }
    }

    fn as_ptr(&self) -> *mut u8 {
        self.reservation.as_ref().map_or(std::ptr::null_mut(), |reservation| reservation.base.as_ptr())
    }
}

#[expect(unsafe_code, reason = "wasmtime compiles accesses to this memory without bounds checks")]
// SAFETY: every memory is zeroed, of its minimum size, guarded, and belongs to one instance until that drops it.
unsafe impl MemoryCreator for Reservations {
    fn new_memory(
        &self,
        _: MemoryType,
        minimum: usize,
        _: Option<usize>,
        reserved: Option<usize>,
        guard: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        let failed = |error: io::Error| format!("{NO_MEMORY}: {error}");
        let mut reservation = self.take(reserved.unwrap_or(minimum), guard).map_err(failed)?;
        reservation.open_to(minimum).map_err(failed)?;
        Ok(Box::new(Memory { reservation: Some(reservation), home: self.clone() }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, unsafe_code)]
    use super::*;

    const CAPACITY: usize = 64 << 20;
    const GUARD: usize = 1 << 20;
    const PAGE: usize = 64 << 10;

    fn bytes(reservation: &mut Reservation) -> &mut [u8] {
        // SAFETY: the first `open` bytes are accessible, and the borrow is unique.
        unsafe { std::slice::from_raw_parts_mut(reservation.base.as_ptr(), reservation.open) }
    }

    #[test]
    fn whatever_was_written_the_next_sees_zeros_and_its_own_size() {
        let home = Reservations::default();
        // Below, at and far above what is cleared in place, growing and shrinking between uses.
        for pages in [1, 31, 32, 33, 500, 2, 100, 1, 254, 500] {
            let mut taken = home.take(CAPACITY, GUARD).unwrap();
            taken.open_to(pages * PAGE).unwrap();
            assert!(bytes(&mut taken).iter().all(|byte| *byte == 0), "{pages} pages");
            bytes(&mut taken).fill(0xa5);
            let grown = taken.open + 3 * PAGE;
            taken.open_to(grown).unwrap();
            assert!(bytes(&mut taken)[pages * PAGE..].iter().all(|byte| *byte == 0), "{pages} pages, grown");
            bytes(&mut taken).fill(0x5a);
            taken.clear().unwrap();
            assert_eq!(taken.open, grown.min(CLEARED_BYTES_MAX));
            home.keep(taken);
            assert_eq!(home.free.lock().unwrap().len(), 1);
        }
    }

    #[test]
    fn what_is_beyond_the_size_is_not_accessible() {
        let mut taken = Reservation::new(CAPACITY, GUARD).unwrap();
        taken.open_to(10 * PAGE).unwrap();
        taken.clear().unwrap();
        taken.open_to(2 * PAGE).unwrap();
        // The system copies from these addresses for us and says where it could not.
        let readable = |at: usize| {
            let (reader, writer) = rustix::pipe::pipe().unwrap();
            // SAFETY: the slice is never read here; an inaccessible address is an error of the system call.
            let byte = unsafe { std::slice::from_raw_parts(taken.base.as_ptr().wrapping_add(at), 1) };
            let written = rustix::io::write(&writer, byte);
            drop(reader);
            written.is_ok()
        };
        assert!(readable(0) && readable(2 * PAGE - 1));
        for at in [2 * PAGE, 10 * PAGE, CAPACITY - 1, CAPACITY, CAPACITY + GUARD - 1] {
            assert!(!readable(at), "{at}");
        }
        assert!(taken.open_to(CAPACITY + 1).is_err());
    }

    #[test]
    fn the_base_is_aligned_and_guarded() {
        let taken = Reservation::new(CAPACITY, GUARD).unwrap();
        let (mapping, base) = (taken.mapping.addr().get(), taken.base.addr().get());
        assert!(base.is_multiple_of(ALIGNMENT));
        assert!(base >= mapping + GUARD);
        assert!(base + CAPACITY + GUARD <= mapping + taken.mapping_bytes);
    }
}
