//! What is done to a hub's data directory on its own machine, whether or not a hub runs there.

use std::path::Path;

use anyhow::Result;
use forge_hub::backup::{self, Manifest, Restored, Taken};
use forge_lifecycle::bundle::key::{Key, Verify};
use forge_lifecycle::trail::Head;
use forge_lifecycle::trail::verify::Findings;

/// Whether what was tried shows that a backup does not hold, rather than that something here failed.
#[must_use]
pub fn is_unsound(error: &anyhow::Error) -> bool {
    error.downcast_ref::<backup::BackupError>().is_some_and(backup::BackupError::is_damage)
}

/// Checks the audit log of a data directory or a backup.
///
/// # Errors
/// There is no database, or it cannot be read.
pub async fn audit(data: &Path, key: Option<Key>, kept: Option<Head>, verify: Verify<'_>) -> Result<Findings> {
    Ok(backup::audit(data, key, kept, verify).await?)
}

/// Takes a backup of a data directory.
///
/// # Errors
/// See [`backup::BackupError`].
pub async fn take(data: &Path, into: &Path, linked: bool) -> Result<Taken> {
    Ok(backup::take(data, into, linked).await?)
}

/// Makes a data directory of a backup.
///
/// # Errors
/// See [`backup::BackupError`].
pub fn restore(from: &Path, data: &Path) -> Result<Restored> {
    Ok(backup::restore(from, data)?)
}

/// What a backup says of itself, every byte of it checked.
///
/// # Errors
/// See [`backup::BackupError`].
pub fn check(from: &Path) -> Result<Manifest> {
    Ok(backup::check(from)?)
}

/// Where a hub on this machine keeps its data when nothing is said.
#[must_use]
pub fn hub_data_default() -> Option<std::path::PathBuf> {
    forge_hub::config::data_directory()
}
