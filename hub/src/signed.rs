//! Signed URLs: leave to read or to write one content of one project for a few minutes, without a key.
//!
//! The MAC is keyed BLAKE3 over method, host, path, project, length, digest and expiry. Whoever has the URL has the
//! leave; it cannot be taken back, which is why it lasts fifteen minutes at most.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use forge_contract::Digest;
use forge_contract::canon::Writer;

/// Longest life of a URL, seconds.
pub const SECONDS_MAX: u64 = 900;

/// Why the hub has no key for its URLs.
#[derive(Debug, thiserror::Error)]
pub enum UrlKeyError {
    /// The file cannot be read or made.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not a key.
    #[error("{path} has {found} bytes, a key for signed URLs has 32; remove it to have a new one made")]
    Length {
        /// Where.
        path: PathBuf,
        /// Bytes found.
        found: usize,
    },
}

/// What a URL gives leave to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant<'a> {
    /// `GET` or `PUT`.
    pub method: &'a str,
    /// The host the URL names, with its port.
    pub host: &'a str,
    /// The URL's path.
    pub path: &'a str,
    /// Whose content.
    pub project: &'a str,
    /// Size of the content, bytes.
    pub bytes: u64,
    /// The content.
    pub digest: &'a Digest,
    /// When the leave ends, seconds since 1970.
    pub expires: u64,
}

/// The hub's secret that signs URLs.
pub struct UrlKey([u8; 32]);

impl core::fmt::Debug for UrlKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("UrlKey(..)")
    }
}

impl UrlKey {
    /// Reads the key, or makes one that only the hub's user can read.
    ///
    /// # Errors
    /// `Io`, `Length`.
    pub fn load_or_create(path: &Path) -> Result<Self, UrlKeyError> {
        let io = |source| UrlKeyError::Io { path: path.to_owned(), source };
        match std::fs::read(path) {
            Ok(bytes) => {
                let key = <[u8; 32]>::try_from(bytes.as_slice());
                key.map(Self).map_err(|_| UrlKeyError::Length { path: path.to_owned(), found: bytes.len() })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let key = crate::clock::random::<32>();
                create_private(path, &key).map_err(io)?;
                Ok(Self(key))
            }
            Err(error) => Err(io(error)),
        }
    }

    /// The MAC of a grant, 64 hexadecimal digits.
    #[must_use]
    pub fn sign(&self, grant: &Grant<'_>) -> String {
        self.mac(grant).to_hex().to_string()
    }

    /// Whether this is the MAC of the grant. Takes the same time wherever the difference is.
    #[must_use]
    pub fn verify(&self, grant: &Grant<'_>, mac: &str) -> bool {
        // Exactly as it was printed: one text for one grant.
        let printed = mac.parse::<Digest>();
        printed.is_ok_and(|given| self.mac(grant) == blake3::Hash::from_bytes(*given.as_bytes()))
    }

    fn mac(&self, grant: &Grant<'_>) -> blake3::Hash {
        let mut w = Writer::new();
        w.str("forgepool v1 signed url");
        for text in [grant.method, grant.host, grant.path, grant.project] {
            w.str(text);
        }
        w.u64(grant.bytes);
        w.digest(grant.digest);
        w.u64(grant.expires);
        blake3::keyed_hash(&self.0, &w.into_bytes())
    }
}

fn create_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut options = std::fs::File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_field_is_under_the_mac() {
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let key = UrlKey([7; 32]);
        let grant = Grant { method: "GET", host: "h:1", path: "/p", project: "a", bytes: 5, digest: &one, expires: 9 };
        let mac = key.sign(&grant);
        assert!(key.verify(&grant, &mac));
        for other in [
            Grant { method: "PUT", ..grant },
            Grant { host: "h:2", ..grant },
            Grant { path: "/q", ..grant },
            Grant { project: "b", ..grant },
            Grant { bytes: 6, ..grant },
            Grant { digest: &two, ..grant },
            Grant { expires: 10, ..grant },
            // Fields do not run into each other.
            Grant { host: "h:", path: "1/p", ..grant },
        ] {
            assert!(!key.verify(&other, &mac), "{other:?}");
        }
        assert!(!UrlKey([8; 32]).verify(&grant, &mac));
        for mac in ["", "00", &mac.to_uppercase(), &mac[..63]] {
            assert!(!key.verify(&grant, mac), "{mac}");
        }
    }

    #[test]
    fn the_key_stays_and_is_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("url.key");
        let first = UrlKey::load_or_create(&path).unwrap();
        assert_eq!(UrlKey::load_or_create(&path).unwrap().0, first.0);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        std::fs::write(&path, b"short").unwrap();
        assert!(matches!(UrlKey::load_or_create(&path), Err(UrlKeyError::Length { found: 5, .. })));
    }
}
