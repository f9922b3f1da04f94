//! A kernel that is a cheap pure function, and its result by definition.

use std::collections::BTreeMap;

use forge_contract::envelope::Envelope;
use forge_contract::fragment::tree::Fold;
use forge_contract::fragment::{Distribution, Extrema, Fragment, Histogram, Moments, Named, Number, Part, Tile};
use forge_contract::manifest::Manifest;
use forge_contract::report::{Completed, UnitRecord};
use forge_contract::task::{Slice, Task};
use forge_contract::{Digest, Failure};
use forge_lifecycle::action::StageFragment;
use forge_lifecycle::plan::{Kernel, Plan, plan};
use serde_json::json;

/// Two profiles: one stage, and two stages of which the second reads the first.
pub fn kernel() -> Kernel {
    let simulate = json!({
        "name": "simulate", "split": {"range": {"total": "items", "unit": 3}}, "stop": {"argument": "stop", "part": "loss"},
        "parts": [
            {"name": "loss", "kind": "distribution", "counts_items": true},
            {"name": "sum", "kind": "sum"},
            {"name": "order", "kind": "bytes", "shown": false},
            {"name": "work", "kind": "count", "counts_items": true},
        ],
        "limits": {"fuel": 10_000_000, "memory_bytes": 1_048_576, "output_bytes": 100_000}, "fuel_expected": 1_000_000,
    });
    let finish = json!({
        "name": "finish", "split": "once", "inputs": [{"name": "all", "from": {"stage": "simulate"}}],
        "parts": [{"name": "seal", "kind": "bytes"}],
        "limits": {"fuel": 10_000_000, "memory_bytes": 1_048_576, "output_bytes": 100_000}, "fuel_expected": 1_000_000,
    });
    let paint = json!({
        "name": "paint", "split": {"tiles": {"rows": "items", "columns": "items", "tile_rows": 2, "tile_columns": 2}},
        "parts": [{"name": "picture", "kind": "tile"}],
        "limits": {"fuel": 10_000_000, "memory_bytes": 1_048_576, "output_bytes": 100_000}, "fuel_expected": 1_000_000,
    });
    let args = json!({"type": "object", "required": ["items"], "properties": {"items": {"type": "integer", "minimum": 1}, "stop": {"type": "object"}}});
    let manifest = json!({
        "name": "sim", "version": 1, "interface": "forgepool:kernel@1.0.0", "summary": "s", "checks": true, "profiles": {
            "tiles.v1": {"summary": "s", "args": args, "stages": [paint]},
            "one.v1": {"summary": "s", "args": args, "stages": [simulate]},
            "two.v1": {"summary": "s", "args": args, "stages": [simulate, finish]},
        },
    });
    let manifest = Manifest::parse(manifest.to_string().as_bytes()).unwrap();
    Kernel { digest: Digest::of(b"sim"), bytes: 3, manifest }
}

pub fn planned(profile: &str, items: u64, policy: serde_json::Value) -> Plan {
    planned_with(profile, json!({"items": items}), policy)
}

/// The plan of a job that may end early.
pub fn planned_to_stop(profile: &str, items: u64, stop: &serde_json::Value, policy: serde_json::Value) -> Plan {
    planned_with(profile, json!({"items": items, "stop": stop}), policy)
}

fn planned_with(profile: &str, args: serde_json::Value, policy: serde_json::Value) -> Plan {
    let contract = json!({
        "ctx": {}, "op": {"name": "sim", "version": 1, "profile": profile},
        "seed": {"mode": "explicit", "value": "SIM"}, "policy": policy, "args": args,
    });
    plan(&Envelope::parse(contract.to_string().as_bytes()).unwrap(), &kernel()).unwrap()
}

