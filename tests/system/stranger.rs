//! A peer made of bare quinn and frames, which can say anything to a real hub.

use std::net::SocketAddr;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::EncodePrivateKey as _;
use forge_contract::report::{Outcome, Report};
use forge_contract::{AgentId, Capability};
use forge_protocol::frame::{self, HEADER_BYTES, Header};
use forge_protocol::message::{Hello, Kind, Lease, Message, ReportHead, Welcome};
use forge_protocol::{ALPN, EnrolToken, Identity, REVISION};
use forge_sandbox::engine::Backend;
use forge_sandbox::{Inputs, engine_profile, local};
use forge_tests::pool::Pool;
use forge_tests::within;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use quinn::rustls::crypto::ring;
use quinn::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use quinn::rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream};

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
pub enum Certificate {
    Nothing,
    Ed25519([u8; 32]),
    /// Another kind of key.
    Ecdsa,
}

/// The client side of a handshake.
pub fn client(alpn: &[u8], certificate: &Certificate) -> quinn::ClientConfig {
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
            let pkcs8 = SigningKey::from_bytes(seed).to_pkcs8_der().unwrap().as_bytes().to_vec();
            let (chain, key) = signed(rcgen::KeyPair::try_from(pkcs8).unwrap());
            builder.with_client_auth_cert(chain, key.into()).unwrap()
        }
        Certificate::Ecdsa => {
            let (chain, key) = signed(rcgen::KeyPair::generate().unwrap());
            builder.with_client_auth_cert(chain, key.into()).unwrap()
        }
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()))
}

pub async fn connect(hub: &str, alpn: &[u8], certificate: Certificate) -> Result<Connection, ConnectionError> {
    let endpoint = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let connecting = endpoint.connect_with(client(alpn, &certificate), hub.parse().unwrap(), "any").unwrap();
    within("end of the handshake", connecting).await
}

/// A stranger that the hub took in as an agent.
pub struct Stranger {
    pub identity: Identity,
    pub agent: AgentId,
    pub connection: Connection,
    pub send: SendStream,
    /// Held open: closing it would end the session.
    _recv: RecvStream,
}

/// A lease, and where it is answered.
pub struct Granted {
    pub lease: Lease,
    pub answer: SendStream,
}

impl Stranger {
    /// Enrols with one of the pool's tokens and joins over `hub`.
    pub async fn join_at(pool: &mut Pool, hub: &str, seed: u8) -> Self {
        let token: EnrolToken = pool.token().parse().unwrap();
        let identity = Identity::from_seed(&[seed; 32]);
        let connection = connect(hub, ALPN, Certificate::Ed25519([seed; 32])).await.unwrap();
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        let hello = Hello { enrol_secret: Some(token.secret), ..hello() };
        // A byte at a time: however it arrives, it is one message.
        for byte in frame::encode(&hello).unwrap() {
            send.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let _: Welcome = hear(&mut recv).await;
        Self { agent: identity.agent_id(), identity, connection, send, _recv: recv }
    }

    pub async fn join(pool: &mut Pool, seed: u8) -> Self {
        let hub = pool.quic();
        Self::join_at(pool, &hub, seed).await
    }

    /// The next lease.
    pub async fn granted(&self) -> Granted {
        let (answer, mut recv) = within("lease", self.connection.accept_bi()).await.unwrap();
        Granted { lease: hear(&mut recv).await, answer }
    }

    /// What an agent that does its work would say.
    pub fn honest(&self, kernel: &local::LocalKernel, granted: &Granted) -> Report {
        let task = &granted.lease.task;
        let result = local::run_shard(kernel, task, &Inputs::none(), |_| {});
        assert!(matches!(result.outcome, Outcome::Completed(_)), "{:?}", result.outcome);
        Report {
            lease: granted.lease.lease,
            task: task.key_digest(),
            engine: engine_profile(),
            outcome: result.outcome,
            usage: result.usage,
            log: String::new(),
        }
    }

    /// The frame of a report and the fragment that follows it, signed by this agent.
    pub fn signed(&self, report: Report) -> (ReportHead, Vec<u8>) {
        let signature = self.identity.sign_statement(&report.statement());
        ReportHead::split(report, signature)
    }
}

impl Granted {
    /// Sends bytes and ends the stream; a hub that has stopped listening is no failure.
    pub async fn say(&mut self, bytes: &[u8]) {
        let _ = within("room to send", self.answer.write_all(bytes)).await;
        let _ = self.answer.finish();
    }
}

/// The kernel that counts, in this process.
pub fn counting_kernel() -> local::LocalKernel {
    let path = forge_tests::binary::root().join("workloads/dist/noop@1.wasm");
    local::compile(&std::fs::read(path).unwrap(), Backend::CraneliftNone).unwrap()
}

pub fn hello() -> Hello {
    let capability = Capability {
        cores: 1,
        leases: 2,
        memory_bytes: 1 << 30,
        arch: std::env::consts::ARCH.to_owned(),
        os: std::env::consts::OS.to_owned(),
        cpu: true,
        gpu: false,
        labels: vec![],
        engine: engine_profile(),
        cage: "full".into(),
    };
    Hello { revision: REVISION, software: "stranger 1".into(), capability, enrol_secret: None }
}

/// A header that says what it likes.
pub fn header(bytes: u32, kind: u8) -> [u8; HEADER_BYTES] {
    let [a, b, c, d] = bytes.to_le_bytes();
    [a, b, c, d, kind]
}

pub fn number(kind: Kind) -> u8 {
    kind as u8
}

pub async fn hear<M: Message>(recv: &mut RecvStream) -> M {
    let mut header = [0; HEADER_BYTES];
    within("header", recv.read_exact(&mut header)).await.unwrap();
    let Header { kind, bytes } = Header::read(header).unwrap();
    assert_eq!(kind, M::KIND);
    let mut body = vec![0; bytes];
    within("message", recv.read_exact(&mut body)).await.unwrap();
    frame::decode(&body).unwrap()
}

/// The code the hub closes the connection with.
pub async fn close_code(connection: &Connection) -> u64 {
    match within("end of the connection", connection.closed()).await {
        ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
        other => panic!("{other}"),
    }
}
