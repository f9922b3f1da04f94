//! A kernel project's own files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use forge_contract::manifest::{Golden, Manifest, ManifestError};

/// The manifest as its author writes it.
pub const MANIFEST_FILE: &str = "kernel.toml";
/// Known answers by profile, recorded by the build: JSON, beside the manifest.
pub const GOLDENS_FILE: &str = "goldens.json";

/// A kernel project's declarations.
#[derive(Debug, Clone)]
pub struct Project {
    /// The manifest, with the recorded goldens.
    pub manifest: Manifest,
}

/// Why a project cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// A file is missing or unreadable.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is not of its format.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        reason: String,
    },
    /// The manifest breaks a rule.
    #[error("{}: {source}", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// The rule.
        source: ManifestError,
    },
    /// Goldens of a profile that does not exist.
    #[error(
        "{}: there is no profile `{profile}`; remove it, then record again with `forgepool kernel check --record`",
        path.display()
    )]
    UnknownProfile {
        /// The file.
        path: PathBuf,
        /// The profile named.
        profile: String,
    },
}

impl Project {
    /// Reads the project in a folder.
    ///
    /// # Errors
    /// Where a file is missing, malformed or breaks a rule of manifests.
    pub fn read(folder: &Path) -> Result<Self, ProjectError> {
        let path = folder.join(MANIFEST_FILE);
        let text =
            std::fs::read_to_string(&path).map_err(|source| ProjectError::File { path: path.clone(), source })?;
        let mut manifest: Manifest =
            toml::from_str(&text).map_err(|e| ProjectError::Format { path: path.clone(), reason: e.to_string() })?;
        add_goldens(&mut manifest, &folder.join(GOLDENS_FILE))?;
        let json = serde_json::to_vec(&manifest)
            .map_err(|e| ProjectError::Format { path: path.clone(), reason: e.to_string() })?;
        let manifest = Manifest::parse(&json).map_err(|source| ProjectError::Manifest { path, source })?;
        Ok(Self { manifest })
    }

    /// Largest linear memory that any stage grants a unit, bytes.
    #[must_use]
    pub fn memory_bytes_max(&self) -> u64 {
        let stages = self.manifest.profiles.values().flat_map(|p| &p.stages);
        stages.map(|s| s.limits.memory_bytes).max().unwrap_or_default()
    }
}

fn add_goldens(manifest: &mut Manifest, path: &Path) -> Result<(), ProjectError> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(ProjectError::File { path: path.to_owned(), source }),
    };
    let recorded: BTreeMap<String, Vec<Golden>> = serde_json::from_slice(&text)
        .map_err(|e| ProjectError::Format { path: path.to_owned(), reason: e.to_string() })?;
    for (profile, goldens) in recorded {
        match manifest.profiles.get_mut(&profile) {
            Some(found) => found.goldens = goldens,
            None => return Err(ProjectError::UnknownProfile { path: path.to_owned(), profile }),
        }
    }
    Ok(())
}
