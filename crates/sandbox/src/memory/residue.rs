//! Which pages of a used memory may hold anything but zeros.

use std::ptr::NonNull;

/// Largest memory worth asking page by page, bytes.
const ASKED_BYTES_MAX: usize = 64 << 20;

/// A run of bytes: offset and length.
pub(super) type Run = (usize, usize);

/// The runs of pages of `base .. base + bytes` that the system holds; every other page reads as zeros. `None` where
/// that cannot be known for sure.
///
/// A private anonymous page that was written is resident or in swap. So residency tells all, on a machine without
/// swap: that is asked afterwards, since swap can only be removed once all of it is back in memory.
#[cfg(target_os = "linux")]
pub(super) fn runs(base: NonNull<u8>, bytes: usize) -> Option<Vec<Run>> {
    if bytes > ASKED_BYTES_MAX {
        return None;
    }
    let page = page_bytes()?;
    let mut resident = vec![0u8; bytes.div_ceil(page)];
    #[expect(unsafe_code, reason = "mincore has no safe wrapper")]
    // SAFETY: the range is mapped, and the vector has a byte for each of its pages.
    let asked = unsafe { libc::mincore(base.as_ptr().cast(), bytes, resident.as_mut_ptr()) };
    if asked != 0 || rustix::system::sysinfo().totalswap != 0 {
        return None;
    }
    Some(joined(&resident, page))
}

#[cfg(not(target_os = "linux"))]
pub(super) fn runs(_: NonNull<u8>, _: usize) -> Option<Vec<Run>> {
    None
}

#[cfg(target_os = "linux")]
fn page_bytes() -> Option<usize> {
    #[expect(unsafe_code, reason = "sysconf has no safe wrapper")]
    // SAFETY: this only reads a number of the process.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(page).ok().filter(|page| page.is_power_of_two())
}

/// Neighbouring resident pages as one run.
#[cfg(target_os = "linux")]
fn joined(resident: &[u8], page: usize) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (index, state) in resident.iter().enumerate() {
        // Only the lowest bit has a meaning.
        if state & 1 == 0 {
            continue;
        }
        let from = index * page;
        match runs.last_mut() {
            Some((first, bytes)) if *first + *bytes == from => *bytes += page,
            _ => runs.push((from, page)),
        }
    }
    runs
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn neighbours_join() {
        assert_eq!(joined(&[1, 1, 0, 3, 2, 1], 10), [(0, 20), (30, 10), (50, 10)]);
        assert_eq!(joined(&[0, 0], 10), []);
        assert_eq!(joined(&[1], 10), [(0, 10)]);
    }
}
