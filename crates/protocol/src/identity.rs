//! Who is who: Ed25519 keys of hub and agents, and the token that brings them together once.
//!
//! An agent is its key; the hub knows the keys it has enrolled. A hub is its key too; an agent pins it. Certificates
//! only carry the keys through TLS: they are self-signed, made anew at every start, and nothing in them but the key
//! is believed.

use core::fmt;
use core::str::FromStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::pkcs8::EncodePrivateKey as _;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use forge_contract::{AgentId, Digest};

use crate::message::Signature;

/// An agent's public key, 32 bytes (RFC 8032).
pub type AgentKey = [u8; 32];
/// A hub's private key.
pub type HubIdentity = Identity;

const KEY_PREFIX: &str = "fpk_";
const TOKEN_PREFIX: &str = "fpe_";
const SECRET_DOMAIN: &str = "forgepool v1 enrolment secret";
/// Longest key file read, bytes.
const KEY_FILE_BYTES_MAX: u64 = 256;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The key file cannot be read or written.
    #[error("the key file {path}: {source}")]
    File {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file's content is no key.
    #[error("the key file {path} does not hold a key")]
    Content {
        /// Its path.
        path: PathBuf,
    },
    /// Others than the owner may read the file.
    #[error("the key file {path} is open to others (mode {mode:o}); make it 600")]
    Exposed {
        /// Its path.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Entropy,
}

/// A private Ed25519 key.
#[derive(Clone)]
pub struct Identity(SigningKey);

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", HubKey(self.public_key()))
    }
}

impl Identity {
    /// A new key from the system's random bytes.
    ///
    /// # Errors
    /// `Entropy`.
    pub fn generate() -> Result<Self, IdentityError> {
        Ok(Self::from_seed(&random()?))
    }

    /// The key of a 32-byte seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// Reads the key at `path`, or creates it there, readable by its owner alone.
    ///
    /// Two processes that create at once end with the same key: the file appears whole, once.
    ///
    /// # Errors
    /// `File`, `Content`, `Exposed`, `Entropy`.
    pub fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        if let Some(identity) = Self::load(path)? {
            return Ok(identity);
        }
        let seed = random()?;
        let text = format!("{KEY_PREFIX}{}\n", URL_SAFE_NO_PAD.encode(seed));
        match create_private(path, text.as_bytes()) {
            Ok(()) => Ok(Self::from_seed(&seed)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Self::load(path)?.ok_or_else(|| IdentityError::File { path: path.into(), source: error })
            }
            Err(source) => Err(IdentityError::File { path: path.into(), source }),
        }
    }

    fn load(path: &Path) -> Result<Option<Self>, IdentityError> {
        let wrap = |source| IdentityError::File { path: path.into(), source };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(wrap(error)),
        };
        let mode = mode_of(&file.metadata().map_err(wrap)?);
        if mode & 0o077 != 0 {
            return Err(IdentityError::Exposed { path: path.into(), mode });
        }
        let mut text = String::new();
        file.take(KEY_FILE_BYTES_MAX).read_to_string(&mut text).map_err(wrap)?;
        let seed = text.trim_end().strip_prefix(KEY_PREFIX).and_then(decode_32);
        let seed = seed.ok_or_else(|| IdentityError::Content { path: path.into() })?;
        Ok(Some(Self::from_seed(&seed)))
    }

    /// The public key, 32 bytes.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// The agent of this key.
    #[must_use]
    pub fn agent_id(&self) -> AgentId {
        AgentId::of_public_key(&self.public_key())
    }

    /// The key as a hub's, for agents to pin.
    #[must_use]
    pub fn hub_key(&self) -> HubKey {
        HubKey(self.public_key())
    }

    /// The signature of `message` (RFC 8032; deterministic).
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }

    /// The signature of a statement, as reports carry it.
    #[must_use]
    pub fn sign_statement(&self, statement: &Digest) -> Signature {
        Signature(self.sign(statement.as_bytes()))
    }

    /// The private key as PKCS #8 DER, for the TLS library.
    pub(crate) fn pkcs8(&self) -> Option<Vec<u8>> {
        Some(self.0.to_pkcs8_der().ok()?.as_bytes().to_vec())
    }
}

/// Whether `signature` is `key`'s over `message`; weak keys and second forms of a signature are refused.
#[must_use]
pub fn verify(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    Verifier::of(key).is_some_and(|verifier| verifier.verify(message, signature))
}

/// A public key made ready to verify many signatures.
#[derive(Clone, Debug)]
pub struct Verifier(VerifyingKey);

impl Verifier {
    /// The verifier of a public key; `None` where the bytes are none.
    #[must_use]
    pub fn of(key: &[u8; 32]) -> Option<Self> {
        VerifyingKey::from_bytes(key).ok().map(Self)
    }

    /// Whether `signature` is this key's over `message`.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        self.0.verify_strict(message, &signature).is_ok()
    }
}

/// A hub's public key, which agents pin. As text: base64url without padding, 43 characters.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct HubKey(pub [u8; 32]);

