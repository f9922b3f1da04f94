//! A stranger at a real hub: a bare peer that was taken in as an agent.

use forge_contract::AgentId;
use forge_contract::report::{Outcome, Report};
use forge_protocol::frame::{self, HEADER_BYTES};
use forge_protocol::message::{Hello, Kind, Lease, Message, ReportHead, Welcome};
use forge_protocol::{ALPN, EnrolToken, Identity};
use forge_sandbox::engine::Backend;
use forge_sandbox::{Inputs, engine_profile, local};
use forge_tests::peer;
pub use forge_tests::peer::{Certificate, client};
use forge_tests::pool::Pool;
use forge_tests::within;
use quinn::{Connection, ConnectionError, RecvStream, SendStream};

/// Connects to `hub`, `address:port`.
pub async fn connect(hub: &str, alpn: &[u8], certificate: Certificate) -> Result<Connection, ConnectionError> {
    within("end of the handshake", peer::connect(hub.parse().unwrap(), client(alpn, &certificate))).await
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
    peer::hello("stranger 1")
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
    within("message", peer::hear(recv)).await.unwrap()
}

/// The code the hub closes the connection with.
pub async fn close_code(connection: &Connection) -> u64 {
    match within("end of the connection", connection.closed()).await {
        ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
        other => panic!("{other}"),
    }
}
