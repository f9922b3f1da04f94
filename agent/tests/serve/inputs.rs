//! Inputs: small ones whole, of large ones what is read.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use forge_agent::{Request, Status};
use forge_contract::limits::UnitLimits;
use forge_contract::manifest::{PartKind, PartSpec};
use forge_contract::report::Outcome;
use forge_contract::task::{Cut, InputRef, Task};
use forge_contract::{Digest, Failure, FailureCode, JobId};
use forge_protocol::proof::{ReadAt, Tree};
use forge_protocol::{ContentBody, ContentData};
use forge_sandbox::engine::Backend;
use forge_sandbox::{Inputs, local};

use crate::hub::{Hub, noop, task};
use crate::process::Agent;

const GEMM: &[u8] = include_bytes!("../../../workloads/dist/gemm@1.wasm");
/// Rows of A, of which a tile reads 512.
const ROWS: usize = 4096;
/// Columns of A, rows and columns of B.
const SIDE: usize = 512;
/// A tile's rows of A, and all of B, bytes.
const PANEL: u64 = 512 * SIDE as u64 * 8;
/// What may be fetched beyond what is read: the groups at the ends, reads expected past the panel's, the component.
const BEYOND: u64 = 1 << 20;

fn matrix(rows: usize, number: impl Fn(usize) -> f64) -> Vec<u8> {
    let text = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({rows}, {SIDE}), }}");
    let mut bytes = b"\x93NUMPY\x01\0\x76\0".to_vec();
    bytes.extend(format!("{text:<117}\n").bytes());
    (0..rows * SIDE).for_each(|cell| bytes.extend(number(cell).to_le_bytes()));
    bytes
}

/// One product, and its inputs.
struct Product {
    task: Task,
    a: Vec<u8>,
    b: Vec<u8>,
}

impl Product {
    /// The hub has the inputs.
    fn new(hub: &Hub) -> Self {
        let a = matrix(ROWS, |cell| 1.0 / (cell as f64 + 0.7));
        let b = matrix(SIDE, |cell| (cell as f64 * 1.3) % 7.0 - 3.0);
        let reference = |name: &str, bytes: &[u8]| {
            hub.record.put(Digest::of(bytes), bytes.to_vec());
            InputRef { name: name.into(), digest: Digest::of(bytes), bytes: bytes.len() as u64 }
        };
        let inputs = vec![reference("a", &a), reference("b", &b)];
        let [of_a, of_b] = [0, 1].map(|index: usize| inputs[index].digest);
        let task = Task {
            job: JobId::from_bits(3),
            profile: "dgemm".into(),
            stage: "multiply".into(),
            args: format!(r#"{{"a":"{of_a}","alpha":1,"b":"{of_b}","beta":0,"k":{SIDE},"m":{ROWS},"n":{SIDE}}}"#),
            cut: Cut::Tiles { rows: ROWS as u64, columns: SIDE as u64, tile_rows: 512, tile_columns: 512 },
            unit_count: 1,
            limits: UnitLimits { fuel: 1 << 40, memory_bytes: 64 << 20, output_bytes: 4 << 20 },
            parts: vec![PartSpec {
                name: "c".into(),
                kind: PartKind::Tile,
                counts_items: false,
                shown: true,
                unit: None,
            }],
            inputs,
            ..task(hub, GEMM.to_vec())
        };
        Self { task, a, b }
    }

    fn unit(&self, unit: u64) -> Task {
        Task { first_unit: unit, shard: u32::try_from(unit).unwrap(), ..self.task.clone() }
    }

    /// What the unit gives where all inputs lie in memory.
    fn expected(&self, unit: u64) -> Outcome {
        let kernel = local::compile(GEMM, Backend::CraneliftSpeed).unwrap();
        let mut inputs = Inputs::none();
        for (reference, bytes) in self.task.inputs.iter().zip([&self.a, &self.b]) {
            inputs.add(reference, bytes.clone().into());
        }
        local::run_shard(&kernel, &self.unit(unit), &inputs, |_| {}).outcome
    }

    /// The hub sends A with one wrong byte, in this row.
    fn spoil(&self, hub: &Hub, row: usize) {
        let mut wrong = self.a.clone();
        wrong[128 + row * SIDE * 8 + 77] ^= 1;
        let (wrong, tree) = (Bytes::from(wrong), Arc::new(Tree::of(&self.a)));
        let body = move || Some(ContentBody { data: ContentData::Bytes(wrong.clone()), tree: tree.clone() });
        hub.record.answer(Digest::of(&self.a), body);
    }
}

/// An agent that can be asked.
struct Asked {
    _agent: Agent,
    data: tempfile::TempDir,
}

impl Asked {
    fn start(hub: &Hub) -> Self {
        Self::with_cores(hub, "1")
    }