/// What a unit finds: sums whose bits depend on the order of additions.
pub fn unit(task: &Task, unit: u64, inputs: &[StageFragment]) -> Fragment {
    let mut state = u64::from_le_bytes(task.key.0[..8].try_into().unwrap()) ^ unit.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        f64::from_bits(state >> 12 | 0x3ff0_0000_0000_0000) - 1.0
    };
    if task.stage == "finish" {
        assert_eq!(task.inputs.len(), 1);
        let read = inputs.iter().find(|f| f.digest == task.inputs[0].digest).expect("the input was published");
        let seal = Digest::of(&read.bytes).as_bytes().to_vec();
        return Fragment { parts: vec![Named { name: "seal".into(), part: Part::Bytes(seal) }] };
    }
    if let Some(Slice::Rectangle(at)) = task.cut.slice(unit) {
        let values = (0..at.rows * at.columns).flat_map(|_| next().to_le_bytes()).collect();
        let tile = Tile { at, number: Number::Float64, values };
        return Fragment { parts: vec![Named { name: "picture".into(), part: Part::Tiles(vec![tile]) }] };
    }
    let items = task.cut.slice(unit).unwrap().items();
    let values: Vec<f64> = (0..items).map(|_| 1e3 * next() * next() / (next() + 1e-3)).collect();
    let parts = vec![
        Named { name: "loss".into(), part: Part::Distribution(distribution(&values)) },
        Named { name: "sum".into(), part: Part::Sum(values.iter().sum::<f64>() * 1.1f64.powi((unit % 40) as i32)) },
        Named { name: "order".into(), part: Part::Bytes(vec![unit as u8]) },
        Named { name: "work".into(), part: Part::Count(items) },
    ];
    Fragment { parts }
}

fn distribution(values: &[f64]) -> Distribution {
    let mut counts = BTreeMap::new();
    for value in values {
        *counts.entry(Histogram::key(*value, 8)).or_insert(0u64) += 1;
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let power = |k: i32| values.iter().map(|x| (x - mean).powi(k)).sum::<f64>();
    Distribution {
        moments: Moments { n: values.len() as u64, mean, m2: power(2), m3: power(3), m4: power(4) },
        extrema: Extrema {
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        },
        histogram: Histogram { mantissa_bits: 8, buckets: counts.into_iter().collect() },
    }
}

/// What a unit burns.
pub fn fuel(unit: u64) -> u64 {
    900_000 + unit % 7
}

/// A shard as an honest agent answers it.
pub fn shard(task: &Task, inputs: &[StageFragment]) -> Completed {
    let (mut fold, mut units) = (Fold::new(task.unit_count), Vec::new());
    for offset in 0..task.unit_count {
        let fragment = unit(task, task.first_unit + offset, inputs);
        units.push(UnitRecord { digest: fragment.digest(), fuel: fuel(task.first_unit + offset) });
        fold.insert(offset, 1, fragment).unwrap();
    }
    Completed { fragment: fold.finish().unwrap().encode(), units }
}

/// The folded fragment of every stage, by the definition of the tree: no shards, no pool, no `Fold`.
pub fn reference(plan: &Plan) -> Vec<StageFragment> {
    reference_of(plan, plan.stages[0].units)
}

/// The same of a plan whose first stage ends after so many units.
pub fn reference_of(plan: &Plan, first: u64) -> Vec<StageFragment> {
    let mut done: Vec<StageFragment> = Vec::new();
    for (index, stage) in plan.stages.iter().enumerate() {
        let inputs: Vec<_> = stage
            .inputs
            .iter()
            .map(|input| forge_contract::task::InputRef {
                name: input.name.clone(),
                digest: done[0].digest,
                bytes: done[0].bytes.len() as u64,
            })
            .collect();
        let task = plan.task(forge_contract::JobId::from_bits(0), index as u32, 0, inputs).unwrap();
        let units = if index == 0 { first } else { stage.units };
        let levels = units.next_power_of_two().trailing_zeros();
        let bytes = node(&task, levels, 0, units, &done).encode();
        done.push(StageFragment { stage: stage.name.clone(), digest: Digest::of(&bytes), bytes });
    }
    done
}

fn node(task: &Task, level: u32, index: u64, units: u64, inputs: &[StageFragment]) -> Fragment {
    if level == 0 {
        return unit(task, index, inputs);
    }
    let mut left = node(task, level - 1, 2 * index, units, inputs);
    if (2 * index + 1) << (level - 1) < units {
        left.combine(node(task, level - 1, 2 * index + 1, units, inputs)).unwrap();
    }
    left
}

/// A failure as an agent reports it.
pub fn failure(code: forge_contract::FailureCode, unit: Option<u64>) -> Failure {
    let mut failure = Failure::new(code, "simulated");
    failure.unit = unit;
    failure
}
