//! The kernels this hub offers: admitted by parsing alone, pinned by digest, never changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use forge_contract::envelope::Operation;
use forge_contract::{Digest, Failure, FailureCode};
use forge_lifecycle::admit::{self, AdmitError};
use forge_lifecycle::plan::Kernel;

use crate::store::blobs::{BlobError, Blobs};
use crate::store::{KernelRow, Store, StoreError, Write};

/// Where built-in kernels come from.
#[derive(Clone, Debug)]
pub enum KernelSource {
    /// Every `*.wasm` of a folder; `pins.toml` in it or beside it names their digests, where there is one.
    Folder(PathBuf),
    /// Components in memory, with the text of their pins.
    Embedded {
        /// File name and bytes.
        components: Vec<(String, Bytes)>,
        /// The pins, TOML.
        pins: Option<String>,
    },
}

/// Why the kernels could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A component is refused.
    #[error("{file}: {source}")]
    Refused {
        /// Its file.
        file: String,
        /// Why.
        source: AdmitError,
    },
    /// A component is not the pinned one.
    #[error("{file} has the digest {found}, pinned is {pinned}; rebuild it or update pins.toml")]
    NotPinned {
        /// Its file.
        file: String,
        /// Its digest.
        found: Digest,
        /// The digest pinned.
        pinned: String,
    },
    /// The pins cannot be read.
    #[error("pins.toml: {reason}")]
    Pins {
        /// What the parser says.
        reason: String,
    },
    /// A blob cannot be written.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The store refused, for example because `name@version` is taken by other bytes.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An admitted kernel with its component.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What plans are made from.
    pub kernel: Arc<Kernel>,
    /// The component.
    pub component: Bytes,
}

/// The kernels on offer, by name and version.
#[derive(Debug, Default)]
pub struct Registry {
    kernels: BTreeMap<(String, u32), Entry>,
}

impl Registry {
    /// Reads, admits and records every kernel of these sources, and those of earlier starts.
    ///
    /// # Errors
    /// The first kernel that is refused; a hub does not start with less than it was given.
    pub async fn load(sources: &[KernelSource], store: &dyn Store, blobs: &Arc<Blobs>) -> Result<Self, RegistryError> {
        let mut registry = Self::default();
        for source in sources {
            let (components, pins) = read(source)?;
            for (file, component) in components {
                let entry = admitted(&file, component, pins.as_ref())?;
                registry.record(&entry, store, blobs).await?;
            }
        }
        registry.recall(store, blobs).await?;
        Ok(registry)
    }

    async fn record(&mut self, entry: &Entry, store: &dyn Store, blobs: &Arc<Blobs>) -> Result<(), RegistryError> {
        let Kernel { digest, bytes, manifest } = &*entry.kernel;
        let (files, component) = (Arc::clone(blobs), entry.component.clone());
        tokio::task::spawn_blocking(move || files.put(&component)).await.map_err(|_| StoreError::Closed)??;
        let row = KernelRow {
            name: manifest.name.clone(),
            version: manifest.version,
            digest: *digest,
            bytes: *bytes,
            manifest: serde_json::to_string(manifest).map_err(|_| StoreError::Corrupt { what: "manifest" })?,
        };
        store.submit(Write::Kernel(Box::new(row))).await?;
        tracing::info!(kernel = manifest.label(), %digest, bytes, "kernel admitted");
        self.kernels.insert((manifest.name.clone(), manifest.version), entry.clone());
        Ok(())
    }

    /// Kernels of earlier starts stay on offer: what was pinned can be replayed.
    async fn recall(&mut self, store: &dyn Store, blobs: &Arc<Blobs>) -> Result<(), RegistryError> {
        for row in store.kernels().await? {
            if self.kernels.contains_key(&(row.name.clone(), row.version)) {
                continue;
            }
            let label = format!("{}@{}", row.name, row.version);
            let (files, digest) = (Arc::clone(blobs), row.digest);
            let read =
                tokio::task::spawn_blocking(move || files.get(&digest)).await.map_err(|_| StoreError::Closed)??;
            let manifest = serde_json::from_str(&row.manifest).ok();
            let (Some(component), Some(manifest)) = (read, manifest) else {
                tracing::warn!(kernel = label, digest = %row.digest, "a recorded kernel is no longer readable");
                continue;
            };
            let kernel = Arc::new(Kernel { digest: row.digest, bytes: row.bytes, manifest });
            self.kernels.insert((row.name, row.version), Entry { kernel, component: component.into() });
        }
        Ok(())
    }

    /// A registry of kernels that need no file: for tests of what stands above it.
    #[must_use]
    pub fn of(kernels: Vec<Entry>) -> Self {
        let key = |entry: &Entry| (entry.kernel.manifest.name.clone(), entry.kernel.manifest.version);
        Self { kernels: kernels.into_iter().map(|entry| (key(&entry), entry)).collect() }
    }