    fn with_cores(hub: &Hub, cores: &str) -> Self {
        let data = tempfile::tempdir().unwrap();
        let token = hub.token.to_string();
        Self { _agent: Agent::start_in(hub, data.path(), &["--enroll", &token, "--cores", cores]), data }
    }

    fn fetched(&self) -> u64 {
        status(self.data.path()).fetched_bytes
    }
}

fn status(data: &Path) -> Status {
    forge_agent::ask(data, Request::Status).unwrap()
}

async fn failed(hub: &mut Hub) -> Failure {
    hub.failure().await
}

#[tokio::test]
async fn of_a_large_input_an_agent_fetches_what_its_shards_read() {
    let mut hub = Hub::new();
    let agent = Asked::start(&hub);
    hub.joined().await;
    let product = Product::new(&hub);
    let mut before = 0;
    // The second time everything is at hand; another tile takes its own rows alone.
    for (unit, panels) in [(2, 2), (2, 0), (5, 1)] {
        hub.grant(&product.unit(unit));
        let outcome = hub.report().await.outcome;
        assert!(outcome == product.expected(unit), "{outcome:?}");
        let fetched = agent.fetched() - before;
        let most = if panels == 0 { 0 } else { panels * PANEL + BEYOND };
        assert!((panels * PANEL..=most).contains(&fetched), "unit {unit}: {fetched} bytes, at most {most}");
        before += fetched;
    }
    assert!(before < product.a.len() as u64 / 2, "{before}");
}

#[tokio::test]
async fn a_wrong_byte_fails_the_shard_that_reads_it_alone() {
    let mut hub = Hub::new();
    let _agent = Asked::start(&hub);
    hub.joined().await;
    let product = Product::new(&hub);
    product.spoil(&hub, 6 * 512 + 100);
    hub.grant(&product.unit(1));
    assert!(hub.report().await.outcome == product.expected(1));
    hub.grant(&product.unit(6));
    let failure = failed(&mut hub).await;
    assert_eq!(failure.code, FailureCode::AgentFetch);
    let group = (128 + (6 * 512 + 100) * SIDE * 8 + 77) / (16 << 10) * (16 << 10);
    assert!(failure.detail.contains(&format!("another digest, from byte {group} on")), "{failure}");
    // Nothing wrong was kept.
    hub.record.put(Digest::of(&product.a), product.a.clone());
    hub.grant(&product.unit(6));
    assert!(hub.report().await.outcome == product.expected(6));
}

#[tokio::test]
async fn a_large_input_that_is_not_there_fails_its_shard_alone() {
    let mut hub = Hub::new();
    let _agent = Asked::start(&hub);
    hub.joined().await;
    let product = Product::new(&hub);
    hub.record.answer(Digest::of(&product.a), || None);
    hub.grant(&product.unit(0));
    let failure = failed(&mut hub).await;
    assert_eq!(failure.code, FailureCode::AgentFetch);
    assert!(failure.detail.contains("no object"), "{failure}");
    let mut longer = product.unit(0);
    longer.inputs[0].bytes += 1;
    hub.record.put(Digest::of(&product.a), product.a.clone());
    hub.grant(&longer);
    let failure = failed(&mut hub).await;
    assert_eq!(failure.code, FailureCode::AgentFetch);
    assert!(failure.detail.contains("where it should have"), "{failure}");
    hub.grant(&noop(&hub));
    assert!(matches!(hub.report().await.outcome, Outcome::Completed(_)));
}

#[tokio::test]
async fn a_worker_that_waits_for_bytes_ends_at_its_deadline_and_when_it_is_taken_back() {
    let mut hub = Hub::new();
    let _agent = Asked::start(&hub);
    hub.joined().await;
    let product = Product::new(&hub);
    hub.record.keep_waiting(Digest::of(&product.a));
    hub.grant_for(&product.unit(0), Duration::from_secs(3));
    assert_eq!(failed(&mut hub).await.code, FailureCode::AgentDeadline);
    let lease = hub.grant(&product.unit(1));
    hub.running(1).await;
    hub.endpoint.revoke(hub.session, lease);
    hub.grant(&noop(&hub));
    assert!(matches!(hub.report().await.outcome, Outcome::Completed(_)));
}

/// Bytes of which those from some place on can be read only once the gate is open.
struct Gated {
    bytes: Vec<u8>,
    from: u64,
    gate: Arc<(Mutex<bool>, Condvar)>,
}

impl ReadAt for Gated {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        if offset + buffer.len() as u64 > self.from {
            let open = self.gate.0.lock().unwrap();
            drop(self.gate.1.wait_while(open, |open| !*open).unwrap());
        }
        self.bytes.as_slice().read_at(offset, buffer)
    }
}

