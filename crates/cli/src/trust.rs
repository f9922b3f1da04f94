//! Which certificates a hub's may come from.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::target::Target;

/// The certificates to trust cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct TrustError {
    /// Their file.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

/// TLS for a target: with the certificates that were given, or `None` where those of this machine count.
///
/// # Errors
/// [`TrustError`].
pub fn config(target: &Target) -> Result<Option<ClientConfig>, TrustError> {
    let provider = ring::default_provider();
    let roots = match &target.ca {
        Some(path) => read(path)?,
        // Never asked: a connection without TLS needs nothing of this machine.
        None if target.url.starts_with("http://") => RootCertStore::empty(),
        None => {
            // The one provider there is; a second installation changes nothing.
            drop(provider.install_default());
            return Ok(None);
        }
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(provider));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12]);
    let builder = builder
        .map_err(|error| TrustError { path: target.ca.clone().unwrap_or_default(), reason: error.to_string() })?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Some(config))
}

fn read(path: &Path) -> Result<RootCertStore, TrustError> {
    let failed = |reason: String| TrustError { path: path.to_owned(), reason };
    let bytes = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.map_err(|error| failed(format!("no certificates in PEM form: {error}")))?;
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    if roots.is_empty() { Err(failed("no certificates in PEM form".to_owned())) } else { Ok(roots) }
}
