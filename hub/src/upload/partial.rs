//! A prefix on disk, with the hasher that has seen exactly its bytes.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use blake3::Hasher;
use bytes::Bytes;
use forge_contract::Digest;

use super::{Declared, UploadError};
use crate::store::blobs::BlobError;

/// Bytes read at a time when a prefix is hashed again.
const CHUNK_BYTES: usize = 256 << 10;

/// Where an upload lies.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The project's folder.
    pub(super) folder: PathBuf,
    /// The content's digest, declared.
    pub(super) digest: Digest,
}

impl Place {
    /// The digest that names the project's folder.
    pub(super) fn project(&self) -> Digest {
        let name = self.folder.file_name().and_then(|name| name.to_str());
        name.and_then(|name| name.parse().ok()).unwrap_or(Digest::from_bytes([0; 32]))
    }

    /// What is there of it.
    pub(super) fn find(&self) -> Option<Found> {
        list(&self.folder).into_iter().find(|found| found.digest == self.digest && !found.whole)
    }

    fn part(&self, bytes: u64) -> PathBuf {
        self.folder.join(format!("{}.{bytes}.part", self.digest))
    }
}

/// A file in a project's folder.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) digest: Digest,
    /// Declared size of the content, or the number of a complete file.
    pub(super) bytes: u64,
    /// Bytes that are there.
    pub(super) length: u64,
    pub(super) whole: bool,
    pub(super) changed: SystemTime,
}

/// The uploads in a project's folder; nothing where there is no folder.
pub(super) fn list(folder: &Path) -> Vec<Found> {
    let found = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let mut parts = name.splitn(3, '.');
        let digest = parts.next()?.parse().ok()?;
        let bytes = parts.next()?.parse().ok()?;
        let whole = match parts.next()? {
            "part" => false,
            "whole" => true,
            _ => return None,
        };
        let about = entry.metadata().ok()?;
        Some(Found { path: entry.path(), digest, bytes, length: about.len(), whole, changed: about.modified().ok()? })
    };
    std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).filter_map(found).collect()
}

/// The hasher of an interrupted upload.
#[derive(Debug)]
pub(super) struct Kept {
    hasher: Box<Hasher>,
    length: u64,
    bytes: u64,
}

/// A prefix that is being written.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) place: Place,
    pub(super) length: u64,
    path: PathBuf,
    bytes: u64,
    file: File,
    hasher: Box<Hasher>,
}

/// Opens the prefix at the declared offset, or begins anew where that is 0.
pub(super) fn open(place: Place, declared: Declared, kept: Option<Kept>) -> Result<Partial, UploadError> {
    let there = place.find();
    if declared.offset > 0 {
        let expected = there.as_ref().filter(|found| found.bytes == declared.bytes).map_or(0, |found| found.length);
        if declared.offset != expected || expected > declared.bytes {
            return Err(UploadError::Offset { given: declared.offset, expected });
        }
    } else if let Some(there) = there {
        std::fs::remove_file(&there.path).map_err(at(&there.path, declared.bytes))?;
    }
    let path = place.part(declared.bytes);
    std::fs::create_dir_all(&place.folder).map_err(at(&place.folder, declared.bytes))?;
    let opened = File::options().read(true).write(true).create(true).truncate(declared.offset == 0).open(&path);
    let mut file = opened.map_err(at(&path, declared.bytes))?;
    let hasher = match kept {
        Some(kept) if kept.length == declared.offset && kept.bytes == declared.bytes => kept.hasher,
        _ => hashed(&mut file, declared.offset).map_err(at(&path, declared.bytes))?,
    };
    file.seek(std::io::SeekFrom::Start(declared.offset)).map_err(at(&path, declared.bytes))?;
    Ok(Partial { place, length: declared.offset, path, bytes: declared.bytes, file, hasher })
}

/// A hasher that has seen the first `length` bytes.
fn hashed(file: &mut File, length: u64) -> std::io::Result<Box<Hasher>> {
    let mut hasher = Box::new(Hasher::new());
    let (mut chunk, mut prefix) = (vec![0; CHUNK_BYTES], file.take(length));
    loop {
        match prefix.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => hasher.update(chunk.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
    }
    Ok(hasher)
}

impl Partial {
    /// Bytes that are not there yet.
    pub(super) fn missing(&self) -> u64 {
        self.bytes - self.length
    }

    /// Adds what came. Where the disk is full the whole prefix is removed; where it fails otherwise, the file ends
    /// again where it ended before.
    pub(super) fn append(mut self, pieces: &[Bytes]) -> Result<Self, UploadError> {
        for piece in pieces {
            if let Err(error) = self.file.write_all(piece) {
                let error = at(&self.path, self.bytes)(error);
                if matches!(error, UploadError::Full { .. }) {
                    self.remove();
                } else if let Err(error) = self.file.set_len(self.length) {
                    tracing::warn!(path = %self.path.display(), %error, "a broken upload keeps a wrong length");
                }
                return Err(error);
            }
            self.hasher.update(piece);
            self.length += piece.len() as u64;
        }
        Ok(self)
    }

    /// What a later request needs to go on without reading the prefix.
    pub(super) fn kept(self) -> Kept {
        Kept { hasher: self.hasher, length: self.length, bytes: self.bytes }
    }

    /// Removes it.
    pub(super) fn remove(self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a refused upload stays");
        }
    }

    /// Checks the digest and makes the file durable under its final name here.
    pub(super) fn finish(self, number: u64) -> Result<PathBuf, UploadError> {
        let found = Digest::from_bytes(*self.hasher.finalize().as_bytes());
        if found != self.place.digest {
            let declared = self.place.digest;
            self.remove();
            return Err(UploadError::Digest { declared, found });
        }
        if let Err(error) = self.file.sync_all() {
            let error = at(&self.path, self.bytes)(error);
            self.remove();
            return Err(error);
        }
        let whole = self.place.folder.join(format!("{found}.{number}.whole"));
        std::fs::rename(&self.path, &whole).map_err(at(&whole, self.bytes))?;
        Ok(whole)
    }
}

/// What the blobs' file system said, as ours.
pub(crate) fn failed(error: BlobError, bytes: u64) -> UploadError {
    match error {
        BlobError::Io { path, source } => at(&path, bytes)(source),
        BlobError::Corrupt { path } => {
            UploadError::Io { path, source: std::io::Error::other("the file no longer has its digest") }
        }
    }
}

/// The system's error as ours: no room, or anything else. A file over a limit of the process counts as no room.
fn at(path: &Path, bytes: u64) -> impl FnOnce(std::io::Error) -> UploadError + use<> {
    let path = path.to_owned();
    move |source| match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => UploadError::Full { bytes },
        _ => UploadError::Io { path, source },
    }
}
