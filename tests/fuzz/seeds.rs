//! Real inputs to start from.

use std::path::{Path, PathBuf};

use forge_contract::canon;
use forge_contract::duty::{Challenge, Duty, Examination, FoundRef};
use forge_contract::envelope::Envelope;
use forge_contract::fragment::{
    Distribution, Extrema, Fragment, Histogram, Matrix, Moments, Named, Number, Part, Rows, Segment, Tile,
};
use forge_contract::limits::UnitLimits;
use forge_contract::manifest::{Manifest, PartKind, PartSpec};
use forge_contract::report::{Checked, Completed, Finding, Outcome, Report, UnitRecord, UnitVerdict, Usage};
use forge_contract::seed::StageKey;
use forge_contract::task::{Cut, InputRef, Interval, Rectangle, Task};
use forge_contract::trace::TraceContext;
use forge_contract::{AgentId, Capability, Digest, Failure, FailureCode, JobId, LeaseId};
use forge_lifecycle::admit;
use forge_lifecycle::artifact::Entry;
use forge_lifecycle::bundle::key::Key;
use forge_lifecycle::bundle::{Index, leaf};
use forge_lifecycle::plan::{self, Kernel};
use forge_lifecycle::verify::VerificationReport;
use forge_protocol::frame;
use forge_protocol::message::{
    Drain, Fetch, Have, Heartbeat, Hello, Lease, Load, Missing, Progress, RefusalCode, Refused, ReportHead, Signature,
    Standing, Welcome,
};
use forge_protocol::{EnrolToken, HubKey, REVISION};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

/// Files of a folder with this extension, by name.
fn files(folder: &str, extension: &str) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    paths.sort();
    paths.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
}

pub fn components() -> Vec<Vec<u8>> {
    let mut found = files("workloads/dist", "wasm");
    // The small one first and often: most of what can go wrong lies in the frame around the code.
    found.sort_by_key(Vec::len);
    let small = found[0].clone();
    let core = b"\0asm\x01\0\0\0".to_vec();
    let empty = b"\0asm\x0d\0\x01\0".to_vec();
    found.extend([small.clone(), small.clone(), small, core, empty, b"\x7fELF".to_vec()]);
    found
}

pub fn kernel() -> Kernel {
    let bytes = std::fs::read(root().join("workloads/dist/mc@1.wasm")).unwrap();
    let admitted = admit::inspect(&bytes).unwrap();
    Kernel { digest: admitted.digest, bytes: admitted.bytes, manifest: admitted.manifest }
}

pub fn manifests() -> Vec<Vec<u8>> {
    let manifest = |bytes: Vec<u8>| admit::inspect(&bytes).unwrap().manifest;
    let text = |manifest: &Manifest| canon::json(manifest).unwrap().into_bytes();
    let mut found: Vec<Vec<u8>> = files("workloads/dist", "wasm").into_iter().map(|b| text(&manifest(b))).collect();
    found.push(
        br#"{"name":"acme/two","version":3,"interface":"forgepool:kernel@1.0.0","summary":"s","checks":true,"profiles":{"a.v1":{"summary":"s","args":{"type":"object","properties":{"rows":{"type":"integer"},"m":{"type":"string"},"cuts":{"type":"array"}}},"stages":[{"name":"t","split":{"tiles":{"rows":"rows","columns":"rows","tile_rows":4,"tile_columns":4}},"inputs":[{"name":"m","from":{"argument":"m"}}],"parts":[{"name":"c","kind":"tile","unit":"m"}],"limits":{"fuel":100,"memory_bytes":65536,"output_bytes":1000},"fuel_expected":50},{"name":"u","split":{"segments":{"boundaries":"cuts"}},"inputs":[{"name":"m","from":{"stage":"t"}}],"parts":[{"name":"s","kind":"segment"}],"limits":{"fuel":100,"memory_bytes":65536,"output_bytes":1000},"fuel_expected":50}],"goldens":[{"stage":"t","args":{},"seed":"s","unit":0,"inputs":[{"name":"m","content":"AQID"}],"digest":"af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262","fuel":1}]}}}"#
            .to_vec(),
    );
    found
}

