//! A hub and its agents, in one process.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use forge_contract::duty::Duty;
use forge_contract::limits::UnitLimits;
use forge_contract::manifest::{PartKind, PartSpec};
use forge_contract::report::{Completed, Outcome, Report, UnitRecord, Usage};
use forge_contract::seed::StageKey;
use forge_contract::task::{Cut, Task};
use forge_contract::{Capability, Digest, JobId, LeaseId};
use forge_protocol::{
    AgentEvent, AgentKey, AgentLink, Content, ContentBody, EnrolToken, Gate, HubEndpoint, Identity, Introduction,
    LinkError, LinkEvent, LinkEvents, LinkSettings, ShardResponder, Unavailable,
};
use tokio::io::AsyncRead;

/// Longer than anything here takes; only a failure waits that long.
const PATIENCE: Duration = Duration::from_secs(60);

pub async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(PATIENCE, what).await.expect("nothing happened")
}

#[derive(Default)]
pub struct Book {
    pub keys: Mutex<HashSet<AgentKey>>,
    pub tokens: Mutex<HashSet<Digest>>,
    pub closed: Mutex<bool>,
}

#[async_trait]
impl Gate for Book {
    async fn known(&self, key: &AgentKey) -> Result<bool, Unavailable> {
        if *self.closed.lock().unwrap() {
            return Err(Unavailable);
        }
        Ok(self.keys.lock().unwrap().contains(key))
    }

    async fn redeem(&self, secret: &Digest, key: &AgentKey) -> Result<bool, Unavailable> {
        let redeemed = self.tokens.lock().unwrap().remove(secret);
        if redeemed {
            self.keys.lock().unwrap().insert(*key);
        }
        Ok(redeemed)
    }
}

type Open = Box<dyn Fn() -> ContentBody + Send + Sync>;

#[derive(Default)]
pub struct Shelf(Mutex<HashMap<Digest, Open>>);

impl Shelf {
    pub fn put(&self, digest: Digest, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        self.0.lock().unwrap().insert(digest, Box::new(move || ContentBody::Bytes(bytes.clone())));
    }

    pub fn put_reader<R: AsyncRead + Send + Unpin + 'static>(
        &self,
        digest: Digest,
        bytes: u64,
        open: impl Fn() -> R + Send + Sync + 'static,
    ) {
        let open = move || ContentBody::Reader { bytes, reader: Box::new(open()) };
        self.0.lock().unwrap().insert(digest, Box::new(open));
    }
}

#[async_trait]
impl Content for Shelf {
    async fn open(&self, _session: u64, digest: &Digest) -> Option<ContentBody> {
        self.0.lock().unwrap().get(digest).map(|open| open())
    }
}

pub struct Hub {
    pub endpoint: HubEndpoint,
    pub events: LinkEvents,
    pub identity: Identity,
    pub book: Arc<Book>,
    pub shelf: Arc<Shelf>,
    pub address: SocketAddr,
}

pub fn settings() -> LinkSettings {
    LinkSettings { heartbeat: Duration::from_millis(50), ..LinkSettings::default() }
}

impl Hub {
    pub fn new() -> Self {
        Self::with(settings())
    }

    pub fn with(settings: LinkSettings) -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)), Identity::from_seed(&[1; 32]), settings)
    }

    pub fn at(address: SocketAddr, identity: Identity, settings: LinkSettings) -> Self {
        let (book, shelf) = (Arc::new(Book::default()), Arc::new(Shelf::default()));
        let (endpoint, events) = HubEndpoint::bind(address, &identity, book.clone(), shelf.clone(), settings).unwrap();
        let address = endpoint.local_addr().unwrap();
        Self { endpoint, events, identity, book, shelf, address }
    }

    /// An agent's key that is enrolled.
    pub fn enrolled(&self, seed: u8) -> Arc<Identity> {
        let identity = Identity::from_seed(&[seed; 32]);
        self.book.keys.lock().unwrap().insert(identity.public_key());
        Arc::new(identity)
    }

    pub fn token(&self) -> EnrolToken {
        let token = EnrolToken::generate(self.identity.hub_key()).unwrap();
        self.book.tokens.lock().unwrap().insert(token.stored());
        token
    }

    pub async fn dial(&self, identity: &Arc<Identity>, secret: Option<[u8; 32]>) -> Result<AgentLink, LinkError> {
        let introduction = introduction(secret);
        let hubs = [self.address.to_string()];
        soon(AgentLink::connect(&hubs, self.identity.hub_key(), identity, &introduction, &settings())).await
    }

    /// The next event that is no heartbeat.
    pub async fn event(&mut self) -> LinkEvent {
        loop {
            match soon(self.events.recv()).await.expect("the endpoint lives") {
                LinkEvent::Heartbeat { .. } => {}
                event => return event,
            }
        }
    }

    pub async fn joined(&mut self) -> u64 {
        match self.event().await {
            LinkEvent::Joined { session, .. } => session,
            other => panic!("{other:?}"),
        }
    }

    /// A hub with one agent that has joined.
    pub async fn with_agent() -> (Self, AgentLink, u64) {
        let mut hub = Self::new();
        let identity = hub.enrolled(9);
        let link = hub.dial(&identity, None).await.unwrap();
        let session = hub.joined().await;
        (hub, link, session)
    }
}

pub fn introduction(enrol_secret: Option<[u8; 32]>) -> Introduction {
    let capability = Capability {
        cores: 2,
        leases: 8,
        memory_bytes: 1 << 30,
        arch: "x86_64".into(),
        os: "linux".into(),
        cpu: true,
        gpu: false,
        labels: vec!["region=eu".into()],
        projects: vec![],
        engine: Digest::of(b"engine"),
        cage: "full".into(),
    };
    Introduction { software: "test 1".into(), capability, enrol_secret }
}

pub async fn lease_of(link: &mut AgentLink) -> (LeaseId, Task, ShardResponder) {
    match soon(link.next()).await {
        AgentEvent::Lease { lease, task, responder, .. } => (lease, task, responder),
        other => panic!("{other:?}"),
    }
}

pub async fn closed(link: &mut AgentLink) -> LinkError {
    match soon(link.next()).await {
        AgentEvent::Closed(error) => error,
        other => panic!("{other:?}"),
    }
}

pub fn task(shard: u32) -> Arc<Task> {
    Arc::new(Task {
        job: JobId::from_bits(1),
        stage_index: 0,
        shard,
        component: Digest::of(b"component"),
        component_bytes: 9,
        profile: "p".into(),
        stage: "s".into(),
        args: r#"{"n":1}"#.into(),
        key: StageKey([4; 32]),
        cut: Cut::Items { total: 1 << 20, unit: 16 },
        first_unit: u64::from(shard) * 4,
        unit_count: 4,
        limits: UnitLimits { fuel: 1000, memory_bytes: 1 << 20, output_bytes: 1 << 20 },
        parts: vec![PartSpec { name: "n".into(), kind: PartKind::Count, counts_items: true, shown: true, unit: None }],
        inputs: vec![],
        duty: Duty::Compute,
    })
}

pub fn report(lease: LeaseId, task: &Task, fragment: Vec<u8>) -> Report {
    let units = (0..task.unit_count).map(|unit| UnitRecord { digest: Digest::of(&unit.to_le_bytes()), fuel: unit });
    Report {
        lease,
        task: task.key_digest(),
        engine: Digest::of(b"engine"),
        outcome: Outcome::Completed(Completed { fragment, units: units.collect() }),
        usage: Usage { wall_us: 1, cpu_us: 2, prepare_us: 3 },
        log: "hello".into(),
    }
}
