#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
use super::*;
use proptest::prelude::*;
use serde_json::json;

/// The contract of the product's quickstart page.
const QUICKSTART: &str = r#"{
"ctx": { "job_id": "quickstart-001", "trace_id": "trace-quickstart-001", "billing": { "mode": "test" } },
"op": { "name": "mc", "version": 1, "profile": "insurance.v1" },
"seed": { "mode": "explicit", "value": "ROOT_SEED_QUICKSTART" },
"policy": { "target": "cpu", "min_agents": 1, "max_agents": 10, "verify": "none" },
"args": { "iterations": 1000000, "claim_freq": 2.0, "claim_severity_mu": 6.0, "claim_severity_sig": 1.0,
"cat_prob": 0.02, "cat_mu": 10.0, "cat_sig": 1.5, "policy_limit": 50000, "aggregate_limit": 250000 } }"#;

fn sample() -> Value {
    serde_json::from_str(QUICKSTART).unwrap()
}

fn parse(value: &Value) -> Result<Envelope, Failure> {
    Envelope::parse(value.to_string().as_bytes())
}

#[test]
fn the_quickstart_parses() {
    let envelope = Envelope::parse(QUICKSTART.as_bytes()).unwrap();
    assert_eq!(envelope.ctx.job_id.as_deref(), Some("quickstart-001"));
    assert_eq!(envelope.ctx.billing, Billing { mode: BillingMode::Test, reason: BillingReason::Api });
    assert_eq!(envelope.op.label(), "mc@1");
    assert_eq!(envelope.seed.value.as_deref(), Some("ROOT_SEED_QUICKSTART"));
    assert_eq!(
        (envelope.policy.min_agents, envelope.policy.max_agents, envelope.policy.verify),
        (1, 10, VerifyMode::None)
    );
    assert_eq!(envelope.artifacts, Artifacts::default());
    assert_eq!(envelope.args.len(), 9);
}

