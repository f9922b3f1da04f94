#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
use super::*;
use serde_json::{Value, json};

/// A manifest like mc@1's, held here so that the snapshot below changes only with the planner.
fn kernel() -> Kernel {
    let manifest = json!({
        "name": "mc", "version": 1, "interface": "forgepool:kernel@1.0.0", "summary": "s", "profiles": {
        "insurance.v1": {"summary": "s", "args": {
            "type": "object", "required": ["iterations"], "additionalProperties": false, "properties": {
                "iterations": {"type": "integer", "minimum": 1, "maximum": 1_000_000_000_000u64, "x-unit": "policy years"},
                "claim_freq": {"type": "number", "minimum": 0, "maximum": 10_000, "default": 2},
                "cat_prob": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.02},
                "layers": {"type": "array", "items": {"$ref": "#/$defs/layer"}},
                "mode": {"type": "string", "enum": ["fast", "exact"], "default": "exact"},
            }, "$defs": {"layer": {"type": "object", "required": ["limit"], "properties": {
                "limit": {"type": "number", "exclusiveMinimum": 0}, "share": {"type": "number", "default": 1},
            }}}},
          "stages": [{
            "name": "simulate", "split": {"range": {"total": "iterations", "unit": 65536}},
            "parts": [{"name": "loss", "kind": "distribution", "counts_items": true, "unit": "currency"}],
            "limits": {"fuel": 60_000_000_000u64, "memory_bytes": 33_554_432, "output_bytes": 8_388_608}, "fuel_expected": 20_000_000,
          }]},
        "tiled.v1": {"summary": "s", "args": {"type": "object", "properties": {
            "a": {"type": "string"}, "m": {"type": "integer"}, "n": {"type": "integer"}, "dates": {"type": "array"}, "names": {"type": "array"},
          }}, "stages": [
            {"name": "product", "split": {"tiles": {"rows": "m", "columns": "n", "tile_rows": 512, "tile_columns": 512}},
             "inputs": [{"name": "a", "from": {"argument": "a"}}], "parts": [{"name": "c", "kind": "tile"}],
             "limits": {"fuel": 1000, "memory_bytes": 65536, "output_bytes": 100}, "fuel_expected": 10},
            {"name": "cut", "split": {"segments": {"boundaries": "dates"}}, "parts": [{"name": "f", "kind": "segment"}],
             "limits": {"fuel": 1000, "memory_bytes": 65536, "output_bytes": 100}, "fuel_expected": 10},
            {"name": "each", "split": {"list": {"items": "names"}}, "parts": [{"name": "r", "kind": "rows"}],
             "limits": {"fuel": 1000, "memory_bytes": 65536, "output_bytes": 100}, "fuel_expected": 10},
            {"name": "end", "split": "once", "inputs": [{"name": "c", "from": {"stage": "product"}}], "parts": [{"name": "x", "kind": "sum"}],
             "limits": {"fuel": 1000, "memory_bytes": 65536, "output_bytes": 100}, "fuel_expected": 10},
          ]},
        },
    });
    Kernel {
        digest: Digest::of(b"component"),
        bytes: 1234,
        manifest: Manifest::parse(manifest.to_string().as_bytes()).unwrap(),
    }
}

fn quickstart() -> Value {
    json!({
        "ctx": {"job_id": "quickstart-001", "billing": {"mode": "test"}},
        "op": {"name": "mc", "version": 1, "profile": "insurance.v1"},
        "seed": {"mode": "explicit", "value": "ROOT_SEED_QUICKSTART"},
        "policy": {"target": "cpu", "min_agents": 1, "max_agents": 10, "verify": "none"},
        "args": {"iterations": 1_000_000, "claim_freq": 2.0},
    })
}

fn planned(contract: &Value) -> Result<Plan, Failure> {
    plan(&Envelope::parse(contract.to_string().as_bytes()).unwrap(), &kernel())
}

#[test]
fn the_quickstart_plan_is_pinned() {
    let plan = planned(&quickstart()).unwrap();
    let expected: Value = serde_json::from_str(include_str!("quickstart.json")).unwrap();
    let found: Value = serde_json::from_str(&plan.canonical()).unwrap();
    assert_eq!(found, expected, "{}", plan.canonical());
    assert_eq!(plan.digest(), planned(&quickstart()).unwrap().digest());
    // It survives being stored.
    assert_eq!(serde_json::from_str::<Plan>(&plan.canonical()).unwrap(), plan);
}

