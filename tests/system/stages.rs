//! A kernel of two stages: the folded output of the first is the input of the second, which reduces it as it likes.

use forge_contract::JobId;
use forge_contract::envelope::Envelope;
use forge_lifecycle::plan::{Kernel, Plan, plan};
use forge_lifecycle::{admit, replay};
use forge_sandbox::engine::Backend;
use forge_sandbox::{Inputs, local};
use forge_tests::binary::root;
use forge_tests::contract::{changed, insurance};
use forge_tests::npy::Matrix;
use forge_tests::pool::Pool;
use serde_json::{Value, json};

use crate::answers::{digest, output};

const POINTS: u64 = 23_456;
const KERNEL: &str = "tests/kernels/dist/two-stage@1.wasm";

fn contract(shards: u32) -> Value {
    let op = json!({"name": "two-stage", "version": 1, "profile": "line.v1"});
    let args = json!({"points": POINTS, "slope": -7, "intercept": 11});
    changed(insurance(1), &[("/op", op), ("/args", args), ("/policy/shards", json!(shards))])
}

fn component() -> Vec<u8> {
    std::fs::read(root().join(KERNEL)).expect("`cargo xtask kernels` builds it")
}

fn planned(shards: u32) -> Plan {
    let admitted = admit::inspect(&component()).unwrap();
    let kernel = Kernel { digest: admitted.digest, bytes: admitted.bytes, manifest: admitted.manifest };
    plan(&Envelope::parse(contract(shards).to_string().as_bytes()).unwrap(), &kernel).unwrap()
}

/// Runs a plan here, stage after stage.
fn replayed(kernel: &local::LocalKernel, shards: u32) -> replay::Replayed {
    replay::run(&planned(shards), JobId::from_bits(1), |task, done| {
        let mut inputs = Inputs::none();
        for reference in &task.inputs {
            let found = done.iter().find(|fragment| fragment.digest == reference.digest).unwrap();
            inputs.add(reference, found.bytes.clone().into());
        }
        local::run_shard(kernel, task, &inputs, |_| {}).outcome.completed()
    })
    .unwrap()
}

#[tokio::test]
async fn the_second_stage_reads_the_first_whatever_the_cut() {
    let kernel = local::compile(&component(), Backend::CraneliftSpeed).unwrap();
    let here = replayed(&kernel, 1);
    for shards in [2, 5, 24] {
        assert_eq!(replayed(&kernel, shards).result_digest, here.result_digest, "{shards} shards");
    }
    // Every unit of the first stage, and the one of the second, is on record.
    assert_eq!(here.units.iter().map(Vec::len).collect::<Vec<_>>(), [24, 1]);

    let folder = root().join("tests/kernels/dist");
    let pool = Pool::start_with(2, &["--kernels", &folder.to_string_lossy()]).await;
    for shards in [1, 3, 24] {
        let answer = pool.api.execute(&contract(shards)).await;
        assert_eq!(digest(&answer.body), here.result_digest.to_string(), "{shards} shards");
        let found = output(&answer.body);
        assert_eq!(found, &here.output);
        closed_form(found);
        let path = format!("/api/v0/jobs/{}/artifacts/line_npy", answer.job());
        assert_eq!(Matrix::<f64>::parse(&pool.api.content(&path).await).values, [11.0, -7.0]);
    }
    pool.stop().await;
}

fn closed_form(found: &Value) {
    assert_eq!(found["points"], json!(POINTS));
    assert_eq!(found["units"], json!(POINTS.div_ceil(1_000)));
    let mean = found["mean"].as_f64().unwrap();
    assert!((mean - (POINTS - 1) as f64 / 2.0).abs() < 1e-9, "{mean}");
    assert_eq!((&found["line"]["rows"], &found["line"]["columns"]), (&json!(1), &json!(2)));
    assert!(found.get("gram").is_none(), "what only feeds a later stage is not shown");
}
