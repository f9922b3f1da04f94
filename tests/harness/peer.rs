//! A peer made of bare QUIC and frames, which can say anything to a real hub.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::EncodePrivateKey as _;
use forge_contract::Capability;
use forge_protocol::REVISION;
use forge_protocol::frame::{self, HEADER_BYTES, Header};
use forge_protocol::message::{Hello, Message};
use forge_sandbox::engine_profile;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use quinn::rustls::crypto::ring;
use quinn::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use quinn::rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use quinn::{Connection, ConnectionError, Endpoint, RecvStream};

/// Believes any hub.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// What is shown in the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// Nothing.
    Nothing,
    /// The key of this seed, as agents do.
    Ed25519([u8; 32]),
    /// Another kind of key.
    Ecdsa,
}

/// The client side of a handshake.
///
/// # Panics
/// Never: keys and certificates are made on the spot.
#[must_use]
pub fn client(alpn: &[u8], certificate: &Certificate) -> quinn::ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&quinn::rustls::version::TLS13])
        .expect("TLS 1.3 is there")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone));
    let signed = |pair: rcgen::KeyPair| {
        let params = rcgen::CertificateParams::new(vec!["x".to_owned()]).expect("x is a name");
        let certificate = params.self_signed(&pair).expect("a key signs");
        (vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(pair.serialize_der()))
    };
    let pair = match certificate {
        Certificate::Nothing => None,
        Certificate::Ed25519(seed) => {
            let pkcs8 = SigningKey::from_bytes(seed).to_pkcs8_der().expect("a key has an encoding").as_bytes().to_vec();
            Some(rcgen::KeyPair::try_from(pkcs8).expect("Ed25519 is known"))
        }
        Certificate::Ecdsa => Some(rcgen::KeyPair::generate().expect("a key can be made")),
    };
    let mut config = match pair.map(signed) {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder.with_client_auth_cert(chain, key.into()).expect("key and certificate fit"),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).expect("TLS 1.3 carries QUIC")))
}

/// Connects from a socket of its own.
///
/// # Errors
/// The handshake failed.
///
/// # Panics
/// No socket is to be had.
pub async fn connect(hub: SocketAddr, config: quinn::ClientConfig) -> Result<Connection, ConnectionError> {
    let endpoint = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a socket");
    endpoint.connect_with(config, hub, "any").expect("the endpoint is open").await
}

/// The introduction of an agent of one core.
#[must_use]
pub fn hello(software: &str) -> Hello {
    let capability = Capability {
        cores: 1,
        leases: 2,
        memory_bytes: 1 << 30,
        arch: std::env::consts::ARCH.to_owned(),
        os: std::env::consts::OS.to_owned(),
        cpu: true,
        gpu: false,
        labels: vec![],
        projects: vec![],
        engine: engine_profile(),
        cage: "full".into(),
    };
    Hello { revision: REVISION, software: software.to_owned(), capability, enrol_secret: None }
}

/// The next message, which must be an `M`.
///
/// # Errors
/// The stream ended, or holds something else.
pub async fn hear<M: Message>(recv: &mut RecvStream) -> Result<M> {
    let mut header = [0; HEADER_BYTES];
    recv.read_exact(&mut header).await.context("no header")?;
    let Header { kind, bytes } = Header::read(header)?;
    ensure!(kind == M::KIND, "{kind:?} where {:?} is due", M::KIND);
    let mut body = vec![0; bytes];
    recv.read_exact(&mut body).await.context("half a message")?;
    Ok(frame::decode(&body)?)
}