#[test]
fn the_identity_depends_on_what_is_computed_and_on_nothing_else() {
    let base = planned(&quickstart()).unwrap();
    let vary = |place: &str, value: Value| {
        let mut contract = quickstart();
        *contract.pointer_mut(place).unwrap() = value;
        planned(&contract).unwrap().replay_key
    };
    for (place, value) in [
        ("/ctx", json!({})),
        ("/policy", json!({"verify": "full", "shards": 3})),
        ("/args", json!({"iterations": 1_000_000})),
        ("/args", json!({"iterations": 1e6, "mode": "exact", "cat_prob": 0.02})),
    ] {
        assert_eq!(vary(place, value), base.replay_key, "{place}");
    }
    for (place, value) in
        [("/args/iterations", json!(1_000_001)), ("/seed/value", json!("OTHER")), ("/seed", json!({"mode": "derived"}))]
    {
        assert_ne!(vary(place, value), base.replay_key, "{place}");
    }
    let mut derived = quickstart();
    derived["seed"] = json!({"mode": "derived"});
    let first = planned(&derived).unwrap();
    derived["ctx"] = json!({"trace_id": "x"});
    derived["policy"] = json!({"verify": "quorum"});
    assert_eq!(planned(&derived).unwrap().root_seed, first.root_seed, "a derived seed never depends on ctx or policy");
}

#[test]
fn defaults_are_filled_in_at_every_depth() {
    let mut contract = quickstart();
    contract["args"] = json!({"iterations": 5, "layers": [{"limit": 10}, {"limit": 20, "share": 0.5}]});
    let plan = planned(&contract).unwrap();
    assert_eq!(
        plan.args,
        r#"{"cat_prob":0.02,"claim_freq":2,"iterations":5,"layers":[{"limit":10,"share":1},{"limit":20,"share":0.5}],"mode":"exact"}"#
    );
}

#[test]
fn each_argument_mistake_names_its_place_and_its_rule() {
    let cases: Vec<(Value, &str, &str)> = vec![
        (
            json!({}),
            "/args/iterations",
            "args.iterations: required and missing; expected an integer from 1 to 1000000000000 (policy years)",
        ),
        (
            json!({"iterations": -5}),
            "/args/iterations",
            "args.iterations: expected an integer from 1 to 1000000000000 (policy years), found -5",
        ),
        (
            json!({"iterations": 1.5}),
            "/args/iterations",
            "args.iterations: expected an integer from 1 to 1000000000000 (policy years), found 1.5",
        ),
        (
            json!({"iterations": "many"}),
            "/args/iterations",
            "args.iterations: expected an integer from 1 to 1000000000000 (policy years), found \"many\"",
        ),
        (
            json!({"iterations": 1.844_674_407_370_955_2e19}),
            "/args/iterations",
            "args.iterations: expected an integer from 1 to 1000000000000 (policy years), found 1.8446744073709552e+19",
        ),
        (
            json!({"iterations": 1, "cat_prob": 1.01}),
            "/args/cat_prob",
            "args.cat_prob: expected a number from 0 to 1, found 1.01",
        ),
        (
            json!({"iterations": 1, "mode": "fats"}),
            "/args/mode",
            "args.mode: expected one of \"fast\", \"exact\", found \"fats\"",
        ),
        (
            json!({"iterations": 1, "claim_frq": 3}),
            "/args/claim_frq",
            "args.claim_frq: no such argument; expected one of cat_prob, claim_freq, iterations, layers, mode; did you mean \"claim_freq\"?",
        ),
        (
            json!({"iterations": 1, "layers": [{"limit": 1}, {"limit": 0}]}),
            "/args/layers/1/limit",
            "args.layers.1.limit: expected a number, above 0, found 0",
        ),
        (
            json!({"iterations": 1, "layers": [{}]}),
            "/args/layers/0/limit",
            "args.layers.0.limit: required and missing; expected a number, above 0",
        ),
    ];
    for (args, pointer, detail) in cases {
        let mut contract = quickstart();
        contract["args"] = args;
        let failure = planned(&contract).unwrap_err();
        assert_eq!(
            (failure.code, failure.pointer.as_deref()),
            (FailureCode::RequestArguments, Some(pointer)),
            "{failure}"
        );
        assert_eq!(failure.detail, detail);
    }
}

