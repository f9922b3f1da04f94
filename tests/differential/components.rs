//! The same modules as kernels: inside a component, through the path that every unit takes.

use forge_contract::duty::Duty;
use forge_contract::limits::UnitLimits;
use forge_contract::manifest::{PartKind, PartSpec};
use forge_contract::seed::StageKey;
use forge_contract::task::{Cut, Task};
use forge_contract::{Digest, FailureCode, JobId};
use forge_golden::{generated, wrap};
use forge_sandbox::engine::Backend;
use forge_sandbox::{Inputs, local};

/// Modules tried; those without a function of numbers are passed over.
const TRIED: u64 = 60;

fn task(component: &[u8]) -> Task {
    let part = PartSpec { name: "work".into(), kind: PartKind::Bytes, counts_items: false, shown: true, unit: None };
    Task {
        job: JobId::from_bits(1),
        stage_index: 0,
        shard: 0,
        component: Digest::of(component),
        component_bytes: component.len() as u64,
        profile: "generated".into(),
        stage: "only".into(),
        args: "{}".into(),
        key: StageKey([7; 32]),
        cut: Cut::Once,
        first_unit: 0,
        unit_count: 1,
        limits: UnitLimits { fuel: 100_000, memory_bytes: 4 << 20, output_bytes: 1 << 20 },
        parts: vec![part],
        inputs: Vec::new(),
        duty: Duty::Compute,
    }
}

#[test]
fn kernels_of_generated_modules_agree_too() {
    let (mut kernels, mut completed) = (0, 0);
    for number in 0..TRIED {
        let Some(component) = wrap::kernel(&generated::module(number)) else { continue };
        kernels += 1;
        let task = task(&component);
        let ends = Backend::ALL.map(|backend| {
            let kernel = local::compile(&component, backend).unwrap_or_else(|e| panic!("module {number}: {e}"));
            let run = local::run_unit(&kernel, &task, 0, &Inputs::none());
            run.map(|run| (run.bytes, run.fuel)).map_err(|failure| (failure.code, failure.detail))
        });
        let silent = |code| [FailureCode::AgentStackOverflow, FailureCode::AgentWorkerLost].contains(&code);
        if ends.iter().any(|end| end.as_ref().is_err_and(|(code, _)| silent(*code))) {
            continue;
        }
        assert!(ends.iter().all(|end| *end == ends[0]), "module {number}: {ends:?}");
        completed += u64::from(ends[0].is_ok());
    }
    println!("{kernels} kernels, {completed} completed");
    assert!(completed >= TRIED / 8, "{kernels} kernels, {completed} completed");
}
