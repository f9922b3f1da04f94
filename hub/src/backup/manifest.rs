//! What a backup says of itself.

use std::path::Path;

use forge_contract::Digest;
use serde::{Deserialize, Serialize};

use super::{BackupError, MANIFEST};

/// What the manifest says it is.
const FORMAT: &str = "forgepool backup 1";

/// A backup's list of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// What this is.
    pub format: String,
    /// When the database was copied, ms since 1970.
    pub at_ms: u64,
    /// Version of the program that took it.
    pub software: String,
    /// The database's schema: the number of its last migration.
    pub schema: i64,
    /// Where the audit log stood.
    pub audit: Stood,
    /// Every file, by path.
    pub files: Vec<FileLine>,
    /// Digest of all of the above.
    pub root: Digest,
}

/// Where an audit log stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stood {
    /// Its last row; 0 without one.
    pub seq: u64,
    /// The chain's link with it.
    pub link: Digest,
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileLine {
    /// Its path in the backup, with slashes.
    pub path: String,
    /// Its size, bytes.
    pub bytes: u64,
    /// Its digest.
    pub digest: Digest,
}

impl Manifest {
    /// A manifest with its root.
    #[must_use]
    pub fn new(at_ms: u64, schema: i64, audit: Stood, mut files: Vec<FileLine>) -> Self {
        files.sort_by(|one, other| one.path.cmp(&other.path));
        let (format, software) = (FORMAT.to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        let mut manifest = Self { format, at_ms, software, schema, audit, files, root: Digest::from_bytes([0; 32]) };
        manifest.root = manifest.digest();
        manifest
    }

    fn digest(&self) -> Digest {
        let rootless = Self { root: Digest::from_bytes([0; 32]), ..self.clone() };
        // Texts, integers and digests always have a JSON form.
        Digest::tagged("forgepool v1 backup", &serde_json::to_vec(&rootless).unwrap_or_default())
    }

    /// The text of its file.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// The manifest of a backup.
    ///
    /// # Errors
    /// `NoBackup`, `Damaged`.
    pub fn read(backup: &Path) -> Result<Self, BackupError> {
        let no_backup = |reason: String| BackupError::NoBackup { path: backup.to_owned(), reason };
        let text = std::fs::read_to_string(backup.join(MANIFEST))
            .map_err(|error| no_backup(format!("{MANIFEST}: {error}")))?;
        let damaged = || BackupError::Damaged { path: MANIFEST.into() };
        let manifest: Self = serde_json::from_str(&text).map_err(|_| damaged())?;
        if manifest.format != FORMAT {
            return Err(no_backup(format!("it is a '{}', this program reads '{FORMAT}'", manifest.format)));
        }
        let plain = |path: &str| {
            let good = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', '\0']);
            path.split('/').all(good)
        };
        let sound = manifest.root == manifest.digest() && manifest.files.iter().all(|file| plain(&file.path));
        if sound && manifest.text() == text { Ok(manifest) } else { Err(damaged()) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_flipped_byte_of_a_manifest_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let files = vec![FileLine { path: "hub.db".into(), bytes: 7, digest: Digest::of(b"x") }];
        let manifest = Manifest::new(5, 10, Stood { seq: 3, link: Digest::of(b"l") }, files);
        let (path, text) = (folder.path().join(MANIFEST), manifest.text());
        assert!(matches!(Manifest::read(folder.path()), Err(BackupError::NoBackup { .. })));
        std::fs::write(&path, &text).unwrap();
        assert_eq!(Manifest::read(folder.path()).unwrap(), manifest);
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            *bytes.get_mut(at).unwrap() ^= 1;
            std::fs::write(&path, bytes).unwrap();
            assert!(Manifest::read(folder.path()).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_path_stays_within_the_backup() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["/etc/passwd", "../x", "a/../../x", "", "a//b", "."] {
            let files = vec![FileLine { path: path.into(), bytes: 0, digest: Digest::of(b"") }];
            let manifest = Manifest::new(5, 10, Stood { seq: 0, link: Digest::of(b"l") }, files);
            std::fs::write(folder.path().join(MANIFEST), manifest.text()).unwrap();
            assert!(matches!(Manifest::read(folder.path()), Err(BackupError::Damaged { .. })), "{path:?}");
        }
    }
}
