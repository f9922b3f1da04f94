//! A real hub process and an agent that answers by script: it speaks the true protocol and computes without a sandbox.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use forge_contract::duty::Duty;
use forge_contract::fragment::{Fragment, Named, Number, Part, Tile};
use forge_contract::report::{Checked, Completed, Finding, Outcome, Report, UnitRecord, UnitVerdict, Usage};
use forge_contract::task::{Cut, Slice, Task};
use forge_contract::{AgentId, Capability, Digest, LeaseId};
use forge_protocol::link::agent::Introduction;
use forge_protocol::{AgentEvent, AgentLink, EnrolToken, Identity, LinkSettings, Standing};
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use tokio::sync::watch;

pub const FUEL: u64 = 1234;
/// What a tile burns: a credit.
pub const TILE_FUEL: u64 = 3_000_000_000;

/// A client; the provider is that of the hub's own TLS.
fn client() -> Client {
    // Another test of this process was first, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::new()
}

/// A hub of its own process, killed when dropped.
pub struct Hub {
    child: Child,
    // Held so that the hub lives as long as this does.
    _stdin: Option<ChildStdin>,
    pub ready: Value,
    pub http: Client,
    pub key: String,
}

fn kernels() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../workloads/dist")
}

impl Hub {
    /// Starts a hub on free ports and waits until it is ready.
    pub fn start(data: &Path, more: &[&str]) -> Self {
        Self::on(data, "127.0.0.1:0", more)
    }

    pub fn on(data: &Path, quic: &str, more: &[&str]) -> Self {
        let key = "fpk_test-key-0123456789";
        let mut child = Command::new(env!("CARGO_BIN_EXE_forge-hub"))
            .args(["--parent-pipe", "--http", "127.0.0.1:0", "--quic", quic, "--api-key", key])
            .arg("--data")
            .arg(data)
            .arg("--kernels")
            .arg(kernels())
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).expect("the hub says that it is ready");
        let stdin = child.stdin.take();
        Self { child, _stdin: stdin, ready, http: client(), key: key.into() }
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends its standard input and waits for its end.
    pub fn leave(mut self) -> std::process::ExitStatus {
        drop(self._stdin.take());
        self.child.wait().unwrap()
    }

    /// Waits for its end, which something else has begun.
    pub fn end(mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(id, signal).unwrap();
    }

    /// Asks for the certificate to be read again.
    pub fn hang_up(&self) {
        self.signal(rustix::process::Signal::HUP);
    }

    pub fn quic(&self) -> String {
        self.ready["quic"].as_str().unwrap().into()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.ready["http"].as_str().unwrap())
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        self.http.get(self.url(path)).bearer_auth(&self.key)
    }

    pub fn post(&self, path: &str) -> RequestBuilder {
        self.http.post(self.url(path)).bearer_auth(&self.key)
    }

    pub fn execute(&self, contract: &Value) -> RequestBuilder {
        self.post("/api/v0/ops/execute").json(contract)
    }

    pub async fn token(&self) -> EnrolToken {
        self.token_as(json!({})).await
    }

    /// A token of this wish.
    pub async fn token_as(&self, wish: Value) -> EnrolToken {
        let answer = answer(self.post("/api/v0/agents/tokens").json(&wish)).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.body["token"].as_str().unwrap().parse().unwrap()
    }

    /// Enrols a new agent of this script that the operator runs.
    pub async fn verifier(&self, script: Script) -> Agent {
        let token = self.token_as(json!({"verifier": true})).await;
        Agent::join(&self.quic(), &token, Arc::new(Identity::generate().unwrap()), script).await
    }

    /// Enrols a new agent of this script.
    pub async fn agent(&self, script: Script) -> Agent {
        let identity = Arc::new(Identity::generate().unwrap());
        Agent::join(&self.quic(), &self.token().await, identity, script).await
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
    pub bytes: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

pub async fn answer(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let bytes = response.bytes().await.unwrap().to_vec();
    Answer { status, headers, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null), bytes }
}

pub fn contract(units: u64) -> Value {
    json!({
        "ctx": {"job_id": "mine", "trace_id": "trace-1", "billing": {"mode": "test"}},
        "op": {"name": "noop", "version": 1, "profile": "count.v1"},
        "seed": {"mode": "explicit", "value": "S"},
        "policy": {"target": "cpu", "min_agents": 1, "max_agents": 8, "verify": "none"},
        "args": {"units": units}
    })
}

/// How an agent answers.
#[derive(Clone, Default)]
pub struct Script {
    /// Stops answering after that many shards.
    pub answers_max: Option<u64>,
    /// Says of this unit and those after it that they burned one more.
    pub other_fuel_from: Option<u64>,
    /// Lies while this is true: other tiles, more fuel.
    pub lies: Arc<AtomicBool>,
    /// Keeps tiles to itself while this is true.
    pub holds_tiles: Arc<AtomicBool>,
}

