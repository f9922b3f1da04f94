//! Uploads: bytes that arrive over any number of requests, hashed while they arrive, and are nobody's until their
//! digest is the one that was declared.
//!
//! ```text
//! uploads/<project's digest>/<digest>.<bytes>.part   a prefix; its length is where the next request goes on
//! uploads/<project's digest>/<digest>.<n>.whole      complete and verified, until its receiver has moved it away
//! ```
//!
//! No name on disk comes from a client: what is used is a digest that was parsed and the digest of the project's id.
//! A prefix lost to a power cut or found altered makes the whole upload fail its digest; it then begins anew.

mod compare;
mod partial;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use axum::body::{Body, HttpBody as _};
use forge_contract::Digest;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};

pub use compare::{Agreement, compare};
pub(crate) use partial::failed;
use partial::{Kept, Partial, Place};

/// Bytes gathered before they are written.
const GATHERED_BYTES: usize = 1 << 20;
/// What a body must bring in each stretch of the patience, or it counts as stalled.
const STRETCH_BYTES: u64 = 64 << 10;
/// A refused body up to this size is read and thrown away, so that its sender sees the answer and no broken pipe.
const LINGER_BYTES_MAX: u64 = 8 << 20;
/// Space left to the database and to everything else on the disk.
const DISK_RESERVE_BYTES: u64 = 64 << 20;
/// Uploads of one project that may be arriving at the same time.
const WRITERS_MAX: usize = 16;
/// Unfinished uploads of one project: the oldest make room.
const PARTIALS_MAX: usize = 64;
/// Bytes of unfinished uploads of one project: the oldest make room.
const PARTIAL_BYTES_MAX: u64 = 32 << 30;
/// What nobody continued for this long is removed.
const PARTIAL_AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Hashers of interrupted uploads kept in memory, so that going on need not read the prefix again.
const HASHERS_MAX: usize = 256;

/// What the sender of an upload says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Declared {
    /// BLAKE3 of the whole content.
    pub digest: Digest,
    /// Size of the whole content, bytes.
    pub bytes: u64,
    /// Where this request's body begins, bytes; 0 begins anew.
    pub offset: u64,
}

/// What a request came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// The body ended before the content did: the next request goes on at `offset`.
    Partial {
        /// Bytes that are there.
        offset: u64,
    },
    /// A complete, durable file whose BLAKE3 is the declared digest. Whoever gets it moves or removes it.
    Whole(PathBuf),
}

/// Why a request added nothing, or not everything.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// Another request is writing this upload.
    #[error("the upload of {digest} is in progress in another request")]
    Busy {
        /// The upload.
        digest: Digest,
    },
    /// The project has too many uploads arriving.
    #[error("{max} uploads of this project are arriving already")]
    Crowded {
        /// How many may.
        max: usize,
    },
    /// The declared size is over the limit.
    #[error("bytes={bytes} is more than the limit of {limit} bytes")]
    TooLarge {
        /// Declared.
        bytes: u64,
        /// Allowed.
        limit: u64,
    },
    /// The body does not go on where the prefix ends.
    #[error("offset={given} is not where the upload goes on: {expected} bytes are there")]
    Offset {
        /// Given.
        given: u64,
        /// Where it goes on.
        expected: u64,
    },
    /// The body is longer than what is missing.
    #[error("the body goes on after the {bytes} bytes that were declared")]
    TooLong {
        /// Declared.
        bytes: u64,
    },
    /// The content is another one than declared.
    #[error("the content has the digest {found}, declared was {declared}")]
    Digest {
        /// Declared.
        declared: Digest,
        /// Found.
        found: Digest,
    },
    /// The connection broke.
    #[error("the body broke off; {offset} bytes are there")]
    Cut {
        /// Bytes that are there.
        offset: u64,
    },
    /// The body came too slowly.
    #[error("the body brought less than {STRETCH_BYTES} bytes in {ms} ms; {offset} bytes are there")]
    Slow {
        /// Bytes that are there.
        offset: u64,
        /// The stretch, ms.
        ms: u128,
    },
    /// The disk, or a quota of it, has no room. What was there of the upload is removed.
    #[error("the hub's disk has no room for {bytes} bytes")]
    Full {
        /// Declared.
        bytes: u64,
    },
    /// The file system failed.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Uploads in progress and interrupted ones. Clones share them.
