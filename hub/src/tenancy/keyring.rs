//! Keys in memory: a request costs no read of the database, and a revoked key works no more from the moment its
//! revocation is acknowledged.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forge_contract::Digest;
use forge_lifecycle::books::budget::Budget;
use tokio::sync::watch;

use crate::clock::unix_ms;
use crate::store::tenancy::{Binding, HolderRow, Limits, Scopes, TenancyWrite};
use crate::store::{Store, StoreError, Write};

/// Keys kept; beyond that all are read anew.
const HELD_MAX: usize = 1 << 14;
/// Between two notes of a key's use, milliseconds.
const USED_MS: u64 = 60_000;

/// Who calls, as it was when it was read.
#[derive(Debug)]
pub struct Held {
    /// The organisation.
    pub organisation: Arc<str>,
    /// The project.
    pub project: Arc<str>,
    /// The key's id.
    pub key: Arc<str>,
    /// Whose key it is, where it is somebody's.
    pub member: Option<Arc<str>>,
    /// Whether the organisation runs the hub.
    pub operator: bool,
    /// What it may do.
    pub scopes: Scopes,
    /// The project's limits in force.
    pub limits: Limits,
    /// Where the project's jobs run.
    pub binding: Binding,
    /// What the project may spend; `None` for no limit.
    pub budget: Option<Budget>,
    /// When the key stops working, ms since 1970.
    pub expires_ms: Option<u64>,
    used_ms: AtomicU64,
}

impl Held {
    fn of(row: HolderRow) -> Self {
        let HolderRow { key, operator, scopes, limits, binding, budget } = row;
        Self {
            organisation: key.organisation.into(),
            project: key.project.into(),
            key: key.id.into(),
            member: key.member.map(Arc::from),
            operator,
            scopes,
            limits,
            binding,
            budget,
            expires_ms: key.expires_ms,
            used_ms: AtomicU64::new(key.used_ms.unwrap_or(0)),
        }
    }

    /// Whether it works at this time.
    #[must_use]
    pub fn is_alive(&self, now_ms: u64) -> bool {
        self.expires_ms.is_none_or(|end| now_ms < end)
    }
}

/// Every key that was used lately.
pub struct Keyring {
    store: Arc<dyn Store>,
    held: Mutex<HashMap<Digest, Arc<Held>>>,
    /// How often something changed. It moves under the lock of `held`.
    changes: watch::Sender<u64>,
    /// One change of tenancy at a time: what was checked still holds when it is written.
    pub turn: tokio::sync::Mutex<()>,
}

impl core::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Keyring(..)")
    }
}

impl Keyring {
    /// Nothing kept yet.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        let (held, turn) = (Mutex::default(), tokio::sync::Mutex::new(()));
        Self { store, held, changes: watch::Sender::new(0), turn }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Digest, Arc<Held>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who calls with this key; `None` where it is unknown, revoked or expired.
    ///
    /// # Errors
    /// What the store says.
    pub async fn find(&self, hash: &Digest) -> Result<Option<Arc<Held>>, StoreError> {
        let kept = self.held().get(hash).cloned();
        let found = match kept {
            Some(held) => Some(held),
            None => self.read(hash).await?,
        };
        Ok(found.filter(|held| held.is_alive(unix_ms())))
    }

    async fn read(&self, hash: &Digest) -> Result<Option<Arc<Held>>, StoreError> {
        let before = *self.changes.borrow();
        let Some(row) = self.store.holder(hash).await? else { return Ok(None) };
        let read = Arc::new(Held::of(row));
        let mut held = self.held();
        // What changed since may be what was read: good for this request, which began before, and for no other.
        if *self.changes.borrow() == before {
            if held.len() >= HELD_MAX {
                held.clear();
            }
            held.insert(*hash, Arc::clone(&read));
        }
        Ok(Some(read))
    }

    /// Notes that a key was used, now and then.
    pub fn note(&self, held: &Held) {
        let (now, noted) = (unix_ms(), held.used_ms.load(Ordering::Relaxed));
        let due = now >= noted.saturating_add(USED_MS);
        if due && held.used_ms.compare_exchange(noted, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let write = TenancyWrite::KeyUsed { id: held.key.to_string(), at_ms: now };
            // Nobody waits for it: it is a courtesy to whoever looks for unused keys.
            drop(self.store.submit(Write::Tenancy(Box::new(write))));
        }
    }

    /// Something durable changed for whom this is true of: they are read anew, and whoever waits looks again.
    pub fn changed(&self, of: impl Fn(&Held) -> bool) {
        let mut held = self.held();
        held.retain(|_, one| !of(one));
        self.changes.send_modify(|count| *count += 1);
    }

    /// Resolves when a key works no more: revoked, or expired.
    pub async fn lapsed(&self, hash: &Digest) {
        let mut changes = self.changes.subscribe();
        loop {
            changes.borrow_and_update();
            // A store that cannot say that the key is good says that it is not.
            let Ok(Some(held)) = self.find(hash).await else { return };
            let left = held.expires_ms.map(|end| Duration::from_millis(end.saturating_sub(unix_ms())));
            let expiry = async {
                match left {
                    Some(left) => tokio::time::sleep(left).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = expiry => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::store::blobs::Blobs;
    use crate::store::sqlite::Sqlite;
    use crate::store::tenancy::{NewProject, OPERATOR};
    use crate::tenancy::key::{hash_of, kept};

    async fn ring(folder: &std::path::Path) -> Arc<Keyring> {
        let blobs = Arc::new(Blobs::open(&folder.join("blobs")).unwrap());
        let store: Arc<dyn Store> = Arc::new(Sqlite::open(&folder.join("hub.db"), blobs).await.unwrap());
        apply(&*store, TenancyWrite::Project(NewProject::plain("p", OPERATOR))).await;
        Arc::new(Keyring::new(store))
    }

    async fn apply(store: &dyn Store, write: TenancyWrite) {
        store.submit(Write::Tenancy(Box::new(write))).await.unwrap();
    }

    #[tokio::test]
    async fn a_revoked_key_is_gone_when_the_change_is_told_and_who_waits_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let ring = ring(folder.path()).await;
        let (hash, key) = (hash_of("text"), kept("text", "p", Scopes::all()));
        let id = key.id.clone();
        assert!(ring.find(&hash).await.unwrap().is_none());
        apply(&*ring.store, TenancyWrite::Key(key)).await;
        assert_eq!(&*ring.find(&hash).await.unwrap().unwrap().key, id);
        let (waiting, other) = (Arc::clone(&ring), Arc::clone(&ring));
        let lapsed = tokio::spawn(async move { waiting.lapsed(&hash).await });
        // A change of somebody else's ends nothing.
        other.changed(|held| &*held.key == "another");
        tokio::task::yield_now().await;
        assert!(!lapsed.is_finished());
        apply(&*ring.store, TenancyWrite::RevokeKey { id: id.clone() }).await;
        ring.changed(|held| *held.key == *id);
        assert!(ring.find(&hash).await.unwrap().is_none());
        lapsed.await.unwrap();
    }

    #[tokio::test]
    async fn an_expired_key_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let ring = ring(folder.path()).await;
        let past = crate::store::tenancy::NewKey { expires_ms: Some(1), ..kept("old", "p", Scopes::all()) };
        apply(&*ring.store, TenancyWrite::Key(past)).await;
        assert!(ring.find(&hash_of("old")).await.unwrap().is_none());
        ring.lapsed(&hash_of("old")).await;
    }
}
