//! TLS 1.3 with keys in place of authorities: each end proves it holds its Ed25519 key, and nothing else in a
//! certificate is looked at. The provider is passed by name, so no process-wide default can change it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use quinn::ConnectionIdGenerator;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::rustls::client::Resumption;
use quinn::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use quinn::rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature};
use quinn::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use quinn::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use quinn::rustls::server::{NoServerSessionStorage, ParsedCertificate};
use quinn::rustls::version::TLS13;
use quinn::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, ServerConfig,
    SignatureScheme,
};

use super::LinkError;
use crate::ALPN;
use crate::identity::{HubKey, Identity};

/// The name in the certificate and in the TLS handshake; it identifies nobody.
pub(crate) const SERVER_NAME: &str = "forgepool";
/// The DER of an Ed25519 SubjectPublicKeyInfo up to the key (RFC 8410, section 4).
const ED25519_SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The Ed25519 key of a certificate; nothing else in it counts.
pub(crate) fn key_of(certificate: &CertificateDer<'_>) -> Option<[u8; 32]> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    parsed.subject_public_key_info().strip_prefix(&ED25519_SPKI)?.try_into().ok()
}

fn failed(reason: impl ToString) -> LinkError {
    LinkError::Tls { reason: reason.to_string() }
}

type Credentials = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn credentials(identity: &Identity) -> Result<Credentials, LinkError> {
    let pkcs8 = identity.pkcs8().ok_or_else(|| failed("the key has no PKCS #8 form"))?;
    let pkcs8 = PrivatePkcs8KeyDer::from(pkcs8);
    let pair = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &rcgen::PKCS_ED25519).map_err(failed)?;
    let mut params = rcgen::CertificateParams::new(vec![SERVER_NAME.to_owned()]).map_err(failed)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    let certificate = params.self_signed(&pair).map_err(failed)?;
    Ok((vec![certificate.der().clone()], PrivateKeyDer::from(pkcs8)))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The hub's side: asks for a certificate and takes any Ed25519 key; who may join is decided at the hello.
pub(crate) fn server(identity: &Identity) -> Result<QuicServerConfig, LinkError> {
    let (chain, key) = credentials(identity)?;
    let provider = provider();
    let verifier = Arc::new(AnyAgent { algorithms: provider.signature_verification_algorithms });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(failed)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(failed)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Every session proves its key anew: no tickets, no early data.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    QuicServerConfig::try_from(config).map_err(failed)
}

/// The agent's side, and whether a server with another key was met.
pub(crate) fn client(identity: &Identity, hub: HubKey) -> Result<(QuicClientConfig, Arc<AtomicBool>), LinkError> {
    let (chain, key) = credentials(identity)?;
    let provider = provider();
    let mismatch = Arc::new(AtomicBool::new(false));
    let algorithms = provider.signature_verification_algorithms;
    let verifier = Arc::new(PinnedHub { hub, algorithms, mismatch: mismatch.clone() });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(failed)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(chain, key)
        .map_err(failed)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok((QuicClientConfig::try_from(config).map_err(failed)?, mismatch))
}

#[derive(Debug)]
struct PinnedHub {
    hub: HubKey,
    algorithms: WebPkiSupportedAlgorithms,
    mismatch: Arc<AtomicBool>,
}

impl ServerCertVerifier for PinnedHub {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if key_of(end_entity) == Some(self.hub.0) {
            return Ok(ServerCertVerified::assertion());
        }
        self.mismatch.store(true, Ordering::Release);
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls13RequiredForQuic))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

#[derive(Debug)]
struct AnyAgent {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AnyAgent {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match key_of(end_entity) {
            Some(_) => Ok(ClientCertVerified::assertion()),
            None => Err(Error::InvalidCertificate(CertificateError::BadEncoding)),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls13RequiredForQuic))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// The key of QUIC's stateless resets, the same at every start of a hub: a hub that was killed and started again can
/// tell its old agents at once that their connections are gone.
pub(crate) struct ResetKey([u8; 32]);

impl ResetKey {
    pub(crate) fn of(identity: &Identity) -> Self {
        let proof = identity.sign(b"forgepool v1 stateless reset");
        Self(*forge_contract::Digest::tagged("forgepool v1 stateless reset", &proof).as_bytes())
    }
}

impl quinn::crypto::HmacKey for ResetKey {
    fn sign(&self, data: &[u8], out: &mut [u8]) {
        let mac = blake3::keyed_hash(&self.0, data);
        for (place, byte) in out.iter_mut().zip(mac.as_bytes()) {
            *place = *byte;
        }
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), quinn::crypto::CryptoError> {
        // The comparison of BLAKE3 hashes takes constant time.
        let expected = blake3::keyed_hash(&self.0, data);
        let found = <[u8; 32]>::try_from(signature).map_err(|_| quinn::crypto::CryptoError)?;
        if expected == blake3::Hash::from_bytes(found) { Ok(()) } else { Err(quinn::crypto::CryptoError) }
    }
}

/// Connection ids that carry no key of the process, so that ids of an earlier process still get a reset.
pub(crate) struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> quinn::ConnectionId {
        let mut id = [0; 8];
        // Without random bytes ids could repeat, which quinn answers by drawing again.
        let _ = getrandom::fill(&mut id);
        quinn::ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_certificate_carries_its_key_and_only_ed25519_counts() {
        let identity = Identity::from_seed(&[7; 32]);
        let (chain, _) = credentials(&identity).unwrap();
        assert_eq!(key_of(&chain[0]), Some(identity.public_key()));
        let other = rcgen::generate_simple_self_signed(vec![SERVER_NAME.to_owned()]).unwrap();
        assert_eq!(key_of(other.cert.der()), None);
        assert_eq!(key_of(&CertificateDer::from(vec![0x30, 0x00])), None);
    }
}