#[derive(Clone, Debug)]
pub struct Uploads {
    shelf: Arc<Shelf>,
}

#[derive(Debug)]
struct Shelf {
    root: PathBuf,
    patience: Duration,
    finished: AtomicU64,
    desk: Mutex<Desk>,
}

type Key = (Digest, Digest);

#[derive(Debug, Default)]
struct Desk {
    /// (project, content) that a request is writing.
    busy: BTreeSet<Key>,
    kept: BTreeMap<Key, Kept>,
}

/// The one right to write an upload, given back when dropped.
#[derive(Debug)]
struct Turn {
    shelf: Arc<Shelf>,
    key: Key,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.shelf.desk().busy.remove(&self.key);
    }
}

impl Shelf {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, key: &Key) -> Place {
        Place { folder: self.root.join(key.0.to_string()), digest: key.1 }
    }

    fn turn(self: &Arc<Self>, key: Key) -> Result<(Turn, Option<Kept>), UploadError> {
        let mut desk = self.desk();
        if desk.busy.contains(&key) {
            return Err(UploadError::Busy { digest: key.1 });
        }
        if desk.busy.iter().filter(|(project, _)| *project == key.0).count() >= WRITERS_MAX {
            return Err(UploadError::Crowded { max: WRITERS_MAX });
        }
        desk.busy.insert(key);
        let kept = desk.kept.remove(&key);
        Ok((Turn { shelf: Arc::clone(self), key }, kept))
    }

    fn keep(&self, key: Key, kept: Kept) {
        let mut desk = self.desk();
        if desk.kept.len() < HASHERS_MAX {
            desk.kept.insert(key, kept);
        }
    }

    /// Makes room in a project's folder: what is too old, then the oldest beyond the project's totals.
    fn sweep(&self, folder: &Path, now: SystemTime) {
        let Some(project) = folder.file_name().and_then(|name| name.to_str()?.parse::<Digest>().ok()) else { return };
        let mut found = partial::list(folder);
        // Newest first: what goes beyond the totals is the oldest.
        found.sort_by_key(|one| std::cmp::Reverse(one.changed));
        let (mut count, mut total) = (0, 0_u64);
        for one in found {
            count += 1;
            total = total.saturating_add(one.length);
            let old = now.duration_since(one.changed).is_ok_and(|age| age > PARTIAL_AGE_MAX);
            if !old && (one.whole || (count <= PARTIALS_MAX && total <= PARTIAL_BYTES_MAX)) {
                continue;
            }
            let key = (project, one.digest);
            // Under the lock: nobody can begin to write it meanwhile.
            let mut desk = self.desk();
            if desk.busy.contains(&key) {
                continue;
            }
            desk.kept.remove(&key);
            match std::fs::remove_file(&one.path) {
                Ok(()) => tracing::info!(digest = %one.digest, bytes = one.length, "an abandoned upload was removed"),
                Err(error) => tracing::warn!(path = %one.path.display(), %error, "an abandoned upload stays"),
            }
        }
    }
}

fn project_key(project: &str) -> Digest {
    Digest::tagged("forgepool v1 upload folder", project.as_bytes())
}

