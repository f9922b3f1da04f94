//! The kernels this hub knows: pinned by digest, never changed. Those that come with it, and those of each project.

mod source;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use forge_contract::envelope::Operation;
use forge_contract::{Digest, Failure, FailureCode};
use forge_lifecycle::admit::AdmitError;
use forge_lifecycle::plan::Kernel;

use crate::store::blobs::{BlobError, Blobs};
use crate::store::{KernelRow, KernelState, Standing, Store, StoreError, Write};
pub use source::KernelSource;

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

/// A kernel the hub knows.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What plans are made from.
    pub kernel: Arc<Kernel>,
    /// Whose it is; `None` for one that comes with the hub.
    pub project: Option<Arc<str>>,
    /// When it was recorded, ms since 1970.
    pub recorded_ms: u64,
    /// What became of it.
    pub standing: Standing,
    /// The component, where it is kept in memory; else it lies among the blobs.
    component: Option<Bytes>,
}

impl Entry {
    /// A kernel that somebody uploaded and nobody has run yet.
    #[must_use]
    pub fn uploaded(kernel: Arc<Kernel>, project: &str, recorded_ms: u64) -> Self {
        Self { kernel, project: Some(project.into()), recorded_ms, standing: Standing::pending(), component: None }
    }

    /// Its record.
    ///
    /// # Errors
    /// `Corrupt` where the manifest cannot be written down.
    pub fn row(&self) -> Result<KernelRow, StoreError> {
        let Kernel { digest, bytes, manifest } = &*self.kernel;
        Ok(KernelRow {
            name: manifest.name.clone(),
            version: manifest.version,
            digest: *digest,
            bytes: *bytes,
            manifest: serde_json::to_string(manifest).map_err(|_| StoreError::Corrupt { what: "manifest" })?,
            project: self.project.as_deref().map(str::to_owned),
            recorded_ms: self.recorded_ms,
            standing: self.standing.clone(),
        })
    }

    /// What whoever runs it should know.
    #[must_use]
    pub fn notice(&self) -> Option<String> {
        let reason = self.standing.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        let deprecated = self.standing.state == KernelState::Deprecated;
        deprecated.then(|| format!("{} is deprecated{reason}", self.kernel.manifest.label()))
    }

    fn key(&self) -> Key {
        (self.kernel.manifest.name.clone(), self.kernel.manifest.version)
    }

    /// Another project's kernel is not there for this one.
    fn is_visible_to(&self, project: &str) -> bool {
        self.project.as_deref().is_none_or(|owner| owner == project)
    }

    fn runs(&self) -> bool {
        matches!(self.standing.state, KernelState::Admitted | KernelState::Deprecated)
    }
}

/// Name and version.
pub type Key = (String, u32);

/// Every kernel, by name and version.
#[derive(Debug)]
pub struct Registry {
    kernels: RwLock<BTreeMap<Key, Entry>>,
    blobs: Arc<Blobs>,
}

impl Registry {
    /// Reads, admits and records every kernel of these sources, and recalls those of earlier starts and of projects.
    ///
    /// # Errors
    /// The first kernel that is refused; a hub does not start with less than it was given.
    pub async fn load(sources: &[KernelSource], store: &dyn Store, blobs: &Arc<Blobs>) -> Result<Self, RegistryError> {
        let registry = Self { kernels: RwLock::default(), blobs: Arc::clone(blobs) };
        let earlier = store.kernels().await?;
        for source in sources {
            for (kernel, component) in source::kernels(source)? {
                let known = earlier.iter().find(|row| row.digest == kernel.digest).map(|row| row.recorded_ms);
                registry.record(kernel, component, known, store).await?;
            }
        }
        registry.recall(earlier);
        Ok(registry)
    }

    async fn record(
        &self,
        kernel: Arc<Kernel>,
        component: Bytes,
        known: Option<u64>,
        store: &dyn Store,
    ) -> Result<(), RegistryError> {
        let (files, bytes) = (Arc::clone(&self.blobs), component.clone());
        tokio::task::spawn_blocking(move || files.put(&bytes)).await.map_err(|_| StoreError::Closed)??;
        let (standing, recorded_ms) = (Standing::built_in(), known.unwrap_or_else(crate::clock::unix_ms));
        let entry = Entry { kernel, project: None, recorded_ms, standing, component: Some(component) };
        store.submit(Write::Kernel(Box::new(entry.row()?))).await?;
        let Kernel { digest, bytes, manifest } = &*entry.kernel;
        tracing::info!(kernel = manifest.label(), %digest, bytes, "kernel admitted");
        self.put(entry);
        Ok(())
    }

