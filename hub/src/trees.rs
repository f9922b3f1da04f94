//! Hash trees of what agents fetch: computed once for an object, kept in memory within a bound.
//!
//! A tree is a function of its object, so nothing is lost with one: it is neither recorded, backed up nor collected, and
//! is computed again where it is wanted again.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forge_contract::Digest;
use forge_protocol::proof::Tree;
use tokio::sync::OnceCell;

/// Memory of the trees kept, bytes: those of 16 GiB of objects.
const KEPT_BYTES_MAX: usize = 64 << 20;
/// Trees kept.
const ENTRIES_MAX: usize = 4096;

/// The trees at hand.
#[derive(Debug, Default)]
pub struct Trees {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    entries: HashMap<Digest, Entry>,
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    tree: Arc<OnceCell<Arc<Tree>>>,
    used: u64,
}

/// Why there is no tree.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The object cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// What is stored under the digest is another object.
    #[error("what is stored has the digest {found}")]
    Corrupt {
        /// Its digest.
        found: Digest,
    },
    /// The process is ending.
    #[error("the process is ending")]
    Closed,
}

impl Trees {
    /// The tree of an object, from `compute` where it is not at hand; whoever asks meanwhile waits for the same.
    /// `compute` may block.
    ///
    /// # Errors
    /// See [`TreeError`]; nothing is kept of it.
    pub async fn tree(
        &self,
        digest: Digest,
        compute: impl FnOnce() -> io::Result<Tree> + Send + 'static,
    ) -> Result<Arc<Tree>, TreeError> {
        let cell = self.kept().cell(digest);
        let computing = cell.get_or_try_init(|| async {
            let tree = tokio::task::spawn_blocking(compute).await.map_err(|_| TreeError::Closed)??;
            match tree.digest() {
                found if found == digest => Ok(Arc::new(tree)),
                found => Err(TreeError::Corrupt { found }),
            }
        });
        computing.await.cloned()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn cell(&mut self, digest: Digest) -> Arc<OnceCell<Arc<Tree>>> {
        self.clock += 1;
        let used = self.clock;
        if let Some(entry) = self.entries.get_mut(&digest) {
            entry.used = used;
            return Arc::clone(&entry.tree);
        }
        self.make_room();
        let tree = Arc::default();
        self.entries.insert(digest, Entry { tree: Arc::clone(&tree), used });
        tree
    }

    /// Drops what was not used for longest. Whoever sends from a tree, or waits for one, holds it.
    fn make_room(&mut self) {
        let mut bytes: usize = self.entries.values().map(Entry::bytes).sum();
        while bytes > KEPT_BYTES_MAX || self.entries.len() >= ENTRIES_MAX {
            let Some(oldest) = self.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(digest, _)| *digest)
            else {
                return;
            };
            bytes -= self.entries.remove(&oldest).map_or(0, |entry| entry.bytes());
        }
    }
}

impl Entry {
    /// Memory it takes; nothing while it is computed.
    fn bytes(&self) -> usize {
        self.tree.get().map_or(0, |tree| tree.memory_bytes())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_tree_is_computed_once_and_is_its_objects() {
        let trees = Trees::default();
        let (object, computed) = (vec![7; 100_000], Arc::new(AtomicUsize::new(0)));
        let digest = Digest::of(&object);
        for _ in 0..2 {
            let (object, computed) = (object.clone(), Arc::clone(&computed));
            let tree = trees.tree(digest, move || {
                computed.fetch_add(1, Ordering::SeqCst);
                Ok(Tree::of(&object))
            });
            assert_eq!(tree.await.unwrap().digest(), digest);
        }
        assert_eq!(computed.load(Ordering::SeqCst), 1);
        let other = Digest::of(b"other");
        let corrupt = trees.tree(other, || Ok(Tree::of(b"not it"))).await;
        assert!(matches!(corrupt, Err(TreeError::Corrupt { found }) if found == Digest::of(b"not it")));
        let unread = trees.tree(other, || Err(io::Error::other("no disk"))).await;
        assert!(matches!(unread, Err(TreeError::Io(_))));
        assert!(trees.tree(other, || Ok(Tree::of(b"other"))).await.is_ok(), "a failure is not kept");
    }

    #[tokio::test]
    async fn those_used_last_stay() {
        let trees = Trees::default();
        let digest = |number: usize| Digest::of(&number.to_le_bytes());
        for number in 0..=ENTRIES_MAX {
            let tree = trees.tree(digest(number), move || Ok(Tree::of(&number.to_le_bytes()))).await.unwrap();
            assert_eq!(tree.bytes(), 8);
            assert!(trees.tree(digest(0), || panic!("it is at hand")).await.is_ok());
        }
        let kept = trees.kept();
        assert_eq!(kept.entries.len(), ENTRIES_MAX);
        assert!(kept.entries.contains_key(&digest(0)) && !kept.entries.contains_key(&digest(1)));
    }
}