impl Uploads {
    /// Opens the directory, making it where missing, and sweeps what is too old or was left behind complete.
    ///
    /// # Errors
    /// `Io`.
    pub fn open(root: &Path) -> Result<Self, UploadError> {
        let io = |source| UploadError::Io { path: root.to_owned(), source };
        std::fs::create_dir_all(root).map_err(io)?;
        let shelf = Shelf {
            root: root.to_owned(),
            patience: Duration::from_secs(10),
            finished: AtomicU64::new(0),
            desk: Mutex::default(),
        };
        for folder in std::fs::read_dir(root).map_err(io)?.filter_map(Result::ok) {
            for left in partial::list(&folder.path()).into_iter().filter(|one| one.whole) {
                std::fs::remove_file(&left.path).map_err(io)?;
            }
            shelf.sweep(&folder.path(), SystemTime::now());
        }
        Ok(Self { shelf: Arc::new(shelf) })
    }

    /// The same with another patience: how long a body may take for each stretch of it.
    #[must_use]
    pub fn patient(self, patience: Duration) -> Self {
        let Self { shelf } = self;
        let shelf = match Arc::try_unwrap(shelf) {
            Ok(shelf) => Arc::new(Shelf { patience, ..shelf }),
            // Somebody uploads already.
            Err(shelf) => shelf,
        };
        Self { shelf }
    }

    /// Takes a request's body to what is there of the upload.
    ///
    /// A body that breaks off, stalls, or simply ends early leaves its prefix; the next request goes on there. An
    /// `offset` of 0 begins anew. The work goes on when the caller stops waiting, until the body ends.
    ///
    /// # Errors
    /// See [`UploadError`]. After `Digest`, `TooLong` and `Full` nothing is left of the upload.
    pub async fn receive(
        &self,
        project: &str,
        declared: &Declared,
        limit: u64,
        body: Body,
    ) -> Result<Received, UploadError> {
        let (shelf, declared, key) = (Arc::clone(&self.shelf), *declared, (project_key(project), declared.digest));
        let work = async move { receive(shelf, key, declared, limit, body).await };
        // A task of its own: a connection that breaks takes the handler with it, but what arrived is to be kept.
        let done = tokio::spawn(tracing::Instrument::in_current_span(work)).await;
        done.unwrap_or(Err(UploadError::Cut { offset: 0 }))
    }

    /// How much is there of an unfinished upload, and how much it was declared to be.
    pub async fn offset(&self, project: &str, digest: &Digest) -> Option<(u64, u64)> {
        let place = self.shelf.place(&(project_key(project), *digest));
        let found = tokio::task::spawn_blocking(move || place.find()).await.ok().flatten()?;
        Some((found.length, found.bytes))
    }

    /// Removes what is too old, of every project.
    pub fn sweep(&self) {
        for folder in std::fs::read_dir(&self.shelf.root).into_iter().flatten().filter_map(Result::ok) {
            self.shelf.sweep(&folder.path(), SystemTime::now());
        }
    }
}

async fn receive(
    shelf: Arc<Shelf>,
    key: Key,
    declared: Declared,
    limit: u64,
    mut body: Body,
) -> Result<Received, UploadError> {
    let began = begin(&shelf, key, declared, limit, body.size_hint().exact()).await;
    let (turn, partial) = match began {
        Ok(began) => began,
        Err(error) => {
            linger(&mut body, shelf.patience).await;
            return Err(error);
        }
    };
    let (partial, ended) = fill(partial, &mut body, shelf.patience).await?;
    let outcome = conclude(&shelf, partial, ended, declared).await;
    if !matches!(outcome, Ok(Received::Whole(_) | Received::Partial { .. })) {
        linger(&mut body, shelf.patience).await;
    }
    drop(turn);
    outcome
}

/// Checks what was declared, and the body's `exact` length where it is known, and opens the prefix.
async fn begin(
    shelf: &Arc<Shelf>,
    key: Key,
    declared: Declared,
    limit: u64,
    exact: Option<u64>,
) -> Result<(Turn, Partial), UploadError> {
    if declared.bytes > limit {
        return Err(UploadError::TooLarge { bytes: declared.bytes, limit });
    }
    let (turn, kept) = shelf.turn(key)?;
    let shelf = Arc::clone(shelf);
    blocking(move || {
        let place = shelf.place(&key);
        shelf.sweep(&place.folder, SystemTime::now());
        let partial = partial::open(place, declared, kept)?;
        if exact.is_some_and(|exact| exact > declared.bytes - partial.length) {
            shelf.keep(key, partial.kept());
            return Err(UploadError::TooLong { bytes: declared.bytes });
        }
        if !has_room(&shelf.root, declared.bytes - partial.length) {
            partial.remove();
            return Err(UploadError::Full { bytes: declared.bytes });
        }
        Ok((turn, partial))
    })
    .await
}

