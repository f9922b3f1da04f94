//! The kernels that ship: the same bytes and fuel in a caged worker as under each backend in this process.

use std::path::Path;
use std::time::Duration;

use forge_contract::Digest;
use forge_contract::duty::Duty;
use forge_contract::id::JobId;
use forge_contract::limits::UnitLimits;
use forge_contract::manifest::{PartKind, PartSpec};
use forge_contract::report::Outcome;
use forge_contract::seed::StageKey;
use forge_contract::task::{Cut, Task};
use forge_sandbox::engine::Backend;
use forge_sandbox::{Inputs, local};
use tokio::sync::watch;

use crate::processes::{compile_bytes, spawn};

const MC_ARGS: &str = r#"{"aggregate_limit":250000,"cat_mu":10,"cat_prob":0.02,"cat_sig":1.5,"claim_freq":2,"claim_severity_mu":6,"claim_severity_sig":1,"iterations":12288,"policy_limit":50000}"#;

fn component(label: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../workloads/dist").join(format!("{label}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn task(profile: &str, stage: &str, args: &str, part: (&str, PartKind), cut: Cut) -> Task {
    Task {
        job: JobId::new(0, 0),
        stage_index: 0,
        shard: 0,
        component: Digest::of(b""),
        component_bytes: 0,
        profile: profile.into(),
        stage: stage.into(),
        args: args.into(),
        key: StageKey([3; 32]),
        unit_count: cut.units(),
        cut,
        first_unit: 0,
        limits: UnitLimits { fuel: 1 << 32, memory_bytes: 32 << 20, output_bytes: 8 << 20 },
        parts: vec![PartSpec { name: part.0.into(), kind: part.1, counts_items: true, shown: true, unit: None }],
        inputs: vec![],
        duty: Duty::Compute,
    }
}

async fn agrees_everywhere(label: &str, task: Task) {
    let component = component(label);
    let mut worker = spawn().await;
    worker.load(&compile_bytes(&component).await.unwrap()).await.unwrap();
    let mut outcomes = Vec::new();
    // Twice in the worker: its memory was used the second time.
    for _ in 0..2 {
        let ran = worker.run(&task, &Inputs::none(), Duration::from_secs(300), &watch::Sender::new(0)).await;
        outcomes.push(ran.unwrap().outcome);
    }
    for backend in Backend::ALL {
        let kernel = local::compile(&component, backend).unwrap();
        outcomes.push(local::run_shard(&kernel, &task, &Inputs::none(), |_| {}).outcome);
    }
    assert!(matches!(&outcomes[0], Outcome::Completed(_)), "{label}: {:?}", outcomes[0]);
    for (at, outcome) in outcomes.iter().enumerate() {
        assert!(*outcome == outcomes[0], "{label}: run {at} differs");
    }
}

#[tokio::test]
async fn noop_agrees_everywhere() {
    let cut = Cut::Items { total: 64, unit: 1 };
    agrees_everywhere("noop@1", task("count.v1", "count", r#"{"units":64}"#, ("work", PartKind::Count), cut)).await;
}

#[tokio::test]
async fn mc_agrees_everywhere() {
    let cut = Cut::Items { total: 3 * 4_096, unit: 4_096 };
    agrees_everywhere("mc@1", task("insurance.v1", "simulate", MC_ARGS, ("loss", PartKind::Distribution), cut)).await;
}
