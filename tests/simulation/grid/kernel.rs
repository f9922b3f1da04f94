//! The smallest kernel there is: one unit a shard, one number a unit.

use forge_contract::Digest;
use forge_contract::envelope::Envelope;
use forge_contract::fragment::{Fragment, Named, Part};
use forge_contract::manifest::Manifest;
use forge_contract::report::{Completed, UnitRecord};
use forge_lifecycle::plan::{Kernel, Plan, plan};
use serde_json::json;

/// Above every true value.
pub const LIES: u64 = 1 << 40;
/// Above every lie that is told once.
pub const LIES_AGREED: u64 = 1 << 41;

/// The plan of a job of so many shards.
pub fn planned(shards: u32, verify: &str) -> Plan {
    let stage = json!({
        "name": "count", "split": {"range": {"total": "items", "unit": 1}}, "parts": [{"name": "n", "kind": "count"}],
        "limits": {"fuel": 1_000_000, "memory_bytes": 1_048_576, "output_bytes": 1000}, "fuel_expected": 1_000_000,
    });
    let args = json!({"type": "object", "properties": {"items": {"type": "integer"}}});
    let manifest = json!({
        "name": "grid", "version": 1, "interface": "forgepool:kernel@1.0.0", "summary": "s",
        "profiles": {"one.v1": {"summary": "s", "args": args, "stages": [stage]}},
    });
    let manifest = Manifest::parse(manifest.to_string().as_bytes()).unwrap();
    let kernel = Kernel { digest: Digest::of(b"grid"), bytes: 4, manifest };
    let contract = json!({
        "ctx": {}, "op": {"name": "grid", "version": 1, "profile": "one.v1"},
        "seed": {"mode": "explicit", "value": "GRID"}, "policy": {"verify": verify, "shards": shards},
        "args": {"items": shards},
    });
    let planned = plan(&Envelope::parse(contract.to_string().as_bytes()).unwrap(), &kernel).unwrap();
    assert_eq!((planned.stages[0].shards, planned.stages[0].shard_units), (shards, 1));
    planned
}

/// What a shard's true answer says.
pub fn truth(shard: u32) -> u64 {
    u64::from(shard) + 1
}

/// An answer that says this.
pub fn answer(value: u64) -> Completed {
    let fragment = Fragment { parts: vec![Named { name: "n".into(), part: Part::Count(value) }] }.encode();
    let units = vec![UnitRecord { digest: Digest::of(&fragment), fuel: 1000 }];
    Completed { fragment, units }
}
