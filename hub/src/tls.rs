//! TLS for the HTTP API: a certificate and its key from PEM files, read again when they change.
//!
//! New connections get the new certificate; those that are open keep theirs. A pair that cannot be used leaves the one in
//! force and says so in the log.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ServerConfig};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::validity::validity;

/// Between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// A certificate that ends sooner than this is warned of.
const SOON_MS: u64 = 14 * 24 * 3_600_000;

/// Why TLS cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{path} holds no {what} in PEM form{reason}")]
    Pem {
        /// Where.
        path: PathBuf,
        /// `certificate` or `private key`.
        what: &'static str,
        /// More about it, or nothing.
        reason: String,
    },
    /// The key is another certificate's.
    #[error("the key in {key} is not that of the first certificate in {certificate}")]
    Mismatch {
        /// Where the certificate is.
        certificate: PathBuf,
        /// Where the key is.
        key: PathBuf,
    },
    /// The certificate or key is of a kind that cannot be used.
    #[error("{path}: {reason}")]
    Unusable {
        /// Where.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Where certificate and key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by those that lead to its authority; PEM.
    pub certificate: PathBuf,
    /// Its private key; PEM.
    pub key: PathBuf,
}

/// The certificate in force.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// TLS as the hub offers it.
pub struct Tls {
    files: TlsFiles,
    current: Arc<Current>,
    acceptor: TlsAcceptor,
}

impl core::fmt::Debug for Tls {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads certificate and key.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let current = Arc::new(Current(RwLock::new(Arc::new(read(&files)?))));
        let unusable =
            |error: rustls::Error| TlsError::Unusable { path: files.certificate.clone(), reason: error.to_string() };
        // By name: a process may have more than one provider, or none by default.
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12]);
        let mut config =
            builder.map_err(unusable)?.with_no_client_auth().with_cert_resolver(Arc::clone(&current) as Arc<_>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), files, current })
    }

    /// Shakes hands over a connection.
    pub(crate) fn accept<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> tokio_rustls::Accept<S> {
        self.acceptor.accept(stream)
    }

    /// Reads the files again.
    ///
    /// # Errors
    /// See [`TlsError`]; what was in force stays.
    pub fn reload(&self) -> Result<(), TlsError> {
        let read = Arc::new(read(&self.files)?);
        *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = read;
        Ok(())
    }

    /// When the certificate in force ends, ms since 1970; `None` where it does not say.
    #[must_use]
    pub fn ends_ms(&self) -> Option<u64> {
        let current = self.current.0.read().unwrap_or_else(PoisonError::into_inner);
        current.cert.first().and_then(|certificate| validity(certificate)).map(|validity| validity.until_ms)
    }

    /// Reads the files again at SIGHUP and when they changed, until the hub stops.
    pub(crate) async fn attend(self: Arc<Self>, stopping: CancellationToken) {
        let mut asked = Hangups::listen();
        let mut seen = self.stamp();
        loop {
            let asked = tokio::select! {
                () = stopping.cancelled() => return,
                () = asked.next() => true,
                () = tokio::time::sleep(LOOK_EVERY) => false,
            };
            let stamp = self.stamp();
            if !asked && stamp == seen {
                continue;
            }
            seen = stamp;
            match self.reload() {
                Ok(()) => {
                    tracing::info!(certificate = %self.files.certificate.display(), "the certificate was read again")
                }
                Err(error) => tracing::error!(%error, "the certificate stays as it was"),
            }
        }
    }

    /// What changes with the files.
    fn stamp(&self) -> [Option<(SystemTime, u64)>; 2] {
        [&self.files.certificate, &self.files.key].map(|path| {
            let about = std::fs::metadata(path).ok()?;
            Some((about.modified().ok()?, about.len()))
        })
    }
}

/// SIGHUP; only listened to where there is something to read again.
struct Hangups(#[cfg(unix)] Option<tokio::signal::unix::Signal>);

impl Hangups {
    fn listen() -> Self {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let listening = signal(SignalKind::hangup());
            if let Err(error) = &listening {
                tracing::warn!(%error, "SIGHUP keeps its default");
            }
            Self(listening.ok())
        }
        #[cfg(not(unix))]
        Self()
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        if let Some(signal) = &mut self.0
            && signal.recv().await.is_some()
        {
            return;
        }
        std::future::pending().await
    }
}

