//! An agent made of bare quinn and frames, which can say anything.

use std::net::SocketAddr;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::EncodePrivateKey as _;
use forge_protocol::frame::{self, HEADER_BYTES, Header};
use forge_protocol::message::{Hello, Kind, Lease, Message, Welcome};
use forge_protocol::{ALPN, REVISION};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use quinn::rustls::crypto::ring;
use quinn::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use quinn::rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream};

use crate::pair::{introduction, soon};

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

/// What the raw agent shows in the handshake.
pub enum Certificate {
    Nothing,
    Ed25519([u8; 32]),
    /// Another kind of key.
    Ecdsa,
}

pub async fn connect(hub: SocketAddr, alpn: &[u8], certificate: Certificate) -> Result<Connection, ConnectionError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&quinn::rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone));
    let signed = |pair: rcgen::KeyPair| {
        let params = rcgen::CertificateParams::new(vec!["x".to_owned()]).unwrap();
        let certificate = params.self_signed(&pair).unwrap();
        (vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(pair.serialize_der()))
    };
    let mut config = match certificate {
        Certificate::Nothing => builder.with_no_client_auth(),
        Certificate::Ed25519(seed) => {
            let pkcs8 = SigningKey::from_bytes(&seed).to_pkcs8_der().unwrap().as_bytes().to_vec();
            let (chain, key) = signed(rcgen::KeyPair::try_from(pkcs8).unwrap());
            builder.with_client_auth_cert(chain, key.into()).unwrap()
        }
        Certificate::Ecdsa => {
            let (chain, key) = signed(rcgen::KeyPair::generate().unwrap());
            builder.with_client_auth_cert(chain, key.into()).unwrap()
        }
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
    let endpoint = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    soon(endpoint.connect_with(config, hub, "any").unwrap()).await
}

/// A raw agent after its welcome.
pub struct Agent {
    pub connection: Connection,
    pub send: SendStream,
    pub recv: RecvStream,
}

impl Agent {
    pub async fn join(hub: SocketAddr, seed: [u8; 32]) -> Self {
        let connection = connect(hub, ALPN, Certificate::Ed25519(seed)).await.unwrap();
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        say(&mut send, &hello()).await;
        let _: Welcome = hear(&mut recv).await;
        Self { connection, send, recv }
    }

    pub async fn lease(&self) -> (SendStream, Lease) {
        let (send, mut recv) = soon(self.connection.accept_bi()).await.unwrap();
        let lease = hear(&mut recv).await;
        (send, lease)
    }
}

pub fn hello() -> Hello {
    let introduction = introduction(None);
    Hello {
        revision: REVISION,
        software: introduction.software,
        capability: introduction.capability,
        enrol_secret: None,
    }
}

pub async fn say<M: Message>(send: &mut SendStream, message: &M) {
    soon(send.write_all(&frame::encode(message).unwrap())).await.unwrap();
}

/// A header that says what it likes.
pub fn header(bytes: u32, kind: u8) -> [u8; HEADER_BYTES] {
    let [a, b, c, d] = bytes.to_le_bytes();
    [a, b, c, d, kind]
}

pub async fn hear<M: Message>(recv: &mut RecvStream) -> M {
    let mut header = [0; HEADER_BYTES];
    soon(recv.read_exact(&mut header)).await.unwrap();
    let Header { kind, bytes } = Header::read(header).unwrap();
    assert_eq!(kind, M::KIND);
    let mut body = vec![0; bytes];
    soon(recv.read_exact(&mut body)).await.unwrap();
    frame::decode(&body).unwrap()
}

/// The code the hub closes the connection with.
pub async fn close_code(connection: &Connection) -> u64 {
    match soon(connection.closed()).await {
        ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
        other => panic!("{other}"),
    }
}

pub fn number(kind: Kind) -> u8 {
    kind as u8
}
