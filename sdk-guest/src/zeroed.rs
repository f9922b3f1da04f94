//! Large arrays of zeros that cost nothing until they are written.

use core::ops::{Deref, DerefMut};

/// `N` counters, all zero.
///
/// On WebAssembly they are fresh pages of linear memory: the allocator would write eight million zeros where a unit
/// touches a hundred thousand. They are never given back, as an instance lives for one unit.
pub(crate) struct Zeroed<const N: usize>(Place<N>);

#[cfg(target_arch = "wasm32")]
type Place<const N: usize> = &'static mut [u32; N];
#[cfg(not(target_arch = "wasm32"))]
type Place<const N: usize> = Box<[u32; N]>;

impl<const N: usize> Zeroed<N> {
    /// Fresh counters; a trap where the memory limit leaves no room.
    #[cfg(target_arch = "wasm32")]
    #[expect(unsafe_code, reason = "pages that were just added to linear memory have no owner")]
    pub(crate) fn new() -> Self {
        const PAGE_BYTES: usize = 65_536;
        let page = core::arch::wasm32::memory_grow::<0>(size_of::<[u32; N]>().div_ceil(PAGE_BYTES));
        if page == usize::MAX {
            core::arch::wasm32::unreachable();
        }
        // SAFETY: `memory.grow` succeeded, so the pages from `page` on exist, hold zeros, are aligned to 64 KiB and are
        // known to nobody else: the allocator grows memory by the same instruction and never touches what it did not ask for.
        Self(unsafe { &mut *((page * PAGE_BYTES) as *mut [u32; N]) })
    }

    /// Nothing to do: the instance ends with its unit.
    #[cfg(target_arch = "wasm32")]
    pub(crate) fn give_back(self) {}

    /// Counters of an earlier use on this thread, else fresh ones.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn new() -> Self {
        let kept = KEPT.with_borrow_mut(|kept| kept.pop_if(|counters| counters.len() == N));
        match kept.unwrap_or_else(|| vec![0; N]).into_boxed_slice().try_into() {
            Ok(counters) => Self(counters),
            Err(_) => unreachable!("a slice of N counters is an array of N counters"),
        }
    }

    /// Keeps counters, which must all be zero again, for the next use on this thread.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn give_back(self) {
        KEPT.with_borrow_mut(|kept| kept.push(Vec::from(self.0 as Box<[u32]>)));
    }
}

#[cfg(not(target_arch = "wasm32"))]
std::thread_local! {
    static KEPT: core::cell::RefCell<Vec<Vec<u32>>> = const { core::cell::RefCell::new(Vec::new()) };
}

impl<const N: usize> Deref for Zeroed<N> {
    type Target = [u32; N];

    fn deref(&self) -> &[u32; N] {
        let Self(counters) = self;
        counters
    }
}

impl<const N: usize> DerefMut for Zeroed<N> {
    fn deref_mut(&mut self) -> &mut [u32; N] {
        let Self(counters) = self;
        counters
    }
}
