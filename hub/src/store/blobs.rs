//! Content-addressed files: written once, never changed, verified whenever read whole. Who streams one instead
//! (`open_file`) hands on bytes that the receiver verifies.
//!
//! ```text
//! blobs/ab/abcdef...   the object whose BLAKE3 digest is abcdef...
//! blobs/tmp/...        being written; swept at start
//! ```

use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forge_contract::Digest;

/// Why a blob could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The bytes on disk are not those that were written.
    #[error("{path} no longer has its digest")]
    Corrupt {
        /// Where.
        path: PathBuf,
    },
}

/// An object that is being written. Its place is known once it is whole; dropped before, it is removed.
#[derive(Debug)]
pub struct Draft {
    path: PathBuf,
    file: std::fs::File,
    hasher: Box<blake3::Hasher>,
    bytes: u64,
}

impl Drop for Draft {
    fn drop(&mut self) {
        // What was kept has another name by now, and what cannot be removed is swept at the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Digests whose files must stay although nothing recorded names them yet, each with how many want that.
type Holds = Arc<Mutex<HashMap<Digest, usize>>>;

fn counted(holds: &Holds) -> MutexGuard<'_, HashMap<Digest, usize>> {
    holds.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps an object's file from being freed while it lives: from before the file is looked for until a record names it.
#[derive(Debug)]
pub struct Hold {
    digest: Digest,
    holds: Holds,
}

impl Hold {
    /// What it holds.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut holds = counted(&self.holds);
        if let Some(count) = holds.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                holds.remove(&self.digest);
            }
        }
    }
}

/// What became of a file that was to be freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freed {
    /// Somebody holds it.
    Held,
    /// It is gone, or was.
    Removed {
        /// What it took, bytes.
        bytes: u64,
    },
}

impl Draft {
    /// Bytes so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The file, opened again from its start, once everything is written.
    ///
    /// # Errors
    /// `Io`.
    pub fn reopen(&self) -> Result<std::fs::File, BlobError> {
        std::fs::File::open(&self.path).map_err(at(&self.path))
    }

    /// Adds what comes next. Blocks on the disk.
    ///
    /// # Errors
    /// `Io`.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.file.write_all(bytes).map_err(at(&self.path))?;
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

/// A directory of blobs.
#[derive(Debug)]
pub struct Blobs {
    root: PathBuf,
    written: AtomicU64,
    holds: Holds,
}

impl Blobs {
    /// Opens the directory, making it where missing, and sweeps what an earlier process left half written.
    ///
    /// # Errors
    /// `Io`.
    pub fn open(root: &Path) -> Result<Self, BlobError> {
        let temporary = root.join("tmp");
        if temporary.exists() {
            std::fs::remove_dir_all(&temporary).map_err(at(&temporary))?;
        }
        std::fs::create_dir_all(&temporary).map_err(at(&temporary))?;
        Ok(Self { root: root.to_owned(), written: AtomicU64::new(0), holds: Holds::default() })
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A directory that another process has open: nothing in it is made or swept.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned(), written: AtomicU64::new(0), holds: Holds::default() }
    }

    /// Where the object of this digest lies.
    #[must_use]
    pub fn path(&self, digest: &Digest) -> PathBuf {
        let text = digest.to_string();
        let fan = text.get(..2).unwrap_or("00");
        self.root.join(fan).join(&text)
    }