#[test]
fn the_other_pages_examples_parse() {
    // Clients guide; execution model (a choice taken where the page lists several); kernel execution model.
    let clients = r#"{"ctx": {"job_id": "app-req-001", "trace_id": "trace-001", "billing": { "mode": "billable" }},
        "op": {"name": "mc", "version": 1, "profile": "insurance.v1"}, "seed": {"mode": "explicit", "value": "ROOT_SEED_001"},
        "policy": {"target": "cpu", "min_agents": 1, "max_agents": 50, "verify": "spotcheck"},
        "args": {"iterations": 10000000, "claim_freq": 2.0, "claim_severity_mu": 6.0, "claim_severity_sig": 1.0}}"#;
    let canonical = r#"{"ctx": {"job_id": "client-supplied-or-empty", "trace_id": "optional", "billing": { "mode": "test" }},
        "op": { "name": "mc", "version": 1, "profile": "insurance.v1" }, "seed": { "mode": "derived", "value": "optional" },
        "policy": { "target": "cpu", "min_agents": 1, "max_agents": 999, "verify": "quorum" }, "args": { "iterations": 1000000 }}"#;
    let kernel = r#"{"ctx": {"job_id": "optional-client-id", "run_id": "optional-studio-run-id", "stage_id": "optional-studio-stage-id",
        "trace_id": "optional-trace-id", "billing": {"mode": "billable", "reason": "studio_run"}},
        "op": {"name": "mc", "version": 1, "profile": "insurance.v1"}, "args": {"...": "profile-specific parameters"},
        "policy": {"target": "any", "min_agents": 0, "max_agents": 0, "timeout_ms": 0, "verify": "full"},
        "seed": {"mode": "derived", "value": "optional-string"},
        "artifacts": {"persist": true, "kv_namespace": "jobs", "include": ["result_json", "executions_json", "metrics_json"]}}"#;
    for page in [clients, canonical, kernel] {
        Envelope::parse(page.as_bytes()).unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn what_is_left_out_has_a_meaning() {
    let least = json!({"ctx": {}, "op": {"name": "mc", "version": 1, "profile": "p"}, "seed": {"mode": "derived"}, "policy": {}, "args": {}});
    let envelope = parse(&least).unwrap();
    assert_eq!(envelope.ctx, Context::default());
    assert_eq!(envelope.ctx.billing.mode, BillingMode::Test);
    let policy = Policy {
        target: Target::Any,
        min_agents: 0,
        max_agents: 0,
        timeout_ms: 0,
        verify: VerifyMode::Spotcheck,
        shards: None,
        strict_agents: false,
        requires: Requires::default(),
    };
    assert_eq!(envelope.policy, policy);
    let mut empty = least;
    empty["ctx"] = json!({"job_id": ""});
    assert_eq!(parse(&empty).unwrap().ctx.job_id, None);
}

#[test]
fn region_is_a_label_and_labels_are_a_set() {
    let policy = json!({"labels": ["tier=a", "gpu", "tier=a"], "region": "eu", "arch": "x86_64"});
    let all = json!({"ctx": {}, "op": {"name": "mc", "version": 1, "profile": "p"}, "seed": {"mode": "derived"}, "policy": policy, "args": {}});
    let requires = parse(&all).unwrap().policy.requires;
    assert_eq!(requires.labels, ["gpu", "region=eu", "tier=a"]);
    assert_eq!(requires.to_string(), "gpu, region=eu, tier=a, arch=x86_64");
}

/// Sets one place, parses, and gives code, pointer and detail of the refusal.
fn refused(place: &str, value: Value) -> (&'static str, String, String) {
    let mut contract = sample();
    match contract.pointer_mut(place) {
        Some(found) => *found = value,
        None => {
            let (parent, field) = place.rsplit_once('/').unwrap();
            contract.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(field.into(), value);
        }
    }
    let failure = parse(&contract).expect_err(place);
    (failure.code.as_str(), failure.pointer.unwrap_or_default(), failure.detail)
}

#[test]
fn each_rule_names_its_field_and_its_fix() {
    let cases: Vec<(&str, Value, &str, &str, &str)> = vec![
        (
            "/policy/verify",
            json!("FULL "),
            "request.schema",
            "/policy/verify",
            "policy.verify: expected one of none, spotcheck, quorum, full, found \"FULL \"; did you mean \"full\"?",
        ),
        (
            "/policy/verify",
            json!(1),
            "request.schema",
            "/policy/verify",
            "policy.verify: expected one of none, spotcheck, quorum, full, found 1",
        ),
        (
            "/policy/target",
            json!("tpu"),
            "request.schema",
            "/policy/target",
            "policy.target: expected one of cpu, gpu, any, found \"tpu\"; did you mean \"cpu\"?",
        ),
        (
            "/policy/min_agents",
            json!(11),
            "request.conflict",
            "/policy/min_agents",
            "policy.min_agents: 11 is more than policy.max_agents, 10; lower the one or raise the other (0 is automatic)",
        ),
        (
            "/policy/min_agents",
            json!(-1),
            "request.schema",
            "/policy/min_agents",
            "policy.min_agents: expected an integer from 0 to 100000, found -1",
        ),
        (
            "/policy/min_agents",
            json!(1.5),
            "request.schema",
            "/policy/min_agents",
            "policy.min_agents: expected an integer from 0 to 100000, found 1.5",
        ),
        (
            "/policy/max_agents",
            json!("10"),
            "request.schema",
            "/policy/max_agents",
            "policy.max_agents: expected an integer from 0 to 100000, found \"10\"",
        ),
        (
            "/policy/timeout_ms",
            json!(2_592_000_001u64),
            "request.schema",
            "/policy/timeout_ms",
            "policy.timeout_ms: expected an integer from 0 to 2592000000, found 2592000001",
        ),
        (
            "/policy/shards",
            json!(0),
            "request.schema",
            "/policy/shards",
            "policy.shards: expected an integer from 1 to 100000, found 0",
        ),
        (
            "/policy/shards",
            json!(100_001),
            "request.schema",
            "/policy/shards",
            "policy.shards: expected an integer from 1 to 100000, found 100001",
        ),
        (
            "/policy/strict_agents",
            json!("yes"),
            "request.schema",
            "/policy/strict_agents",
            "policy.strict_agents: expected true or false, found \"yes\"",
        ),
        (
            "/policy/labels",
            json!("region=eu"),
            "request.schema",
            "/policy/labels",
            "policy.labels: expected a list of at most 64 labels, found \"region=eu\"",
        ),
        (
            "/policy/labels",
            json!(["tier=a", "é"]),
            "request.schema",
            "/policy/labels/1",
            "policy.labels.1: expected a label of 1 to 128 printable ASCII bytes, found \"é\"",
        ),
        (
            "/policy/region",
            json!("e u"),
            "request.schema",
            "/policy/region",
            "policy.region: expected a word of 1 to 64 letters, digits, '.', '_' and '-', a letter or digit first, found \"e u\"",
        ),
        (
            "/policy/agents_min",
            json!(1),
            "request.schema",
            "/policy/agents_min",
            "policy.agents_min: no such field; expected one of target, min_agents, max_agents, timeout_ms, verify, shards, strict_agents, labels, region, arch",
        ),
        (
            "/polcy",
            json!({}),
            "request.schema",
            "/polcy",
            "polcy: no such field; expected one of ctx, op, seed, policy, args, artifacts; did you mean \"policy\"?",
        ),
        (
            "/seed/value",
            json!(""),
            "request.schema",
            "/seed/value",
            "seed.value: mode \"explicit\" pins the root seed and needs a value of 1 to 1024 characters, found an empty one; give one, or use mode \"derived\"",
        ),
        (
            "/seed/value",
            json!("x".repeat(1025)),
            "request.schema",
            "/seed/value",
            "seed.value: expected at most 1024 characters, found 1025",
        ),
        (
            "/seed/mode",
            json!("explict"),
            "request.schema",
            "/seed/mode",
            "seed.mode: expected one of explicit, derived, found \"explict\"; did you mean \"explicit\"?",
        ),
        ("/seed", json!("x"), "request.schema", "/seed", "seed: expected an object, found \"x\""),
        (
            "/op/version",
            json!(0),
            "request.schema",
            "/op/version",
            "op.version: expected an integer from 1 to 4294967295, found 0",
        ),
        (
            "/op/name",
            json!(""),
            "request.schema",
            "/op/name",
            "op.name: expected text of 1 to 127 characters, found \"\"",
        ),
        (
            "/ctx/billing/mode",
            json!("free"),
            "request.schema",
            "/ctx/billing/mode",
            "ctx.billing.mode: expected one of billable, test, found \"free\"",
        ),
        (
            "/ctx/job_id",
            json!("a\u{0}b"),
            "request.schema",
            "/ctx/job_id",
            "ctx.job_id: expected text without control characters, found \"a\\0b\"",
        ),
        (
            "/ctx/a~1b",
            json!(1),
            "request.schema",
            "/ctx/a~01b",
            "ctx.a~1b: no such field; expected one of job_id, trace_id, run_id, stage_id, billing",
        ),
        (
            "/artifacts",
            json!({"include": ["result_json", "log"]}),
            "request.schema",
            "/artifacts/include/1",
            "artifacts.include: expected one of result_json, executions_json, metrics_json, found \"log\"",
        ),
        (
            "/artifacts",
            json!({"kv_namespace": "../x"}),
            "request.schema",
            "/artifacts/kv_namespace",
            "artifacts.kv_namespace: expected a word of 1 to 64 letters, digits, '.', '_' and '-', a letter or digit first, found \"../x\"",
        ),
        ("/args", json!([]), "request.schema", "/args", "args: expected an object, found an array of 0"),
    ];
    for (place, value, code, pointer, detail) in cases {
        assert_eq!(refused(place, value), (code, pointer.to_owned(), detail.to_owned()), "{place}");
    }
}

#[test]
fn one_agent_cannot_be_compared_with_another() {
    let mut contract = sample();
    contract["policy"] = json!({"verify": "quorum", "max_agents": 1});
    let failure = parse(&contract).unwrap_err();
    assert_eq!((failure.code, failure.pointer.as_deref()), (FailureCode::RequestConflict, Some("/policy/max_agents")));
}

#[test]
fn missing_fields_are_named() {
    for field in ["ctx", "op", "seed", "policy", "args"] {
        let mut contract = sample();
        contract.as_object_mut().unwrap().remove(field);
        let failure = parse(&contract).unwrap_err();
        assert_eq!(failure.pointer, Some(format!("/{field}")));
        assert_eq!(failure.detail, format!("{field}: required and missing; expected an object"));
    }
    let mut contract = sample();
    contract["seed"].as_object_mut().unwrap().remove("value");
    assert_eq!(parse(&contract).unwrap_err().pointer.as_deref(), Some("/seed/value"));
}

/// Code, pointer and a piece of the detail for a raw body.
fn raw(body: &str, code: FailureCode, pointer: Option<&str>, piece: &str) {
    let failure = Envelope::parse(body.as_bytes()).expect_err(body);
    assert_eq!((failure.code, failure.pointer.as_deref()), (code, pointer), "{body}: {}", failure.detail);
    assert!(failure.detail.contains(piece), "{body}: {}", failure.detail);
}

#[test]
fn json_is_read_strictly() {
    use FailureCode::{RequestArguments, RequestMalformed, RequestSchema};
    raw("", RequestMalformed, None, "ends at line 1, column 0");
    raw(r#"{"ctx": {"#, RequestMalformed, Some("/ctx"), "in the middle of a value");
    raw(r#"{"ctx": {}} x"#, RequestMalformed, None, "trailing characters");
    raw("[]", RequestSchema, Some(""), "the body: expected an object, found an array of 0");
    raw("\u{feff}{}", RequestMalformed, None, "not JSON at line 1");
    raw(r#"{"args": {"a": 1, "a": 2}}"#, RequestMalformed, Some("/args/a"), "args.a: this key stands twice");
    raw(r#"{"args": {"x": [0, NaN]}}"#, RequestMalformed, Some("/args/x/1"), "args.x.1: NaN at line 1");
    raw(r#"{"args": {"x": -Infinity}}"#, RequestMalformed, Some("/args/x"), "-Infinity");
    raw(r#"{"args": {"x": Infinity}}"#, RequestMalformed, Some("/args/x"), "Infinity");
    raw(
        r#"{"args": {"x": 1e999}}"#,
        RequestMalformed,
        Some("/args/x"),
        "args.x: the number at line 1, column 20 is beyond the range of a double",
    );
    raw(
        r#"{"args": {"n": 9007199254740993}}"#,
        RequestArguments,
        Some("/args/n"),
        "args.n: integers are exact from -9007199254740991 to 9007199254740991 only, found 9007199254740993",
    );
    raw(
        r#"{"policy": {"timeout_ms": 18446744073709551615}}"#,
        RequestSchema,
        Some("/policy/timeout_ms"),
        "found 18446744073709551615",
    );
}

#[test]
fn depth_is_bounded_and_costs_no_stack() {
    let deep = |levels: usize| format!(r#"{{"args": {}1{}}}"#, "[".repeat(levels), "]".repeat(levels));
    let failure = Envelope::parse(deep(10_000).as_bytes()).unwrap_err();
    assert_eq!(failure.code, FailureCode::RequestMalformed);
    assert!(failure.detail.contains("nested more than 64 levels deep"), "{}", failure.detail);
    assert!(failure.pointer.unwrap().starts_with("/args/0/0"));
    let within = Envelope::parse(deep(62).as_bytes()).unwrap_err();
    assert_eq!(within.code, FailureCode::RequestSchema, "62 levels are read: {}", within.detail);
}

#[test]
fn a_body_beyond_the_limit_is_not_read() {
    let failure = Envelope::parse(&vec![b' '; REQUEST_BYTES_MAX + 1]).unwrap_err();
    assert_eq!(failure.code, FailureCode::RequestTooLarge);
}

#[test]
fn the_digest_is_of_the_meaning_not_of_the_spelling() {
    let base = Envelope::parse(QUICKSTART.as_bytes()).unwrap();
    let spaced = parse(&sample()).unwrap();
    assert_eq!(base.digest(), spaced.digest());
    let respelled = QUICKSTART.replace("2.0", "2").replace("0.02", "2e-2");
    assert_eq!(base.digest(), Envelope::parse(respelled.as_bytes()).unwrap().digest());
    let other = QUICKSTART.replace("1000000", "1000001");
    assert_ne!(base.digest(), Envelope::parse(other.as_bytes()).unwrap().digest());
}

#[test]
fn unusual_values_the_pages_allow() {
    for policy in [
        json!({"min_agents": 0, "max_agents": 0, "timeout_ms": 0}),
        json!({"max_agents": 999, "min_agents": 999}),
        json!({"min_agents": 5}),
    ] {
        let mut contract = sample();
        contract["policy"] = policy;
        parse(&contract).unwrap();
    }
}

proptest! {
    #[test]
    fn no_body_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Envelope::parse(&bytes);
    }

    #[test]
    fn no_damaged_contract_panics(at in 0..QUICKSTART.len(), with: u8) {
        let mut bytes = QUICKSTART.as_bytes().to_vec();
        *bytes.get_mut(at).unwrap() = with;
        if let Err(failure) = Envelope::parse(&bytes) {
            prop_assert!(failure.code.as_str().starts_with("request."));
            prop_assert!(!failure.detail.is_empty());
        }
    }
}

#[test]
fn what_is_accepted_is_accepted_again_in_its_canonical_form() {
    for number in ["1e18", "1000000000000000000", "190071992547409930.0", "-3e17", "1e300", "9007199254740992", "0.1"] {
        let mut contract = sample();
        contract["args"] = serde_json::from_str(&format!("{{\"x\": {number}}}")).unwrap();
        let text = contract.to_string();
        let first = Envelope::parse(text.as_bytes()).unwrap();
        let again = Envelope::parse(first.canonical().as_bytes()).unwrap();
        assert_eq!((first.canonical(), first.digest()), (again.canonical(), again.digest()), "{number}");
    }
    for rounded in ["9007199254740993", "-9007199254740995", "1000000000000000001"] {
        let text = sample().to_string().replacen("\"args\":{", &format!("\"args\":{{\"x\": {rounded},"), 1);
        let failure = Envelope::parse(text.as_bytes()).unwrap_err();
        assert!(failure.detail.ends_with(&format!("found {rounded}")), "{failure}");
    }
}

#[test]
fn arrays_are_kept_by_name_or_by_part() {
    let with = |artifacts: Value| {
        let mut contract = sample();
        contract["artifacts"] = artifacts;
        Envelope::parse(contract.to_string().as_bytes())
    };
    let of = |vmem: Value| with(json!({ "vmem": vmem })).map(|envelope| envelope.artifacts.vmem);
    assert_eq!(of(json!("losses")).unwrap(), Some(ArrayTarget::Only("losses".into())));
    let parts = [("c".to_owned(), "losses".to_owned())].into();
    assert_eq!(of(json!({"c": "losses"})).unwrap(), Some(ArrayTarget::Parts(parts)));
    for (vmem, pointer) in [
        (json!("a/b"), "/artifacts/vmem"),
        (json!(3), "/artifacts/vmem"),
        (json!({"c": ".."}), "/artifacts/vmem/c"),
        (json!({"c": 1}), "/artifacts/vmem/c"),
    ] {
        let failure = of(vmem).unwrap_err();
        assert_eq!(
            (failure.code, failure.pointer.as_deref()),
            (FailureCode::RequestSchema, Some(pointer)),
            "{failure}"
        );
    }
    let both = with(json!({"vmem": "losses", "persist": false})).unwrap_err();
    assert_eq!((both.code, both.pointer.as_deref()), (FailureCode::RequestConflict, Some("/artifacts/vmem")));
}
