//! The example kernels of `examples/kernels`, as committed: read, planned and run in this process.

use forge_contract::envelope::Envelope;
use forge_contract::{JobId, task::Task};
use forge_lifecycle::plan::{Kernel, Plan, plan};
use forge_lifecycle::{admit, replay};
use forge_sandbox::engine::Backend;
use forge_sandbox::{Inputs, local};
use serde_json::{Value, json};

use crate::binary::root;

/// Every example: the name of its folder.
pub const NAMES: [&str; 3] = ["percolation", "pricer", "primes"];

/// The bytes of a committed component, version 1.
///
/// # Panics
/// It is not there.
#[must_use]
pub fn component(name: &str) -> Vec<u8> {
    let path = root().join("examples/kernels/dist").join(format!("{name}@1.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The kernel as the hub would hold it.
///
/// # Panics
/// It is not admitted.
#[must_use]
pub fn kernel(name: &str) -> Kernel {
    let admitted = admit::inspect(&component(name)).unwrap_or_else(|error| panic!("{name} is not admitted: {error}"));
    Kernel { digest: admitted.digest, bytes: admitted.bytes, manifest: admitted.manifest }
}

/// The plan of a profile with these arguments and an explicit seed.
///
/// # Panics
/// The contract is refused.
#[must_use]
pub fn planned(kernel: &Kernel, profile: &str, args: &Value, seed: &str) -> Plan {
    let contract = json!({
        "ctx": {},
        "op": { "name": kernel.manifest.name, "version": kernel.manifest.version, "profile": profile },
        "seed": { "mode": "explicit", "value": seed },
        "policy": { "verify": "none" },
        "args": args,
    });
    let envelope = Envelope::parse(contract.to_string().as_bytes()).unwrap_or_else(|error| panic!("{error:?}"));
    plan(&envelope, kernel).unwrap_or_else(|error| panic!("{args}: {error:?}"))
}

/// The task that holds a unit of a stage.
///
/// # Panics
/// There is no such unit.
#[must_use]
pub fn task(plan: &Plan, stage: &str, unit: u64) -> Task {
    let index = plan.stages.iter().position(|s| s.name == stage).expect("the stage is the profile's");
    let held = plan.stages.get(index).expect("it was just found");
    let shard = u32::try_from(unit / held.shard_units).expect("shards are few");
    plan.task(JobId::from_bits(1), u32::try_from(index).expect("stages are few"), shard, Vec::new())
        .expect("the unit is the stage's")
}

/// `hub.output` of a whole contract, run in this process with the backend that agents use.
///
/// # Panics
/// A unit fails.
#[must_use]
pub fn output(name: &str, profile: &str, args: &Value, seed: &str) -> Value {
    let plan = planned(&kernel(name), profile, args, seed);
    let compiled = local::compile(&component(name), Backend::CraneliftSpeed).expect("it compiles");
    let ran = replay::run(&plan, JobId::from_bits(1), |task, _| {
        local::run_shard(&compiled, task, &Inputs::none(), |_| ()).outcome.completed()
    });
    ran.unwrap_or_else(|failure| panic!("{name}: {failure:?}")).output
}