impl Gated {
    /// The hub has A behind a gate, which is given.
    fn put(hub: &Hub, product: &Product, from: u64) -> Arc<(Mutex<bool>, Condvar)> {
        let gate = Arc::<(Mutex<bool>, Condvar)>::default();
        let gated = Arc::new(Self { bytes: product.a.clone(), from, gate: gate.clone() });
        let tree = Arc::new(Tree::of(&product.a));
        hub.record.answer(Digest::of(&product.a), move || {
            Some(ContentBody { data: ContentData::Stored(gated.clone()), tree: tree.clone() })
        });
        gate
    }
}

fn open(gate: &(Mutex<bool>, Condvar)) {
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
}

#[tokio::test]
async fn what_two_workers_wait_for_is_fetched_once() {
    let mut hub = Hub::new();
    let agent = Asked::with_cores(&hub, "2");
    hub.joined().await;
    let product = Product::new(&hub);
    let gate = Gated::put(&hub, &product, 0);
    let (one, other) = (product.unit(4), Task { job: JobId::from_bits(4), ..product.unit(4) });
    hub.grant(&one);
    hub.grant(&other);
    hub.running(2).await;
    open(&gate);
    let expected = product.expected(4);
    for _ in 0..2 {
        assert!(hub.report().await.outcome == expected);
    }
    assert!(agent.fetched() <= 2 * PANEL + BEYOND, "{}", agent.fetched());
}

#[tokio::test]
async fn a_read_goes_on_in_the_next_session() {
    let mut hub = Hub::new();
    let agent = Asked::start(&hub);
    hub.joined().await;
    let product = Product::new(&hub);
    let gate = Gated::put(&hub, &product, 4 * PANEL - PANEL / 4);
    hub.grant(&product.unit(3));
    hub.running(1).await;
    while agent.fetched() < PANEL / 2 {
        tokio::task::yield_now().await;
    }
    let (address, record) = (hub.address, hub.record.clone());
    hub.endpoint.shutdown().await;
    drop(hub);
    open(&gate);
    // The socket closes with the last of its tasks.
    while std::net::UdpSocket::bind(address).is_err() {
        tokio::task::yield_now().await;
    }
    let mut hub = Hub::at(address, record);
    hub.joined().await;
    hub.grant(&product.unit(3));
    assert!(hub.report().await.outcome == product.expected(3));
    // What had come before the session broke did not come again.
    assert!(agent.fetched() <= 2 * PANEL + BEYOND, "{}", agent.fetched());
}