#[test]
fn operations_that_do_not_exist_are_named() {
    let mut contract = quickstart();
    contract["op"]["profile"] = json!("insurance.v2");
    let failure = planned(&contract).unwrap_err();
    assert_eq!(failure.code, FailureCode::RequestUnknownOp);
    assert_eq!(failure.detail, "op.profile: mc@1 has no profile 'insurance.v2'; it has insurance.v1, tiled.v1");
    contract["op"]["version"] = json!(2);
    assert_eq!(planned(&contract).unwrap_err().pointer.as_deref(), Some("/op/name"));
}

fn tiled(args: Value) -> Value {
    let mut contract = quickstart();
    contract["op"]["profile"] = json!("tiled.v1");
    contract["args"] = args;
    contract
}

#[test]
fn an_input_whose_optional_argument_is_absent_is_left_out() {
    let mut plan = planned(&tiled(json!({"m": 10, "n": 6, "dates": [0, 9], "names": ["x"]}))).unwrap();
    assert_eq!(plan.stages[0].inputs, []);
    plan.resolve(|_| None).unwrap();
    let bad = planned(&tiled(json!({"a": "xyz", "m": 10, "n": 6, "dates": [0, 9], "names": ["x"]}))).unwrap_err();
    assert_eq!((bad.code, bad.pointer.as_deref()), (FailureCode::RequestArguments, Some("/args/a")));
}

#[test]
fn every_split_is_cut_and_its_tasks_cover_it() {
    let digest = Digest::of(b"matrix");
    let args = json!({"a": digest.to_string(), "m": 1000, "n": 600, "dates": [-5, 0, 9], "names": ["x", "y", "z"]});
    let mut plan = planned(&tiled(args)).unwrap();
    let sizes: Vec<(u64, u64)> = plan.stages.iter().map(|stage| (stage.units, stage.items)).collect();
    assert_eq!(sizes, [(4, 600_000), (2, 2), (3, 3), (1, 1)]);
    for stage in &plan.stages {
        let mut next = 0;
        let mut items = 0;
        for shard in 0..stage.shards {
            let (first, count) = stage.shard_run(shard).unwrap();
            assert_eq!(first, next);
            next += count;
            items += stage.items_of(first, count);
        }
        assert_eq!((next, items), (stage.units, stage.items));
        assert_eq!(stage.shard_run(stage.shards), None);
    }
    let missing = plan.resolve(|_| None).unwrap_err();
    assert_eq!((missing.code, missing.pointer.as_deref()), (FailureCode::RequestNotFound, Some("/args/a")));
    assert!(missing.detail.contains("args.a") && missing.detail.contains("forgepool blob put"), "{missing}");
    let large = plan.clone().resolve(|_| Some(INPUT_BYTES_MAX + 1)).unwrap_err();
    assert_eq!((large.code, large.pointer.as_deref()), (FailureCode::RequestArguments, Some("/args/a")));
    plan.resolve(|found| (*found == digest).then_some(77)).unwrap();
    assert_eq!(
        plan.stages[0].inputs[0].source,
        PlannedSource::Content { digest, bytes: Some(77), argument: "a".into() }
    );
    assert_eq!(plan.stages[3].inputs[0].source, PlannedSource::Stage { index: 0 });
    let task = plan.task(JobId::from_bits(1), 2, 0, vec![]).unwrap();
    assert_eq!((task.stage.as_str(), task.first_unit), ("each", 0));
    assert!(plan.task(JobId::from_bits(1), 4, 0, vec![]).is_none());
}

