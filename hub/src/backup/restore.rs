//! Checking a backup, and making a data directory of it.

use std::path::Path;

use super::manifest::{FileLine, Manifest};
use super::{BackupError, take};

/// A data directory that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Files.
    pub files: u64,
    /// Their size in all, bytes.
    pub bytes: u64,
}

/// Compares every byte of a backup with its manifest.
///
/// # Errors
/// `NoBackup`, `Missing`, `Damaged`, `Io`.
pub fn check(backup: &Path) -> Result<Manifest, BackupError> {
    let manifest = Manifest::read(backup)?;
    for file in &manifest.files {
        present(backup, file)?;
        same(file, &take::line_of(backup, &file.path)?)?;
    }
    Ok(manifest)
}

/// Makes a data directory of a backup; it must not exist, or be empty.
///
/// # Errors
/// See [`BackupError`]; nothing is left behind then.
pub fn restore(backup: &Path, data: &Path) -> Result<Restored, BackupError> {
    let manifest = Manifest::read(backup)?;
    let draft = take::begin(data)?;
    let restored = fill(backup, &draft, &manifest).and_then(|restored| take::finish(&draft, data).map(|()| restored));
    if restored.is_err() {
        take::clear(&draft)?;
    }
    restored
}

fn fill(backup: &Path, draft: &Path, manifest: &Manifest) -> Result<Restored, BackupError> {
    let mut restored = Restored { files: 0, bytes: 0 };
    for file in &manifest.files {
        present(backup, file)?;
        same(file, &take::copy(&backup.join(&file.path), draft, &file.path)?)?;
        restored.files += 1;
        restored.bytes += file.bytes;
    }
    Ok(restored)
}

fn present(backup: &Path, file: &FileLine) -> Result<(), BackupError> {
    match backup.join(&file.path).is_file() {
        true => Ok(()),
        false => Err(BackupError::Missing { path: file.path.clone() }),
    }
}

fn same(expected: &FileLine, found: &FileLine) -> Result<(), BackupError> {
    if expected == found { Ok(()) } else { Err(BackupError::Damaged { path: expected.path.clone() }) }
}