    /// Stores an object. When this returns it survives a power cut. Storing it again changes nothing.
    ///
    /// Blocks on the disk: call it from a blocking thread.
    ///
    /// # Errors
    /// `Io`.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, BlobError> {
        let digest = Digest::of(bytes);
        let path = self.path(&digest);
        if path.exists() {
            return Ok(digest);
        }
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        let temporary = self.root.join("tmp").join(format!("{}-{number}", digest.short()));
        let mut file = std::fs::File::create_new(&temporary).map_err(at(&temporary))?;
        file.write_all(bytes).map_err(at(&temporary))?;
        file.sync_all().map_err(at(&temporary))?;
        self.settle(&temporary, &path)?;
        Ok(digest)
    }

    /// Begins an object whose bytes come one after the other. Blocks on the disk.
    ///
    /// # Errors
    /// `Io`.
    pub fn draft(&self) -> Result<Draft, BlobError> {
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join("tmp").join(format!("draft-{number}"));
        let file = std::fs::File::create_new(&path).map_err(at(&path))?;
        Ok(Draft { path, file, hasher: Box::default(), bytes: 0 })
    }

    /// Stores what a draft has become; gives it, held, and its size. When this returns it survives a power cut.
    ///
    /// Blocks on the disk: call it from a blocking thread.
    ///
    /// # Errors
    /// `Io`.
    pub fn keep(&self, draft: Draft) -> Result<(Hold, u64), BlobError> {
        let hold = self.hold(Digest::from_bytes(*draft.hasher.finalize().as_bytes()));
        draft.file.sync_all().map_err(at(&draft.path))?;
        self.adopt(&draft.path, &hold.digest)?;
        Ok((hold, draft.bytes))
    }

    /// Keeps the file of this digest, there or still to come, from being freed.
    #[must_use]
    pub fn hold(&self, digest: Digest) -> Hold {
        *counted(&self.holds).entry(digest).or_default() += 1;
        Hold { digest, holds: Arc::clone(&self.holds) }
    }

    /// Removes the object's file, unless somebody holds it. Whoever calls this has made sure that no record names it.
    ///
    /// Blocks on the disk: call it from a blocking thread.
    ///
    /// # Errors
    /// `Io`.
    pub fn free(&self, digest: &Digest) -> Result<Freed, BlobError> {
        let holds = counted(&self.holds);
        if holds.contains_key(digest) {
            return Ok(Freed::Held);
        }
        let path = self.path(digest);
        let bytes = std::fs::metadata(&path).map_or(0, |about| about.len());
        // Under the lock: whoever holds it from now on finds that there is no file.
        let removed = std::fs::remove_file(&path);
        drop(holds);
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(at(&path)(error)),
            _ => Ok(Freed::Removed { bytes }),
        }
    }

    /// The objects whose digests begin with this byte, in any order. Blocks on the disk.
    ///
    /// # Errors
    /// `Io`.
    pub fn list(&self, first: u8) -> Result<Vec<Digest>, BlobError> {
        let folder = self.root.join(format!("{first:02x}"));
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(at(&folder)(error)),
        };
        let digest = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse().ok();
        Ok(entries.filter_map(Result::ok).filter_map(digest).collect())
    }

    /// Takes over a file whose digest was checked and whose bytes are durable; it must lie on the same file system.
    /// When this returns the object survives a power cut. Where the object is there already, the file is removed.
    ///
    /// Blocks on the disk: call it from a blocking thread.
    ///
    /// # Errors
    /// `Io`.
    pub fn adopt(&self, file: &Path, digest: &Digest) -> Result<(), BlobError> {
        let path = self.path(digest);
        if path.exists() {
            return std::fs::remove_file(file).map_err(at(file));
        }
        self.settle(file, &path)
    }

    fn settle(&self, file: &Path, path: &Path) -> Result<(), BlobError> {
        let parent = path.parent().unwrap_or(&self.root);
        if !parent.exists() {
            std::fs::create_dir_all(parent).map_err(at(parent))?;
            sync_directory(&self.root)?;
        }
        std::fs::rename(file, path).map_err(at(path))?;
        sync_directory(parent)
    }

    /// Whether the object is there.
    #[must_use]
    pub fn has(&self, digest: &Digest) -> bool {
        self.path(digest).exists()
    }

    /// The object's file and size, for streaming; `None` where there is none. Blocks on the disk.
    ///
    /// # Errors
    /// `Io`.
    pub fn open_file(&self, digest: &Digest) -> Result<Option<(std::fs::File, u64)>, BlobError> {
        let path = self.path(digest);
        match std::fs::File::open(&path) {
            Ok(file) => {
                let bytes = file.metadata().map_err(at(&path))?.len();
                Ok(Some((file, bytes)))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at(&path)(error)),
        }
    }

    /// The object, or `None` where there is none. Blocks on the disk.
    ///
    /// # Errors
    /// `Io`; `Corrupt` where its digest is not its name.
    pub fn get(&self, digest: &Digest) -> Result<Option<Vec<u8>>, BlobError> {
        let path = self.path(digest);
        match std::fs::read(&path) {
            Ok(bytes) if Digest::of(&bytes) == *digest => Ok(Some(bytes)),
            Ok(_) => Err(BlobError::Corrupt { path }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at(&path)(error)),
        }
    }
}