    /// Kernels of earlier starts stay known: what was pinned can be replayed.
    fn recall(&self, earlier: Vec<KernelRow>) {
        for row in earlier {
            if self.read().contains_key(&(row.name.clone(), row.version)) {
                continue;
            }
            let manifest = serde_json::from_str(&row.manifest).ok().filter(|_| self.blobs.has(&row.digest));
            let Some(manifest) = manifest else {
                let label = format!("{}@{}", row.name, row.version);
                tracing::warn!(kernel = label, digest = %row.digest, "a recorded kernel is no longer readable");
                continue;
            };
            let kernel = Arc::new(Kernel { digest: row.digest, bytes: row.bytes, manifest });
            let project = row.project.map(Arc::from);
            let (recorded_ms, standing) = (row.recorded_ms, row.standing);
            self.put(Entry { kernel, project, recorded_ms, standing, component: None });
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<Key, Entry>> {
        self.kernels.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a kernel, in place of what stands under its label.
    pub fn put(&self, entry: Entry) {
        self.kernels.write().unwrap_or_else(PoisonError::into_inner).insert(entry.key(), entry);
    }

    /// Notes what became of the kernel with this component. `None` where it is not known.
    pub fn stand(&self, digest: &Digest, standing: Standing) -> Option<Entry> {
        let mut kernels = self.kernels.write().unwrap_or_else(PoisonError::into_inner);
        let entry = kernels.values_mut().find(|entry| entry.kernel.digest == *digest)?;
        entry.standing = standing;
        Some(entry.clone())
    }

    /// The kernel that a project's operation runs.
    ///
    /// # Errors
    /// `request.unknown_op` at the name or the version; `request.kernel_pending`, `request.kernel_refused`,
    /// `request.kernel_yanked` at the version.
    pub fn find(&self, project: &str, op: &Operation) -> Result<Entry, Failure> {
        if let Some(entry) = self.get(project, &op.name, op.version) {
            return if entry.runs() { Ok(entry) } else { Err(halted(&entry)) };
        }
        let kernels = self.read();
        let visible = || kernels.values().filter(|entry| entry.is_visible_to(project));
        let known = visible().any(|entry| entry.kernel.manifest.name == op.name);
        let (at, field) = if known { ("/op/version", "op.version") } else { ("/op/name", "op.name") };
        let labels: Vec<String> = visible().filter(|e| e.runs()).map(|entry| entry.kernel.manifest.label()).collect();
        let there = if labels.is_empty() { "none".to_owned() } else { labels.join(", ") };
        let detail = format!("{field}: there is no operation {}; there are: {there}", op.label());
        Err(Failure::new(FailureCode::RequestUnknownOp, detail).at(at))
    }

    /// A kernel that a project may see, whatever became of it.
    #[must_use]
    pub fn get(&self, project: &str, name: &str, version: u32) -> Option<Entry> {
        self.read().get(&(name.to_owned(), version)).filter(|entry| entry.is_visible_to(project)).cloned()
    }

    /// What stands under a label, whoever's it is.
    #[must_use]
    pub fn under(&self, key: &Key) -> Option<Entry> {
        self.read().get(key).cloned()
    }

    /// The kernel with this component, where a project may see it.
    #[must_use]
    pub fn of_component(&self, project: &str, digest: &Digest) -> Option<Entry> {
        self.read().values().find(|e| e.kernel.digest == *digest && e.is_visible_to(project)).cloned()
    }

    /// The kernel of this component, whoever's it is.
    #[must_use]
    pub fn kernel(&self, component: &Digest) -> Option<Arc<Kernel>> {
        self.read().values().find(|entry| entry.kernel.digest == *component).map(|entry| Arc::clone(&entry.kernel))
    }

    /// Kernels a project may see, by name and version, after a label; refused ones only where they are asked for.
    #[must_use]
    pub fn list(&self, project: &str, state: Option<KernelState>, after: Option<&Key>, limit: usize) -> Vec<Entry> {
        let wanted = |entry: &Entry| match state {
            Some(state) => entry.standing.state == state,
            None => entry.standing.state != KernelState::Refused,
        };
        let kernels = self.read();
        let later = kernels.iter().filter(|(key, _)| after.is_none_or(|after| *key > after)).map(|(_, entry)| entry);
        later.filter(|entry| entry.is_visible_to(project) && wanted(entry)).take(limit).cloned().collect()
    }

    /// Kernels that wait for verifiers, by name and version.
    #[must_use]
    pub fn pending(&self) -> Vec<Entry> {
        self.read().values().filter(|entry| entry.standing.state == KernelState::Pending).cloned().collect()
    }

    /// The bytes of a component that agents may run, verified.
    ///
    /// # Errors
    /// What the file system says.
    pub async fn component(&self, digest: &Digest) -> Result<Option<Bytes>, BlobError> {
        let found = self.read().values().find(|entry| entry.kernel.digest == *digest).cloned();
        let Some(entry) = found.filter(|entry| entry.standing.state != KernelState::Refused) else { return Ok(None) };
        self.bytes(&entry).await
    }

    /// The bytes of a kernel's component, verified.
    ///
    /// # Errors
    /// What the file system says.
    pub async fn bytes(&self, entry: &Entry) -> Result<Option<Bytes>, BlobError> {
        if let Some(bytes) = &entry.component {
            return Ok(Some(bytes.clone()));
        }
        let (files, digest) = (Arc::clone(&self.blobs), entry.kernel.digest);
        let read = tokio::task::spawn_blocking(move || files.get(&digest)).await;
        // Only a panic ends such a task without an answer.
        Ok(read.unwrap_or(Ok(None))?.map(Bytes::from))
    }
}

/// Why a kernel that is there runs nothing new.
fn halted(entry: &Entry) -> Failure {
    let label = entry.kernel.manifest.label();
    let because = entry.standing.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    let (code, said) = match entry.standing.state {
        KernelState::Refused => (FailureCode::RequestKernelRefused, "was refused"),
        KernelState::Yanked => (FailureCode::RequestKernelYanked, "was yanked"),
        _ => (FailureCode::RequestKernelPending, "is not admitted yet: no verifier has run its known answers"),
    };
    Failure::new(code, format!("op.version: {label} {said}{because}")).at("/op/version")
}

#[cfg(test)]
mod tests;