/// An agent without a sandbox: every unit of `noop@1` counts to one, every tile of `gemm@1` is zero.
pub struct Agent {
    pub id: AgentId,
    pub answered: Arc<AtomicU64>,
    /// What the hub last said of it.
    pub standing: watch::Receiver<Option<Standing>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Agent {
    pub async fn join(quic: &str, token: &EnrolToken, identity: Arc<Identity>, script: Script) -> Self {
        let introduction = introduction(Some(token.secret));
        let link =
            AgentLink::connect(&[quic.to_owned()], token.hub_key, &identity, &introduction, &LinkSettings::default())
                .await
                .unwrap();
        let answered = Arc::new(AtomicU64::new(0));
        let (told, standing) = watch::channel(None);
        let task = tokio::spawn(serve(link, script, Arc::clone(&answered), told));
        Self { id: identity.agent_id(), answered, standing, task }
    }

    /// Waits until the hub says such a thing of it.
    pub async fn told(&mut self, such: impl Fn(&Standing) -> bool) -> Standing {
        let told = self.standing.wait_for(|standing| standing.as_ref().is_some_and(&such)).await;
        told.expect("the session goes on").clone().unwrap()
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
        labels: vec![],
        projects: vec![],
        engine: Digest::of(b"script"),
        cage: "full".into(),
    };
    Introduction { software: "script".into(), capability, enrol_secret }
}

async fn serve(mut link: AgentLink, script: Script, answered: Arc<AtomicU64>, told: watch::Sender<Option<Standing>>) {
    let mut held = Vec::new();
    loop {
        match link.next().await {
            AgentEvent::Lease { lease, task, responder, .. } => {
                let keeps = matches!(task.cut, Cut::Tiles { .. }) && script.holds_tiles.load(Ordering::SeqCst);
                if keeps || script.answers_max.is_some_and(|max| answered.load(Ordering::SeqCst) >= max) {
                    held.push(responder);
                    continue;
                }
                if responder.report(compute(lease, &task, &script)).await.is_ok() {
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            }
            AgentEvent::Drain => {}
            AgentEvent::Standing(standing) => drop(told.send_replace(Some(standing))),
            AgentEvent::Closed(_) => return,
        }
    }
}

fn count(n: u64) -> Fragment {
    Fragment { parts: vec![Named { name: "work".into(), part: Part::Count(n) }] }
}

/// The one tile of a shard: zero, or one for a liar.
fn tile(task: &Task, lies: bool) -> Fragment {
    assert_eq!(task.unit_count, 1, "the script folds no tiles");
    let Some(Slice::Rectangle(at)) = task.cut.slice(task.first_unit) else { panic!("{:?}", task.cut) };
    let value = if lies { 1.0f64 } else { 0.0 };
    let cells = at.rows as usize * at.columns as usize;
    let values = value.to_le_bytes().repeat(cells);
    let part = Part::Tiles(vec![Tile { at, number: Number::Float64, values }]);
    Fragment { parts: vec![Named { name: "c".into(), part }] }
}

fn compute(lease: LeaseId, task: &Task, script: &Script) -> Report {
    let lies = script.lies.load(Ordering::SeqCst);
    let more = |unit| u64::from(lies || script.other_fuel_from.is_some_and(|from| unit >= from));
    let unit = |unit| UnitRecord { digest: count(1).digest(), fuel: FUEL + more(unit) };
    let outcome = if matches!(task.duty, Duty::Check(_)) {
        let sound = UnitVerdict { finding: Finding::Sound { error: 0.0 }, fuel: FUEL };
        Outcome::Checked(Checked { units: (0..task.unit_count).map(|_| sound.clone()).collect() })
    } else if matches!(task.cut, Cut::Tiles { .. }) {
        let fragment = tile(task, lies);
        let units = vec![UnitRecord { digest: fragment.digest(), fuel: TILE_FUEL }];
        Outcome::Completed(Completed { fragment: fragment.encode(), units })
    } else {
        let units = (task.first_unit..task.first_unit + task.unit_count).map(unit).collect();
        Outcome::Completed(Completed { fragment: count(task.unit_count).encode(), units })
    };
    Report {
        lease,
        task: task.key_digest(),
        engine: Digest::of(b"script"),
        outcome,
        usage: Usage { wall_us: 10, cpu_us: 9, prepare_us: 1 },
        log: String::new(),
    }
}

/// Server-sent events of a whole stream: (id, name, data).
pub fn events(text: &str) -> Vec<(u64, String, Value)> {
    let blocks = text.split("\n\n").filter(|block| block.contains("event:"));
    let field = |block: &str, name: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim().to_owned()
    };
    blocks
        .map(|block| {
            let data = serde_json::from_str(&field(block, "data:")).unwrap();
            (field(block, "id:").parse().unwrap(), field(block, "event:"), data)
        })
        .collect()
}
