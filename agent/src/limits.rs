//! What an agent gives, and what it takes: memory, disk, kernels, hours.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use forge_contract::Digest;
use forge_contract::duty::Duty;
use forge_contract::task::Task;
use forge_sandbox::worker::INPUT_KEPT_BYTES_MAX;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::hours::Hours;

/// Memory of a worker beside its unit's and its inputs: code, stacks, what it answers with.
pub const WORKER_BYTES: u64 = 64 << 20;
/// Least memory budget: one worker with the smallest of units.
pub const MEMORY_BYTES_MIN: u64 = 2 * WORKER_BYTES;
/// Disk that compiled kernels may take where nothing else is said.
pub const DISK_BYTES_DEFAULT: u64 = 2 << 30;
/// What memory is counted in.
const PERMIT_BYTES: u64 = 1 << 20;

/// What the agent's owner allows.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Memory that all workers together may take, bytes; `None` leaves it to the number of cores.
    pub memory_bytes: Option<u64>,
    /// Disk that compiled kernels may take, bytes.
    pub disk_bytes: u64,
    /// When it works.
    pub hours: Hours,
    /// Components it runs; `None` for all.
    pub kernels: Option<BTreeSet<Digest>>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_bytes: None, disk_bytes: DISK_BYTES_DEFAULT, hours: Hours::default(), kernels: None }
    }
}

impl Limits {
    /// Whether the agent takes this task at all; why not, for its log.
    ///
    /// # Errors
    /// A sentence.
    pub fn admit(&self, task: &Task) -> Result<(), String> {
        if self.kernels.as_ref().is_some_and(|allowed| !allowed.contains(&task.component)) {
            return Err(format!("kernel {} is not among those allowed", task.component));
        }
        match self.memory_bytes {
            Some(budget) if need_bytes(task) > budget => {
                Err(format!("the shard needs {} bytes of memory, the agent gives {budget}", need_bytes(task)))
            }
            _ => Ok(()),
        }
    }

    /// Whether it works at this hour. A clock before 1970 counts as 1970.
    #[must_use]
    pub fn at_work(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.hours.contain(now.as_secs())
    }
}

/// Memory that a worker needs for a task, bytes.
fn need_bytes(task: &Task) -> u64 {
    // Of a large input a worker keeps a part.
    let kept = |bytes: u64| bytes.min(INPUT_KEPT_BYTES_MAX as u64);
    let inputs = task.inputs.iter().fold(0u64, |sum, input| sum.saturating_add(kept(input.bytes)));
    let found = match &task.duty {
        Duty::Compute => 0,
        // As it came, and decoded.
        Duty::Check(examination) => examination.found.bytes.saturating_mul(2),
    };
    WORKER_BYTES.saturating_add(task.limits.memory_bytes).saturating_add(inputs).saturating_add(found)
}

/// The memory that workers share.
#[derive(Debug)]
pub struct Memory(Option<Arc<Semaphore>>);

impl Memory {
    /// A budget, or none.
    #[must_use]
    pub fn new(bytes: Option<u64>) -> Self {
        let permits = |bytes: u64| usize::try_from(bytes / PERMIT_BYTES).unwrap_or(usize::MAX);
        Self(bytes.map(|bytes| Arc::new(Semaphore::new(permits(bytes).min(Semaphore::MAX_PERMITS)))))
    }

    /// Waits until a task's worker may take what it needs; the permit is held while it runs.
    pub async fn room(&self, task: &Task) -> Option<OwnedSemaphorePermit> {
        let permits = u32::try_from(need_bytes(task) / PERMIT_BYTES).unwrap_or(u32::MAX);
        self.0.clone()?.acquire_many_owned(permits).await.ok()
    }
}

/// A number of bytes with or without a binary unit: `512MiB`, `2 GiB`, `1073741824`.
#[must_use]
pub fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let at = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(at)?;
    let shift = match unit.trim() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// The component that a word means: a name among those known, or a digest.
#[must_use]
pub fn kernel(word: &str, known: &BTreeMap<String, Digest>) -> Option<Digest> {
    let word = word.trim();
    known.get(word).copied().or_else(|| word.parse().ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use forge_contract::JobId;
    use forge_contract::duty::{Challenge, Examination, FoundRef};
    use forge_contract::limits::UnitLimits;
    use forge_contract::seed::StageKey;
    use forge_contract::task::Cut;

    fn task(memory_bytes: u64) -> Task {
        Task {
            job: JobId::from_bits(1),
            stage_index: 0,
            shard: 0,
            component: Digest::of(b"component"),
            component_bytes: 9,
            profile: "p".into(),
            stage: "s".into(),
            args: "{}".into(),
            key: StageKey([0; 32]),
            cut: Cut::Once,
            first_unit: 0,
            unit_count: 1,
            limits: UnitLimits { fuel: 1, memory_bytes, output_bytes: 1 },
            parts: vec![],
            inputs: vec![],
            duty: Duty::Compute,
        }
    }

    #[test]
    fn bytes_have_a_unit_or_none() {
        for (text, bytes) in [("512MiB", 512 << 20), ("2 GiB", 2 << 30), ("7", 7), (" 1KiB ", 1024), ("3B", 3)] {
            assert_eq!(parse_bytes(text), Some(bytes), "{text}");
        }
        for text in ["", "GiB", "1GB", "-1", "1.5GiB", "99999999999TiB"] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_not_allowed_or_too_large_is_not_taken() {
        let limits = |memory_bytes, kernels| Limits { memory_bytes, kernels, ..Limits::default() };
        assert!(limits(None, None).admit(&task(1 << 40)).is_ok());
        assert!(limits(Some(256 << 20), None).admit(&task(192 << 20)).is_ok());
        assert!(limits(Some(256 << 20), None).admit(&task(193 << 20)).is_err());
        let found = FoundRef { digest: Digest::of(b"f"), bytes: 1 << 20 };
        let check = Examination { found, challenge: Challenge([0; 32]) };
        let checking = |memory_bytes| Task { duty: Duty::Check(check), ..task(memory_bytes) };
        assert!(limits(Some(256 << 20), None).admit(&checking(190 << 20)).is_ok());
        assert!(limits(Some(256 << 20), None).admit(&checking(191 << 20)).is_err());
        let only = |digest| Some(BTreeSet::from([digest]));
        assert!(limits(None, only(Digest::of(b"component"))).admit(&task(0)).is_ok());
        assert!(limits(None, only(Digest::of(b"another"))).admit(&task(0)).is_err());
    }

    #[tokio::test]
    async fn memory_bounds_who_runs_at_once() {
        let memory = Memory::new(Some(300 << 20));
        let first = memory.room(&task(64 << 20)).await.unwrap();
        let second = memory.room(&task(64 << 20)).await.unwrap();
        let third = task(64 << 20);
        let waiting = memory.room(&third);
        tokio::pin!(waiting);
        assert!(futures_poll(waiting.as_mut()).await.is_none());
        drop(first);
        assert!(waiting.await.is_some());
        drop(second);
        assert!(Memory::new(None).room(&third).await.is_none());
    }

    /// One poll of a future.
    async fn futures_poll<T>(mut future: core::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
        core::future::poll_fn(|context| {
            core::task::Poll::Ready(match future.as_mut().poll(context) {
                core::task::Poll::Ready(value) => Some(value),
                core::task::Poll::Pending => None,
            })
        })
        .await
    }
}