#[test]
fn splits_that_cannot_be_cut_are_refused() {
    let good = json!({"a": Digest::of(b"m").to_string(), "m": 10, "n": 10, "dates": [0, 1], "names": ["x"]});
    for (name, value, pointer) in [
        ("m", json!(0), "/args/m"),
        ("a", json!("not a digest"), "/args/a"),
        ("dates", json!([3, 3]), "/args/dates"),
        ("dates", json!([3]), "/args/dates"),
        ("dates", json!([0, 1.5]), "/args/dates"),
        ("names", json!([]), "/args/names"),
        ("n", json!(4_000_000_000_000u64), "/args/m"),
    ] {
        let mut args = good.clone();
        args[name] = value;
        if name == "n" {
            args["m"] = json!(4_000_000_000u64);
        }
        let failure = planned(&tiled(args)).unwrap_err();
        assert_eq!(
            (failure.code, failure.pointer.as_deref()),
            (FailureCode::RequestArguments, Some(pointer)),
            "{failure}"
        );
    }
}

#[test]
fn too_many_units_name_the_largest_value() {
    let mut contract = quickstart();
    contract["args"] = json!({"iterations": 1_000_000_000_000u64});
    // 15,258,790 units fit: the limit is 1,638,400,000.
    let plan = planned(&contract).unwrap();
    assert_eq!(plan.stages[0].units, 15_258_790);
    assert!(u64::from(plan.stages[0].shards) <= forge_contract::limits::SHARDS_MAX);
}

#[test]
fn schemas_that_cannot_be_used_are_refused() {
    assert!(check_schema(&json!({"type": "object"})).is_ok());
    for schema in [
        json!({"type": "objekt"}),
        json!({"properties": {"a": {"pattern": "("}}}),
        json!({"$ref": "https://example.org/other.json"}),
        json!({"properties": {"a": {"$ref": "#/$defs/none"}}}),
    ] {
        assert!(check_schema(&schema).is_err(), "{schema}");
    }
}

/// An array by name is the digest it stands for: the plan is the same, whatever it was called.
#[test]
fn an_array_that_is_named_is_planned_as_its_digest() {
    let digest = Digest::of(b"m");
    let args = |a: Value| json!({"a": a, "m": 10, "n": 10, "dates": [0, 1], "names": ["x"]});
    let plain = planned(&tiled(args(json!(digest.to_string())))).unwrap();
    for reference in [
        json!({"vmem": "losses", "version": 3, "digest": digest.to_string()}),
        json!({"vmem": "other", "digest": digest.to_string()}),
    ] {
        assert_eq!(planned(&tiled(args(reference))).unwrap(), plain);
    }
    assert_eq!(plain.content(), [plain.component, digest].into());
    for (reference, words) in [
        (json!({"vmem": "losses"}), "once its digest is known"),
        (json!({"vmem": "../x", "digest": digest.to_string()}), "args.a: vmem: "),
        (json!({"losses": 3}), "args.a: expected the digest of stored content"),
    ] {
        let failure = planned(&tiled(args(reference))).unwrap_err();
        assert_eq!((failure.code, failure.pointer.as_deref()), (FailureCode::RequestArguments, Some("/args/a")));
        assert!(failure.detail.contains(words), "{failure}");
    }
}

#[test]
fn arrays_of_a_result_are_chosen_by_part() {
    use forge_contract::envelope::ArrayTarget;
    let digest = Digest::of(b"m").to_string();
    let plan = planned(&tiled(json!({"a": digest, "m": 10, "n": 10, "dates": [0, 1], "names": ["x"]}))).unwrap();
    assert_eq!(plan.arrays(), ["c"]);
    let pair = [("c".to_owned(), "name".to_owned())];
    assert_eq!(plan.array_names(None).unwrap(), []);
    assert_eq!(plan.array_names(Some(&ArrayTarget::Only("name".into()))).unwrap(), pair);
    assert_eq!(plan.array_names(Some(&ArrayTarget::Parts(pair.clone().into()))).unwrap(), pair);
    let unknown = ArrayTarget::Parts([("d".to_owned(), "name".to_owned())].into());
    let failure = plan.array_names(Some(&unknown)).unwrap_err();
    assert_eq!(failure.pointer.as_deref(), Some("/artifacts/vmem/d"));
    let none = planned(&quickstart()).unwrap().array_names(Some(&ArrayTarget::Only("x".into()))).unwrap_err();
    assert!(none.detail.ends_with("are: none"), "{none}");
}