fn distribution() -> Distribution {
    Distribution {
        moments: Moments { n: 3, mean: 2.0, m2: 2.0, m3: 0.0, m4: 2.0 },
        extrema: Extrema { min: 1.0, max: 3.0 },
        histogram: Histogram {
            mantissa_bits: 10,
            buckets: [1.0, 2.0, 3.0].map(|x| (Histogram::key(x, 10), 1)).to_vec(),
        },
    }
}

pub fn fragments() -> Vec<Vec<u8>> {
    let tile = |row| Tile {
        at: Rectangle { row, column: 0, rows: 2, columns: 2 },
        number: Number::Float32,
        values: vec![1; 16],
    };
    let segment = |start| Segment { at: Interval { start, end: start + 5 }, media: b"film".to_vec() };
    let parts = vec![
        Part::Count(300),
        Part::Sum(1.5),
        Part::Moments(distribution().moments),
        Part::Extrema(Extrema { min: -1.0, max: 7.0 }),
        Part::Histogram(distribution().histogram),
        Part::Distribution(distribution()),
        Part::MatrixSum(Matrix { rows: 2, columns: 2, values: vec![1.0, 2.0, 3.0, 4.0] }),
        Part::Tiles(vec![tile(0), tile(2)]),
        Part::Rows(Rows { first: 4, columns: 2, number: Number::Int32, values: vec![3; 24] }),
        Part::Segments(vec![segment(-5), segment(0)]),
        Part::Bytes(b"bytes".to_vec()),
    ];
    let of = |parts: Vec<Part>| {
        let name = |(at, part)| Named { name: format!("p{at}"), part };
        Fragment { parts: parts.into_iter().enumerate().map(name).collect() }.encode()
    };
    let mut found: Vec<Vec<u8>> = parts.iter().map(|part| of(vec![part.clone()])).collect();
    found.push(of(parts));
    found.push(of(Vec::new()));
    // Few bytes that claim many items: parts, then tiles, then segments.
    let claim = |head: &[u8]| [head, &[0; 8192]].concat();
    found.extend([claim(&[1, 0x80, 0x10]), claim(&[1, 1, 0, 7, 0x80, 8]), claim(&[1, 1, 0, 9, 0x80, 0x10])]);
    found
}

