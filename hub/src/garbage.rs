//! Removing files that nothing names: looked for in every file's name, decided in the store's one writer, one file at a time.
//!
//! A file goes where no record names it, where that was known for the grace period, and where nobody holds it. Whoever is
//! about to record a name holds the file from before it looks for it, so that there is no moment in which it could go.

use std::sync::Arc;
use std::time::Duration;

use forge_contract::Digest;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;

use crate::store::blobs::Blobs;
use crate::store::data::{Collected, DataWrite, DataWritten};
use crate::store::{Store, StoreError, write_data};

/// Files decided in one change: the writer has other work, too.
const CHANGE_MAX: usize = 64;
/// Expired entries removed in one change.
const SWEPT_MAX: u32 = 1024;

/// Removes what nothing names. One run at a time.
#[derive(Clone)]
pub struct Collector {
    store: Arc<dyn Store>,
    blobs: Arc<Blobs>,
    grace_ms: u64,
    turn: Arc<Mutex<()>>,
}

impl core::fmt::Debug for Collector {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Collector").field("grace_ms", &self.grace_ms).finish_non_exhaustive()
    }
}

impl Collector {
    /// A collector with this grace period.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, blobs: Arc<Blobs>, grace: Duration) -> Self {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        Self { store, blobs, grace_ms, turn: Arc::default() }
    }

    /// Removes nothing while this lives: for whoever copies every file.
    pub async fn pause(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.turn).lock_owned().await
    }

    /// Looks at every file, and removes expired entries; `grace`: another grace period, this time.
    ///
    /// # Errors
    /// What the store says; what was removed until then is gone.
    pub async fn collect(&self, grace: Option<Duration>) -> Result<Collected, StoreError> {
        let _turn = self.turn.lock().await;
        let grace_ms = grace.map_or(self.grace_ms, |grace| u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
        self.sweep().await?;
        self.unmark().await?;
        let mut all = Collected::default();
        for first in 0..=u8::MAX {
            let blobs = Arc::clone(&self.blobs);
            let found = tokio::task::spawn_blocking(move || blobs.list(first)).await;
            for digests in found.map_err(|_| StoreError::Closed)??.chunks(CHANGE_MAX) {
                // Reading first: the writer sees only what is probably garbage.
                let digests = self.store.unnamed(digests).await?;
                if digests.is_empty() {
                    continue;
                }
                let written = write_data(&*self.store, DataWrite::Collect { digests, grace_ms }).await?;
                if let DataWritten::Collected(collected) = written {
                    all = all.and(collected);
                }
            }
        }
        if all != Collected::default() {
            tracing::info!(removed = all.removed, bytes = all.bytes, marked = all.marked, "files that nothing names");
        }
        Ok(all)
    }

    /// Removes entries that have expired.
    async fn sweep(&self) -> Result<(), StoreError> {
        loop {
            match write_data(&*self.store, DataWrite::KvSweep { limit: SWEPT_MAX }).await? {
                DataWritten::Swept(swept) if swept == u64::from(SWEPT_MAX) => {}
                _ => return Ok(()),
            }
        }
    }

    /// Takes back the marks of files that are named after all, or gone: their time begins anew.
    async fn unmark(&self) -> Result<(), StoreError> {
        let marked = self.store.marked().await?;
        for some in marked.chunks(CHANGE_MAX) {
            let unnamed = self.store.unnamed(some).await?;
            let is_over = |digest: &&Digest| !unnamed.contains(digest) || !self.blobs.has(digest);
            let digests: Vec<Digest> = some.iter().filter(is_over).copied().collect();
            if !digests.is_empty() {
                write_data(&*self.store, DataWrite::Unmark { digests }).await?;
            }
        }
        Ok(())
    }

    /// Collects every so often until the hub stops.
    pub async fn attend(self, every: Duration, stopping: CancellationToken) {
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
            if let Err(error) = self.collect(None).await {
                tracing::error!(%error, "files that nothing names could not be looked for");
            }
        }
    }
}

#[cfg(test)]
mod tests;