    /// The kernel of an operation.
    ///
    /// # Errors
    /// `request.unknown_op`, at the name or the version.
    pub fn find(&self, op: &Operation) -> Result<Arc<Kernel>, Failure> {
        if let Some(entry) = self.kernels.get(&(op.name.clone(), op.version)) {
            return Ok(Arc::clone(&entry.kernel));
        }
        let known = self.kernels.keys().any(|(name, _)| *name == op.name);
        let (at, field) = if known { ("/op/version", "op.version") } else { ("/op/name", "op.name") };
        let labels: Vec<String> = self.kernels.keys().map(|(name, version)| format!("{name}@{version}")).collect();
        let there = if labels.is_empty() { "none".to_owned() } else { labels.join(", ") };
        let detail = format!("{field}: there is no operation {}; there are: {there}", op.label());
        Err(Failure::new(FailureCode::RequestUnknownOp, detail).at(at))
    }

    /// The component of this digest.
    #[must_use]
    pub fn component(&self, digest: &Digest) -> Option<Bytes> {
        self.kernels.values().find(|entry| entry.kernel.digest == *digest).map(|entry| entry.component.clone())
    }

    /// Every kernel, by name and version.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Kernel>> {
        self.kernels.values().map(|entry| &entry.kernel)
    }
}

fn admitted(file: &str, component: Bytes, pins: Option<&Pins>) -> Result<Entry, RegistryError> {
    let found = admit::inspect(&component).map_err(|source| RegistryError::Refused { file: file.into(), source })?;
    if let Some(pins) = pins {
        let pinned = pins.get(&(found.manifest.name.clone(), found.manifest.version));
        if pinned != Some(&found.digest) {
            let pinned = pinned.map_or_else(|| "nothing".into(), Digest::to_string);
            return Err(RegistryError::NotPinned { file: file.into(), found: found.digest, pinned });
        }
    }
    let kernel = Arc::new(Kernel { digest: found.digest, bytes: found.bytes, manifest: found.manifest });
    Ok(Entry { kernel, component })
}

/// The digest of each kernel by name and version.
type Pins = BTreeMap<(String, u32), Digest>;
/// Components by file name; their pins, where there are any.
type Read = (Vec<(String, Bytes)>, Option<Pins>);

fn read(source: &KernelSource) -> Result<Read, RegistryError> {
    match source {
        KernelSource::Embedded { components, pins } => {
            Ok((components.clone(), pins.as_deref().map(parse_pins).transpose()?))
        }
        KernelSource::Folder(folder) => read_folder(folder),
    }
}

fn read_folder(folder: &Path) -> Result<Read, RegistryError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| RegistryError::Io { path, source }
    };
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .map_err(io(folder))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "wasm"))
        .collect();
    files.sort();
    let mut components = Vec::with_capacity(files.len());
    for path in files {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        components.push((name, std::fs::read(&path).map_err(io(&path))?.into()));
    }
    let beside = [folder.join("pins.toml"), folder.parent().unwrap_or(folder).join("pins.toml")];
    let pins = match beside.iter().find(|path| path.exists()) {
        Some(path) => Some(parse_pins(&std::fs::read_to_string(path).map_err(io(path))?)?),
        None => None,
    };
    Ok((components, pins))
}

fn parse_pins(text: &str) -> Result<Pins, RegistryError> {
    #[derive(serde::Deserialize)]
    struct File {
        #[serde(default)]
        kernel: Vec<Pin>,
    }
    #[derive(serde::Deserialize)]
    struct Pin {
        name: String,
        version: u32,
        digest: Digest,
    }
    let file: File = toml::from_str(text).map_err(|error| RegistryError::Pins { reason: error.to_string() })?;
    Ok(file.kernel.into_iter().map(|pin| ((pin.name, pin.version), pin.digest)).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pins_name_digests() {
        let digest = Digest::of(b"a");
        let text = format!("[[kernel]]\nname = \"mc\"\nversion = 1\ndigest = \"{digest}\"\nbytes = 3\n");
        let pins = parse_pins(&text).unwrap();
        assert_eq!(pins.get(&("mc".into(), 1)), Some(&digest));
        assert!(matches!(parse_pins("= nothing"), Err(RegistryError::Pins { .. })));
        assert!(matches!(parse_pins(&text.replace('a', "x")), Err(RegistryError::Pins { .. })));
    }

    #[test]
    fn what_is_not_there_is_named_with_what_is() {
        let registry = Registry::default();
        let op = Operation { name: "mc".into(), version: 2, profile: "p".into() };
        let failure = registry.find(&op).unwrap_err();
        assert_eq!((failure.code, failure.pointer.as_deref()), (FailureCode::RequestUnknownOp, Some("/op/name")));
        assert!(failure.detail.ends_with("there are: none"), "{}", failure.detail);
    }
}