pub fn envelopes() -> Vec<Vec<u8>> {
    let mut found = files("examples", "json");
    let mut full: serde_json::Value = serde_json::from_slice(&found[0]).unwrap();
    full["ctx"] = serde_json::json!({"job_id": "j", "trace_id": "t", "run_id": "r", "stage_id": "s", "billing": {"mode": "test", "reason": "lab"}});
    full["seed"] = serde_json::json!({"mode": "derived", "value": "x"});
    full["args"]["stop"] =
        serde_json::json!({"half_width": 0.01, "confidence": 0.95, "variance_change": 0.1, "budget": 100000});
    found.push(full.to_string().into_bytes());
    found.push(br#"{"ctx":{},"op":{"name":"noop","version":1,"profile":"count.v1"},"seed":{"mode":"derived"},"policy":{"verify":"quorum","min_agents":2,"max_agents":4,"timeout_ms":1000,"shards":3},"args":{"units":10},"artifacts":{}}"#.to_vec());
    found
}

pub fn plans() -> Vec<Vec<u8>> {
    let kernel = kernel();
    let planned = envelopes().into_iter().filter_map(|body| {
        let envelope = Envelope::parse(&body).ok()?;
        Some(plan::plan(&envelope, &kernel).ok()?.canonical().into_bytes())
    });
    let mut found: Vec<Vec<u8>> = planned.collect();
    let mut other: serde_json::Value = serde_json::from_slice(&found[0]).unwrap();
    other["stages"][0]["cut"] =
        serde_json::json!({"tiles": {"rows": 10, "columns": 7, "tile_rows": 4, "tile_columns": 4}});
    found.push(other.to_string().into_bytes());
    other["stages"][0]["cut"] = serde_json::json!({"segments": {"boundaries": [-3, 0, 9]}});
    other["stages"][0]["inputs"] = serde_json::json!([{"name": "a", "source": {"stage": {"index": 0}}}]);
    found.push(other.to_string().into_bytes());
    found
}

fn task() -> Task {
    let part = |kind| PartSpec { name: "loss".into(), kind, counts_items: true, shown: true, unit: Some("EUR".into()) };
    Task {
        job: JobId::from_bits(3),
        stage_index: 1,
        shard: 2,
        component: Digest::of(b"c"),
        component_bytes: 300,
        profile: "p.v1".into(),
        stage: "s".into(),
        args: "{\"a\":1}".into(),
        key: StageKey([0x11; 32]),
        cut: Cut::Tiles { rows: 100, columns: 30, tile_rows: 7, tile_columns: 9 },
        first_unit: 4,
        unit_count: 2,
        limits: UnitLimits { fuel: 5, memory_bytes: 6, output_bytes: 7 },
        parts: vec![part(PartKind::Distribution), part(PartKind::Tile)],
        inputs: vec![InputRef { name: "in".into(), digest: Digest::of(b"i"), bytes: 9 }],
        duty: Duty::Compute,
    }
}

fn check() -> Task {
    let found = FoundRef { digest: Digest::of(b"f"), bytes: 300 };
    Task { duty: Duty::Check(Examination { found, challenge: Challenge([0x22; 32]) }), ..task() }
}

fn report(outcome: Outcome) -> Vec<u8> {
    let report = Report {
        lease: LeaseId(9),
        task: Digest::of(b"t"),
        engine: Digest::of(b"e"),
        outcome,
        usage: Usage { wall_us: 1, cpu_us: 2, prepare_us: 3 },
        log: "printed".into(),
    };
    frame::encode(&ReportHead::split(report, Signature([7; 64])).0).unwrap()
}

pub fn frames() -> Vec<Vec<u8>> {
    let capability = Capability {
        cores: 4,
        leases: 8,
        memory_bytes: 1 << 30,
        arch: "x86_64".into(),
        os: "linux".into(),
        cpu: true,
        gpu: false,
        labels: vec!["eu".into()],
        projects: vec!["p1".into()],
        engine: Digest::of(b"e"),
        cage: "full".into(),
    };
    let hello =
        Hello { revision: REVISION, software: "forge-agent".into(), capability, enrol_secret: Some([0x55; 32]) };
    let agent = AgentId(Digest::of(b"a"));
    let welcome = Welcome { revision: REVISION, agent, session: 7, heartbeat_ms: 1000, leases_max: 512 };
    let load = Load { running: 2, waiting: 1, memory_free_bytes: 300 };
    let unit = UnitRecord { digest: Digest::of(b"u"), fuel: 300 };
    let completed = Outcome::Completed(Completed { fragment: vec![1, 2, 3], units: vec![unit; 3] });
    let failed = Outcome::Failed(Failure::new(FailureCode::AgentTrap, "x").in_unit(5));
    let verdicts = [Finding::Sound { error: 1e-12 }, Finding::Wrong { reason: "cell (3, 4) differs".into() }];
    let verdicts = verdicts.map(|finding| UnitVerdict { finding, fuel: 300 });
    let checked = Outcome::Checked(Checked { units: verdicts.into() });
    let each = vec![
        frame::encode(&hello).unwrap(),
        frame::encode(&welcome).unwrap(),
        frame::encode(&Refused { code: RefusalCode::Token, detail: "no".into() }).unwrap(),
        frame::encode(&Heartbeat { load }).unwrap(),
        frame::encode(&Drain).unwrap(),
        frame::encode(&Lease { lease: LeaseId(9), deadline_ms: 1000, trace: TraceContext::default(), task: task() })
            .unwrap(),
        frame::encode(&Lease { lease: LeaseId(10), deadline_ms: 1000, trace: TraceContext::default(), task: check() })
            .unwrap(),
        frame::encode(&Progress { units_done: 3 }).unwrap(),
        report(completed),
        report(failed),
        report(checked),
        frame::encode(&Fetch { digest: Digest::of(b"d"), offset: 300 }).unwrap(),
        frame::encode(&Have { bytes: 300 }).unwrap(),
        frame::encode(&Missing).unwrap(),
        frame::encode(&Standing { clean: 300, events: vec!["e".into()], ..Standing::default() }).unwrap(),
    ];
    let mut found = each.clone();
    found.push(each.concat());
    found
}

pub fn texts() -> Vec<Vec<u8>> {
    let hub_key = HubKey([9; 32]);
    let token = EnrolToken { hub_key, secret: [2; 32] };
    let texts = [
        JobId::from_bits(u128::MAX / 3).to_string(),
        Digest::of(b"").to_string(),
        hub_key.to_string(),
        token.to_string(),
        FailureCode::AgentTrap.to_string(),
    ];
    texts.map(String::into_bytes).to_vec()
}

/// Between the leaves of a bundle to be sealed.
pub const SEPARATOR: u8 = 0x1e;
/// The leaves, in the order of [`leaves`].
const LEAVES: [&str; 12] = [
    leaf::CONTRACT,
    leaf::KERNEL,
    leaf::PLAN,
    leaf::OUTCOME,
    leaf::SHARDS,
    leaf::EXECUTIONS,
    leaf::VERIFICATION,
    leaf::OUTPUT,
    leaf::CONVERGENCE,
    leaf::LEDGER,
    leaf::REPLAY,
    "fragment_simulate",
];

/// A bundle of these leaves, sealed with a signature that is none; an empty content is a leaf left away.
pub fn sealed(contents: &[&[u8]]) -> Vec<u8> {
    let present = LEAVES.iter().zip(contents).filter(|(_, content)| !content.is_empty());
    let mut leaves: Vec<(Entry, &[u8])> = present.map(|(name, content)| (entry(name, content), *content)).collect();
    leaves.push((entry("metrics_json", b"{}"), b"{}"));
    leaves.sort_by(|a, b| a.0.name.cmp(&b.0.name));
    let entries = leaves.iter().map(|(entry, _)| entry.clone()).collect();
    let index = Index::seal(JobId::from_bits(1), entries, Key([1; 32]), |_| [2; 64]).unwrap();
    let mut bytes = index.head(|_| true);
    leaves.iter().for_each(|(_, content)| bytes.extend_from_slice(content));
    bytes
}

fn entry(name: &str, content: &[u8]) -> Entry {
    let media_type = "application/json".to_owned();
    Entry { name: name.to_owned(), media_type, bytes: content.len() as u64, digest: Digest::of(content) }
}

/// What a finished job leaves, as the hub writes it.
fn leaves() -> Vec<String> {
    let kernel = kernel();
    let planned = |body: Vec<u8>| {
        let envelope = Envelope::parse(&body).ok()?;
        Some((plan::plan(&envelope, &kernel).ok()?, envelope))
    };
    let (plan, envelope) = envelopes().into_iter().find_map(planned).unwrap();
    let shard = serde_json::json!({"stage": 0, "shard": 0, "first_unit": 0, "lease": 1, "agent": Digest::of(b"a"),
        "task": Digest::of(b"t"), "engine": Digest::of(b"e"), "fragment": Digest::of(b"f"), "result": Digest::of(b"r"),
        "verdict": {"agreed": [], "refuted": [], "failed": 0, "standing": "structural"},
        "units": [{"digest": Digest::of(b"u"), "fuel": 7}]});
    let outcome = serde_json::json!({"status": "COMPLETED", "result": Digest::of(b"r"), "replay_key": plan.replay_key,
        "plan": plan.digest(), "work": {"items": 1, "units": 1, "fuel": 7}, "engines": [Digest::of(b"e")],
        "software": "hub 0.1.0", "accepted_at_ms": 1, "finished_at_ms": 2, "warnings": []});
    let execution = serde_json::json!({"agent_id": Digest::of(b"a"), "shard_id": "simulate/0", "lease": 1,
        "status": "REPORTED", "result_hash": Digest::of(b"r"), "fuel": 7, "engine": Digest::of(b"e")});
    vec![
        envelope.canonical().to_owned(),
        canon::json(&kernel.manifest).unwrap(),
        plan.canonical(),
        outcome.to_string(),
        serde_json::json!([shard]).to_string(),
        serde_json::json!([execution]).to_string(),
        serde_json::to_string(&VerificationReport::default()).unwrap(),
        serde_json::json!({"loss": {}}).to_string(),
        String::new(),
        serde_json::json!([{"amount": 1}]).to_string(),
        String::new(),
    ]
}

pub fn bundles() -> Vec<Vec<u8>> {
    let leaves = leaves();
    let contents: Vec<&[u8]> = leaves.iter().map(String::as_bytes).collect();
    let fragment = Fragment { parts: vec![Named { name: "loss".into(), part: Part::Distribution(distribution()) }] };
    let mut apart = contents.join(&SEPARATOR);
    apart.push(SEPARATOR);
    apart.extend(fragment.encode());
    vec![apart, sealed(&contents)]
}