fn sync_directory(path: &Path) -> Result<(), BlobError> {
    std::fs::File::open(path).and_then(|directory| directory.sync_all()).map_err(at(path))
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> BlobError + use<> {
    let path = path.to_owned();
    move |source| BlobError::Io { path, source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_object_comes_back_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path()).unwrap();
        let digest = blobs.put(b"hello").unwrap();
        assert_eq!(digest, Digest::of(b"hello"));
        assert_eq!(blobs.put(b"hello").unwrap(), digest);
        assert_eq!(blobs.get(&digest).unwrap().unwrap(), b"hello");
        assert_eq!(blobs.get(&Digest::of(b"other")).unwrap(), None);
        std::fs::write(blobs.path(&digest), b"hellO").unwrap();
        assert!(matches!(blobs.get(&digest), Err(BlobError::Corrupt { .. })));
    }

    #[test]
    fn a_file_is_taken_over_once() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(&folder.path().join("blobs")).unwrap();
        let file = folder.path().join("arrived");
        for _ in 0..2 {
            std::fs::write(&file, b"hello").unwrap();
            blobs.adopt(&file, &Digest::of(b"hello")).unwrap();
            assert!(!file.exists());
            assert_eq!(blobs.get(&Digest::of(b"hello")).unwrap().unwrap(), b"hello");
        }
    }

    #[test]
    fn what_is_written_piece_by_piece_is_the_object() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path()).unwrap();
        for _ in 0..2 {
            let mut draft = blobs.draft().unwrap();
            draft.write(b"hel").unwrap();
            draft.write(b"lo").unwrap();
            let (hold, bytes) = blobs.keep(draft).unwrap();
            assert_eq!((hold.digest(), bytes), (Digest::of(b"hello"), 5));
            assert_eq!(blobs.get(&Digest::of(b"hello")).unwrap().unwrap(), b"hello");
        }
        assert_eq!(std::fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn what_is_held_stays() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path()).unwrap();
        let digest = blobs.put(b"hello").unwrap();
        let (one, two) = (blobs.hold(digest), blobs.hold(digest));
        assert_eq!(blobs.list(digest.as_bytes()[0]).unwrap(), [digest]);
        drop(one);
        assert_eq!(blobs.free(&digest).unwrap(), Freed::Held);
        drop(two);
        assert_eq!(blobs.free(&digest).unwrap(), Freed::Removed { bytes: 5 });
        assert_eq!(blobs.free(&digest).unwrap(), Freed::Removed { bytes: 0 });
        assert_eq!(blobs.get(&digest).unwrap(), None);
        drop(blobs.draft().unwrap());
        assert_eq!(std::fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn what_was_half_written_is_swept() {
        let folder = tempfile::tempdir().unwrap();
        drop(Blobs::open(folder.path()).unwrap());
        let left = folder.path().join("tmp/half");
        std::fs::write(&left, b"x").unwrap();
        drop(Blobs::open(folder.path()).unwrap());
        assert!(!left.exists());
    }
}
