//! The committed kernels: read, admitted, compiled, planned.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use forge_contract::JobId;
use forge_contract::envelope::Envelope;
use forge_contract::task::{InputRef, Task};
use forge_lifecycle::admit;
use forge_lifecycle::plan::{Kernel, Plan, plan};
use forge_sandbox::Inputs;
use forge_sandbox::engine::Backend;
use forge_sandbox::local::{self, LocalKernel};
use serde_json::{Value, json};

/// Every kernel that comes with the program.
pub const KERNELS: [&str; 3] = ["gemm@1", "mc@1", "noop@1"];

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

/// The bytes of a committed component.
pub fn component(label: &str) -> Vec<u8> {
    let path = repository().join("workloads/dist").join(format!("{label}.wasm"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("workloads/dist/{label}.wasm: {e}"))
}

/// The kernel as the hub would hold it.
pub fn kernel(label: &str) -> Kernel {
    let admitted = admit::inspect(&component(label)).unwrap_or_else(|e| panic!("{label} is not admitted: {e}"));
    Kernel { digest: admitted.digest, bytes: admitted.bytes, manifest: admitted.manifest }
}

/// The kernel as an agent would hold it, compiled once per process.
pub fn compiled(label: &str, backend: Backend) -> Arc<LocalKernel> {
    type Slot = Arc<OnceLock<Arc<LocalKernel>>>;
    static HELD: OnceLock<Mutex<HashMap<(String, Backend), Slot>>> = OnceLock::new();
    let slot: Slot =
        HELD.get_or_init(Mutex::default).lock().unwrap().entry((label.into(), backend)).or_default().clone();
    let compile =
        || local::compile(&component(label), backend).unwrap_or_else(|e| panic!("{label}, {backend:?}: {e:?}"));
    slot.get_or_init(|| Arc::new(compile())).clone()
}

/// A contract with an explicit seed.
pub fn contract(label: &str, profile: &str, args: &Value, seed: &str) -> Envelope {
    let (name, version) = label.split_once('@').unwrap();
    let body = json!({
        "ctx": {},
        "op": { "name": name, "version": version.parse::<u32>().unwrap(), "profile": profile },
        "seed": { "mode": "explicit", "value": seed },
        "policy": { "verify": "none" },
        "args": args,
    });
    Envelope::parse(body.to_string().as_bytes()).unwrap_or_else(|e| panic!("{body}: {e:?}"))
}

pub fn planned(envelope: &Envelope, kernel: &Kernel) -> Plan {
    plan(envelope, kernel).unwrap_or_else(|e| panic!("{}: {e:?}", envelope.canonical()))
}

pub fn job() -> JobId {
    JobId::from_bits(1)
}

/// Every task of a stage, in order.
pub fn tasks(plan: &Plan, stage: u32) -> Vec<Task> {
    let shards = plan.stages[stage as usize].shards;
    (0..shards).map(|shard| plan.task(job(), stage, shard, Vec::new()).unwrap()).collect()
}

/// The task that holds a unit.
pub fn task_of(plan: &Plan, stage: u32, unit: u64) -> Task {
    let shard = unit / plan.stages[stage as usize].shard_units;
    plan.task(job(), stage, u32::try_from(shard).unwrap(), Vec::new()).unwrap()
}

/// Declares inputs in a task and gives their bytes.
pub fn give(task: &mut Task, reads: Vec<(InputRef, Vec<u8>)>) -> Inputs {
    let mut inputs = Inputs::none();
    for (reference, bytes) in reads {
        inputs.add(&reference, bytes.into());
        task.inputs.push(reference);
    }
    inputs
}