/// Why a text is no hub key or no enrolment token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not the base64url text of 32 bytes.
    #[error("a hub key is 43 characters of base64url")]
    HubKey,
    /// Not `fpe_` and the base64url text of 64 bytes.
    #[error("an enrolment token is 'fpe_' and 86 characters of base64url")]
    EnrolToken,
}

impl fmt::Display for HubKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for HubKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HubKey({self})")
    }
}

impl FromStr for HubKey {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        decode_32(text).map(Self).ok_or(TokenError::HubKey)
    }
}

/// What an operator gives to a provider: the hub to trust and a secret that enrols one agent, once.
///
/// As text: `fpe_` and base64url of hub key and secret. The hub keeps only [`EnrolToken::stored`].
#[derive(Clone, PartialEq, Eq)]
pub struct EnrolToken {
    /// The hub's key.
    pub hub_key: HubKey,
    /// The secret.
    pub secret: [u8; 32],
}

impl EnrolToken {
    /// A new token of this hub.
    ///
    /// # Errors
    /// `Entropy`.
    pub fn generate(hub_key: HubKey) -> Result<Self, IdentityError> {
        Ok(Self { hub_key, secret: random()? })
    }

    /// What the hub stores and looks the secret up by.
    #[must_use]
    pub fn stored(&self) -> Digest {
        Self::stored_of(&self.secret)
    }

    /// The same, of a secret that arrived.
    #[must_use]
    pub fn stored_of(secret: &[u8; 32]) -> Digest {
        Digest::tagged(SECRET_DOMAIN, secret)
    }
}

impl fmt::Display for EnrolToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let both = [self.hub_key.0, self.secret].concat();
        write!(f, "{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(both))
    }
}

impl fmt::Debug for EnrolToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnrolToken({})", self.hub_key)
    }
}

impl FromStr for EnrolToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let encoded = text.strip_prefix(TOKEN_PREFIX).ok_or(TokenError::EnrolToken)?;
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| TokenError::EnrolToken)?;
        let (key, secret) = bytes.split_first_chunk::<32>().ok_or(TokenError::EnrolToken)?;
        let secret = secret.try_into().map_err(|_| TokenError::EnrolToken)?;
        Ok(Self { hub_key: HubKey(*key), secret })
    }
}

fn random() -> Result<[u8; 32], IdentityError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|_| IdentityError::Entropy)?;
    Ok(bytes)
}

fn decode_32(text: &str) -> Option<[u8; 32]> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

#[cfg(unix)]
fn mode_of(metadata: &fs::Metadata) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    metadata.permissions().mode() & 0o777
}

#[cfg(not(unix))]
fn mode_of(_: &fs::Metadata) -> u32 {
    0o600
}

/// Creates `path` with `content`, whole or not at all, and fails where it exists.
fn create_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let mark = random().map_err(|_| io::Error::other("no random bytes"))?;
    let draft = directory.join(format!(".key-{}", URL_SAFE_NO_PAD.encode(mark)));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&draft)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    // A link, unlike a rename, never replaces a key that another process put there meanwhile.
    let linked = written.and_then(|()| fs::hard_link(&draft, path));
    fs::remove_file(&draft)?;
    linked?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn rfc_8032_test_one() {
        let seed = hex::decode("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        let identity = Identity::from_seed(&seed.try_into().unwrap());
        let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        assert_eq!(hex::encode(identity.public_key()), public);
        let signature = identity.sign(b"");
        assert_eq!(hex::encode(&signature[..8]), "e5564300c360ac72");
        assert!(verify(&identity.public_key(), b"", &signature));
        assert!(!verify(&identity.public_key(), b"x", &signature));
    }

    #[test]
    fn a_key_file_is_created_once_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/agent.key");
        let first = Identity::load_or_create(&path).unwrap();
        let again = Identity::load_or_create(&path).unwrap();
        assert_eq!(first.public_key(), again.public_key());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(mode_of(&fs::metadata(&path).unwrap()), 0o600);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            assert!(matches!(Identity::load_or_create(&path), Err(IdentityError::Exposed { mode: 0o644, .. })));
        }
    }

    #[test]
    fn racing_creators_end_with_one_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let keys: Vec<[u8; 32]> = std::thread::scope(|scope| {
            let racers: Vec<_> =
                (0..8).map(|_| scope.spawn(|| Identity::load_or_create(&path).unwrap().public_key())).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]));
    }

    #[test]
    fn tokens_and_keys_have_one_text() {
        let token = EnrolToken { hub_key: HubKey([1; 32]), secret: [2; 32] };
        let text = token.to_string();
        assert!(text.starts_with("fpe_AQEB") && text.len() == 4 + 86);
        assert_eq!(text.parse::<EnrolToken>().unwrap(), token);
        assert_eq!(format!("{}", token.hub_key).parse::<HubKey>().unwrap(), token.hub_key);
        assert!(!format!("{token:?}").contains(&URL_SAFE_NO_PAD.encode([2; 32])));
        for bad in ["", "fpe_", "fpe_AQEB", &text[..text.len() - 1], &format!("{text}A"), &text[4..]] {
            assert_eq!(bad.parse::<EnrolToken>(), Err(TokenError::EnrolToken), "{bad}");
        }
    }
}