fn read(files: &TlsFiles) -> Result<CertifiedKey, TlsError> {
    let (chain, key) = (chain(&files.certificate)?, key(&files.key)?);
    let unusable =
        |path: &Path, error: rustls::Error| TlsError::Unusable { path: path.to_owned(), reason: error.to_string() };
    warn_of_dates(&files.certificate, chain.first());
    let signing = ring::sign::any_supported_type(&key).map_err(|error| unusable(&files.key, error))?;
    let pair = CertifiedKey::new(chain, signing);
    match pair.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(pair),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(TlsError::Mismatch { certificate: files.certificate.clone(), key: files.key.clone() })
        }
        Err(error) => Err(unusable(&files.certificate, error)),
    }
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = bytes(path)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match read {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(not_pem(path, "certificate", None)),
        Err(error) => Err(not_pem(path, "certificate", Some(&error))),
    }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = bytes(path)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => not_pem(path, "private key", None),
        error => not_pem(path, "private key", Some(&error)),
    })
}

fn bytes(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Io { path: path.to_owned(), source })
}

fn not_pem(path: &Path, what: &'static str, error: Option<&pem::Error>) -> TlsError {
    let reason = error.map(|error| format!(": {error}")).unwrap_or_default();
    TlsError::Pem { path: path.to_owned(), what, reason }
}

/// A certificate out of its time is used all the same: an operator with a wrong clock would be locked out of the hub.
fn warn_of_dates(path: &Path, certificate: Option<&CertificateDer<'_>>) {
    let Some(validity) = certificate.and_then(|certificate| validity(certificate)) else {
        tracing::warn!(certificate = %path.display(), "when the certificate ends cannot be read");
        return;
    };
    let (now, until) = (crate::clock::unix_ms(), crate::clock::rfc3339(validity.until_ms));
    if now > validity.until_ms {
        tracing::warn!(certificate = %path.display(), until, "the certificate has expired: clients will refuse it");
    } else if now < validity.from_ms {
        let from = crate::clock::rfc3339(validity.from_ms);
        tracing::warn!(certificate = %path.display(), from, "the certificate is not valid yet: clients will refuse it");
    } else if validity.until_ms - now < SOON_MS {
        tracing::warn!(certificate = %path.display(), until, "the certificate ends soon");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn files(folder: &Path) -> TlsFiles {
        TlsFiles { certificate: folder.join("cert.pem"), key: folder.join("key.pem") }
    }

    fn write(files: &TlsFiles) {
        let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(&files.certificate, pair.cert.pem()).unwrap();
        std::fs::write(&files.key, pair.signing_key.serialize_pem()).unwrap();
    }

    #[test]
    fn what_cannot_be_used_says_which_file_and_why() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path());
        let error = || Tls::load(files.clone()).unwrap_err();
        assert!(matches!(error(), TlsError::Io { path, .. } if path == files.certificate));
        write(&files);
        Tls::load(files.clone()).unwrap();
        let (certificate, key) = (std::fs::read(&files.certificate).unwrap(), std::fs::read(&files.key).unwrap());
        std::fs::remove_file(&files.key).unwrap();
        assert!(matches!(error(), TlsError::Io { path, .. } if path == files.key));
        std::fs::write(&files.key, &certificate).unwrap();
        assert!(matches!(error(), TlsError::Pem { what: "private key", .. }));
        std::fs::write(&files.key, &key).unwrap();
        std::fs::write(&files.certificate, &key).unwrap();
        assert!(matches!(error(), TlsError::Pem { what: "certificate", .. }));
        std::fs::write(&files.certificate, b"-----BEGIN CERTIFICATE-----\nMIIB\n").unwrap();
        assert!(matches!(error(), TlsError::Pem { what: "certificate", .. }));
        write(&files);
        std::fs::write(&files.certificate, &certificate).unwrap();
        let said = error();
        assert!(matches!(said, TlsError::Mismatch { .. }), "{said}");
    }

    #[test]
    fn a_bad_pair_leaves_the_one_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path());
        write(&files);
        let tls = Tls::load(files.clone()).unwrap();
        let in_force = || tls.current.0.read().unwrap().cert.clone();
        let first = in_force();
        std::fs::write(&files.key, b"nothing").unwrap();
        tls.reload().unwrap_err();
        assert_eq!(in_force(), first);
        write(&files);
        tls.reload().unwrap();
        assert_ne!(in_force(), first);
    }
}
