//! A hub that knows one token and some objects, and gives leases by hand.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use forge_contract::duty::Duty;
use forge_contract::limits::UnitLimits;
use forge_contract::manifest::{PartKind, PartSpec};
use forge_contract::report::{Outcome, Report};
use forge_contract::seed::StageKey;
use forge_contract::task::{Cut, Task};
use forge_contract::trace::TraceContext;
use forge_contract::{Digest, Failure, JobId, LeaseId};
use forge_protocol::proof::Tree;
use forge_protocol::{
    AgentKey, Content, ContentBody, ContentData, EnrolToken, Gate, HubEndpoint, Identity, LinkEvent, LinkEvents,
    LinkSettings, Unavailable,
};

/// Longer than anything here takes; only a failure waits that long.
const PATIENCE: Duration = Duration::from_secs(120);

pub async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(PATIENCE, what).await.expect("nothing happened")
}

#[derive(Clone)]
enum Answer {
    Say(Arc<dyn Fn() -> Option<ContentBody> + Send + Sync>),
    Never,
}

#[derive(Default)]
pub struct Record {
    tokens: Mutex<HashSet<Digest>>,
    keys: Mutex<HashSet<AgentKey>>,
    objects: Mutex<HashMap<Digest, Answer>>,
    /// How often an object was opened.
    pub opened: AtomicU64,
}

impl Record {
    pub fn put(&self, digest: Digest, bytes: Vec<u8>) {
        let (bytes, tree) = (Bytes::from(bytes), OnceLock::<Arc<Tree>>::new());
        self.answer(digest, move || {
            let tree = tree.get_or_init(|| Arc::new(Tree::of(&bytes))).clone();
            Some(ContentBody { data: ContentData::Bytes(bytes.clone()), tree })
        });
    }

    /// What is said to whoever asks for this object.
    pub fn answer(&self, digest: Digest, say: impl Fn() -> Option<ContentBody> + Send + Sync + 'static) {
        self.objects.lock().unwrap().insert(digest, Answer::Say(Arc::new(say)));
    }

    /// Nothing is ever said to whoever asks for this object.
    pub fn keep_waiting(&self, digest: Digest) {
        self.objects.lock().unwrap().insert(digest, Answer::Never);
    }
}

#[async_trait]
impl Gate for Record {
    async fn known(&self, key: &AgentKey) -> Result<bool, Unavailable> {
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

#[async_trait]
impl Content for Record {
    async fn open(&self, _session: u64, digest: &Digest) -> Option<ContentBody> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        let answer = self.objects.lock().unwrap().get(digest).cloned()?;
        match answer {
            Answer::Say(say) => say(),
            Answer::Never => std::future::pending().await,
        }
    }
}

pub struct Hub {
    pub endpoint: HubEndpoint,
    pub events: LinkEvents,
    pub record: Arc<Record>,
    pub address: SocketAddr,
    pub token: EnrolToken,
    pub session: u64,
    leases: u64,
}

impl Hub {
    pub fn new() -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)), Arc::new(Record::default()))
    }

    pub fn at(address: SocketAddr, record: Arc<Record>) -> Self {
        let identity = Identity::from_seed(&[1; 32]);
        let token = EnrolToken::generate(identity.hub_key()).unwrap();
        record.tokens.lock().unwrap().insert(token.stored());
        let settings = LinkSettings { heartbeat: Duration::from_millis(50), ..LinkSettings::default() };
        let (endpoint, events) =
            HubEndpoint::bind(address, &identity, record.clone(), record.clone(), settings).unwrap();
        let address = endpoint.local_addr().unwrap();
        Self { endpoint, events, record, address, token, session: 0, leases: 0 }
    }

    /// The next event that is neither heartbeat nor progress.
    pub async fn event(&mut self) -> LinkEvent {
        loop {
            match soon(self.events.recv()).await.unwrap() {
                LinkEvent::Heartbeat { .. } | LinkEvent::Progress { .. } => {}
                event => return event,
            }
        }
    }

    pub async fn joined(&mut self) -> LinkEvent {
        let event = self.event().await;
        let LinkEvent::Joined { session, .. } = &event else { panic!("{event:?}") };
        self.session = *session;
        event
    }

    pub fn grant(&mut self, task: &Task) -> LeaseId {
        self.grant_for(task, Duration::from_secs(600))
    }

    pub fn grant_for(&mut self, task: &Task, deadline: Duration) -> LeaseId {
        self.leases += 1;
        let (lease, deadline) = (LeaseId(self.leases), u64::try_from(deadline.as_millis()).unwrap());
        self.endpoint.dispatch(self.session, lease, Arc::new(task.clone()), deadline, TraceContext::default());
        lease
    }

    pub async fn report(&mut self) -> Report {
        match self.event().await {
            LinkEvent::Report { report, .. } => report,
            other => panic!("{other:?}"),
        }
    }

    pub async fn failure(&mut self) -> Failure {
        match self.report().await.outcome {
            Outcome::Failed(failure) => failure,
            completed => panic!("{completed:?}"),
        }
    }

    /// Waits for a heartbeat that tells of this many shards that run.
    pub async fn running(&mut self, shards: u32) {
        loop {
            match soon(self.events.recv()).await.unwrap() {
                LinkEvent::Heartbeat { load, .. } if load.running == shards => return,
                LinkEvent::Heartbeat { .. } | LinkEvent::Progress { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

/// A task of 8 units for a component that counts, which the hub then has.
pub fn task(hub: &Hub, component: Vec<u8>) -> Task {
    let digest = Digest::of(&component);
    let component_bytes = component.len() as u64;
    hub.record.put(digest, component);
    Task {
        job: JobId::from_bits(1),
        stage_index: 0,
        shard: 0,
        component: digest,
        component_bytes,
        profile: "count.v1".into(),
        stage: "count".into(),
        args: r#"{"units":8}"#.into(),
        key: StageKey([7; 32]),
        cut: Cut::Items { total: 8, unit: 1 },
        first_unit: 0,
        unit_count: 8,
        limits: UnitLimits { fuel: 1_000_000, memory_bytes: 16 << 20, output_bytes: 4096 },
        parts: vec![PartSpec {
            name: "work".into(),
            kind: PartKind::Count,
            counts_items: true,
            shown: true,
            unit: None,
        }],
        inputs: vec![],
        duty: Duty::Compute,
    }
}

pub fn noop(hub: &Hub) -> Task {
    task(hub, include_bytes!("../../../workloads/dist/noop@1.wasm").to_vec())
}

/// A kernel that never ends by itself, within a fuel limit.
pub fn spin(hub: &Hub, fuel: u64) -> Task {
    let shell = include_str!("../../../tests/hostile/kernels/shell.wat");
    let core = include_str!("../../../tests/hostile/kernels/spin.wat");
    let text = shell.replace("@IMPORTS@", "").replace("@ARGUMENTS@", "").replace("@CORE@", core);
    let mut task = task(hub, wat::parse_str(text).unwrap());
    task.job = JobId::from_bits(2);
    task.limits.fuel = fuel;
    task
}