/// How a body ended.
enum Ended {
    Well,
    TooLong,
    Cut,
    Slow(Duration),
}

/// Writes and hashes the body, a bounded piece at a time.
async fn fill(mut partial: Partial, body: &mut Body, patience: Duration) -> Result<(Partial, Ended), UploadError> {
    let (mut gathered, mut size) = (Vec::new(), 0_usize);
    let (mut deadline, mut stretch) = (Instant::now() + patience, 0_u64);
    let mut missing = partial.missing();
    let ended = loop {
        let frame = match timeout_at(deadline, body.frame()).await {
            Err(_) => break Ended::Slow(patience),
            Ok(None) => break Ended::Well,
            Ok(Some(Err(_))) => break Ended::Cut,
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(data) = frame.into_data() else { continue };
        if data.len() as u64 > missing {
            break Ended::TooLong;
        }
        missing -= data.len() as u64;
        stretch += data.len() as u64;
        size += data.len();
        gathered.push(data);
        if size >= GATHERED_BYTES {
            let pieces = std::mem::take(&mut gathered);
            partial = blocking(move || partial.append(&pieces)).await?;
            size = 0;
        }
        if stretch >= STRETCH_BYTES {
            (deadline, stretch) = (Instant::now() + patience, 0);
        }
    };
    partial = blocking(move || partial.append(&gathered)).await?;
    Ok((partial, ended))
}

async fn conclude(
    shelf: &Arc<Shelf>,
    partial: Partial,
    ended: Ended,
    declared: Declared,
) -> Result<Received, UploadError> {
    let (shelf, offset) = (Arc::clone(shelf), partial.length);
    let key = (partial.place.project(), declared.digest);
    blocking(move || match ended {
        Ended::TooLong => {
            partial.remove();
            Err(UploadError::TooLong { bytes: declared.bytes })
        }
        // The last bytes may be there although their connection did not end well.
        _ if offset == declared.bytes => {
            let number = shelf.finished.fetch_add(1, Ordering::Relaxed);
            partial.finish(number).map(Received::Whole)
        }
        Ended::Well => {
            shelf.keep(key, partial.kept());
            Ok(Received::Partial { offset })
        }
        Ended::Cut => {
            shelf.keep(key, partial.kept());
            Err(UploadError::Cut { offset })
        }
        Ended::Slow(patience) => {
            shelf.keep(key, partial.kept());
            Err(UploadError::Slow { offset, ms: patience.as_millis() })
        }
    })
    .await
}

/// Reads a refused body to its end, within bounds.
pub(crate) async fn linger(body: &mut Body, patience: Duration) {
    if body.size_hint().lower() > LINGER_BYTES_MAX {
        return;
    }
    let reading = async {
        let mut seen = 0;
        while let Some(Ok(frame)) = body.frame().await {
            seen += frame.data_ref().map_or(0, |data| data.len() as u64);
            if seen > LINGER_BYTES_MAX {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(patience, reading).await;
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, UploadError> + Send + 'static,
) -> Result<T, UploadError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(UploadError::Cut { offset: 0 }))
}

/// Whether the disk takes this much and keeps its reserve. Where the system does not say, writing will tell.
pub(crate) fn has_room(root: &Path, bytes: u64) -> bool {
    match rustix::fs::statvfs(root) {
        Ok(disk) => disk.f_bavail.saturating_mul(disk.f_frsize) >= bytes.saturating_add(DISK_RESERVE_BYTES),
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests;
