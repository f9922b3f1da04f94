//! The contract's shape as a JSON Schema (2020-12), of the tables and limits its reader goes by.
//!
//! What breaks the shape is `request.malformed` or `request.schema`. What fits it can still be refused for what it says:
//! an operation that is not there, arguments that its profile does not take, fields that contradict each other.

use serde_json::{Map, Value, json};

use super::field::Choice;
use super::{
    ARTIFACTS, ArtifactKind, BILLING, BillingMode, BillingReason, CTX, LABEL_CHARS_MAX, OP, OP_NAME_CHARS_MAX, POLICY,
    PROFILE_CHARS_MAX, ROOT, SEED, SEED_CHARS_MAX, SeedMode, Target, VerifyMode,
};
use crate::capability::{LABEL_PATTERN, LABELS_MAX};
use crate::key::WORD_PATTERN;
use crate::limits::{AGENTS_MAX, SHARDS_MAX, TIMEOUT_MS_MAX};

/// Text without control characters: what `char::is_control` finds in none of it.
pub const PRINTABLE_PATTERN: &str = r"^[^\x00-\x1f\x7f-\x9f]*$";

/// A whole contract.
#[must_use]
pub fn contract() -> Value {
    object(
        &ROOT,
        &["ctx", "op", "seed", "policy", "args"],
        "One piece of work, whatever its kind.",
        |name| match name {
            "ctx" => object(&CTX, &[], "Who asks, in the client's own words. No part of the computation.", ctx),
            "op" => object(&OP, &OP, "Which kernel, and which profile of it.", op),
            "seed" => seed(),
            "policy" => policy(&POLICY),
            "args" => json!({
                "type": "object",
                "description": "The profile's arguments, as GET /api/v0/kernels describes them. Integers are exact below 2^53."
            }),
            "artifacts" => object(&ARTIFACTS, &[], "What to keep; everything where absent.", artifacts),
            _ => Value::Null,
        },
    )
}

/// A policy with these members alone.
#[must_use]
pub fn policy(members: &[&str]) -> Value {
    object(members, &[], "Cost, latency, trust and routing; never semantics.", policy_member)
}

/// An object of exactly these members.
fn object(members: &[&str], required: &[&str], description: &str, of: impl Fn(&str) -> Value) -> Value {
    let properties: Map<String, Value> = members.iter().map(|name| ((*name).to_owned(), of(name))).collect();
    let mut schema = json!({
        "type": "object", "description": description, "properties": properties, "additionalProperties": false
    });
    if let (false, Some(schema)) = (required.is_empty(), schema.as_object_mut()) {
        schema.insert("required".to_owned(), json!(required));
    }
    schema
}

fn choice<C: Choice>(description: &str) -> Value {
    json!({ "type": "string", "enum": spellings::<C>(), "description": description })
}

fn spellings<C: Choice>() -> Vec<&'static str> {
    C::ALL.iter().map(|choice| choice.as_str()).collect()
}

fn label(description: &str) -> Value {
    json!({ "type": "string", "pattern": PRINTABLE_PATTERN, "maxLength": LABEL_CHARS_MAX, "description": description })
}

fn word(description: &str) -> Value {
    json!({ "type": "string", "pattern": WORD_PATTERN, "description": description })
}

fn flag(description: &str) -> Value {
    json!({ "type": "boolean", "description": description })
}

fn integer(min: u64, max: u64, description: &str) -> Value {
    json!({ "type": "integer", "minimum": min, "maximum": max, "description": description })
}

fn ctx(name: &str) -> Value {
    match name {
        "job_id" => label("The client's own label, echoed as `client_job_id`."),
        "trace_id" => label("For the client's tracing."),
        "run_id" => label("Studio's run."),
        "stage_id" => label("Studio's stage."),
        "billing" => object(&BILLING, &[], "How it is billed.", billing),
        _ => Value::Null,
    }
}

fn billing(name: &str) -> Value {
    match name {
        "mode" => choice::<BillingMode>("Whether it is charged; `test` where absent."),
        "reason" => choice::<BillingReason>("What it is for; `api` where absent."),
        _ => Value::Null,
    }
}

fn op(name: &str) -> Value {
    match name {
        "name" => {
            json!({ "type": "string", "minLength": 1, "maxLength": OP_NAME_CHARS_MAX, "description": "Its name." })
        }
        "version" => integer(1, u64::from(u32::MAX), "Its version, which is one component for ever."),
        "profile" => {
            json!({ "type": "string", "minLength": 1, "maxLength": PROFILE_CHARS_MAX, "description": "Its profile." })
        }
        _ => Value::Null,
    }
}

fn seed() -> Value {
    let of = |mode: SeedMode, required: &[&str], chars_min: usize, description: &str| {
        object(&SEED, required, description, |name| match name {
            "mode" => json!({ "type": "string", "enum": [mode.as_str()] }),
            "value" => json!({ "type": "string", "minLength": chars_min, "maxLength": SEED_CHARS_MAX }),
            _ => Value::Null,
        })
    };
    json!({
        "description": "Where randomness comes from.",
        "oneOf": [
            of(SeedMode::Explicit, &["mode", "value"], 1, "The value is the root."),
            of(SeedMode::Derived, &["mode"], 0, "The root is derived from op, component, args and the optional value."),
        ]
    })
}

fn policy_member(name: &str) -> Value {
    match name {
        "target" => choice::<Target>("Where it may run; `any` where absent."),
        "min_agents" => integer(0, AGENTS_MAX, "Agents wished for at least; 0 is automatic."),
        "max_agents" => integer(0, AGENTS_MAX, "Agents at the same time at most; 0 is automatic."),
        "timeout_ms" => integer(0, TIMEOUT_MS_MAX, "Milliseconds from acceptance to the end; 0 is no limit."),
        "verify" => choice::<VerifyMode>("How results are checked; `spotcheck` where absent."),
        "shards" => integer(1, SHARDS_MAX, "Number of shards wished for."),
        "strict_agents" => flag("Whether too few agents is a failure instead of a warning."),
        "labels" => json!({
            "type": "array", "maxItems": LABELS_MAX, "items": { "type": "string", "pattern": LABEL_PATTERN },
            "description": "Labels that every agent of the job has."
        }),
        "region" => word("Their region: the label `region=REGION`."),
        "arch" => word("Their processor architecture."),
        _ => Value::Null,
    }
}

fn artifacts(name: &str) -> Value {
    match name {
        "persist" => flag("Whether artifacts outlive the answer; true where absent."),
        "kv_namespace" => word("Where their references stand in KV; `jobs` where absent."),
        "include" => json!({
            "type": "array", "items": { "type": "string", "enum": spellings::<ArtifactKind>() },
            "description": "Which ones; all where absent."
        }),
        "vmem" => json!({
            "description": "Which arrays of the result are kept by name: the only one under this name, or each part under its.",
            "oneOf": [
                { "type": "string", "pattern": WORD_PATTERN },
                { "type": "object", "additionalProperties": { "type": "string", "pattern": WORD_PATTERN } }
            ]
        }),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::super::Envelope;
    use super::*;
    use crate::FailureCode;
    use proptest::prelude::*;

    fn members(schema: &Value, at: &str, found: &mut Vec<(String, bool)>) {
        for (name, member) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            found.push((format!("{at}/{name}"), member.is_object()));
            members(member, &format!("{at}/{name}"), found);
        }
    }

    #[test]
    fn every_member_that_is_read_is_described() {
        let mut found = Vec::new();
        members(&contract(), "", &mut found);
        assert!(found.iter().all(|(_, described)| *described), "{found:?}");
        assert_eq!(found.len(), ROOT.len() + CTX.len() + BILLING.len() + OP.len() + POLICY.len() + ARTIFACTS.len());
        for part in contract()["properties"]["seed"]["oneOf"].as_array().unwrap() {
            assert_eq!(part["properties"].as_object().unwrap().len(), SEED.len());
        }
    }

    fn sample() -> Value {
        json!({
            "ctx": { "job_id": "j", "trace_id": "t", "run_id": "r", "stage_id": "s", "billing": { "mode": "test", "reason": "lab" } },
            "op": { "name": "mc", "version": 1, "profile": "insurance.v1" },
            "seed": { "mode": "explicit", "value": "x" },
            "policy": {
                "target": "cpu", "min_agents": 1, "max_agents": 10, "timeout_ms": 5, "verify": "none", "shards": 4,
                "strict_agents": true, "labels": ["tier=a"], "region": "eu", "arch": "x86_64"
            },
            "args": { "iterations": 10 },
            "artifacts": { "persist": true, "kv_namespace": "jobs", "include": ["result_json"], "vmem": { "part": "name" } }
        })
    }

    /// Every place of a value, the whole of it included.
    fn places(value: &Value, at: String, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(name, value)| places(value, format!("{at}/{name}"), found)),
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(index, value)| places(value, format!("{at}/{index}"), found));
            }
            _ => {}
        }
        found.push(at);
    }

    /// Values near the rules: one of each kind, limits and what lies beside them, texts that are nearly words.
    fn near() -> impl Strategy<Value = Value> {
        let texts =
            ["", "full", "gpu", "billable", "derived", "explicit", "a/b", "-a", "a b", "a\u{85}", "\u{e9}", "x\n"];
        let long = [63, 64, 65, 127, 128, 129, 256, 257, 1024, 1025].map(|chars| "\u{e9}".repeat(chars));
        let words = [64, 65, 128, 129].map(|chars| "w".repeat(chars));
        let texts = texts.map(str::to_owned).into_iter().chain(long).chain(words).map(Value::from);
        let limits = [0, 1, AGENTS_MAX, SHARDS_MAX, TIMEOUT_MS_MAX, u64::from(u32::MAX)];
        let numbers = limits.into_iter().flat_map(|limit| [limit.saturating_sub(1), limit, limit + 1]).map(Value::from);
        let others = [
            json!(null),
            json!(true),
            json!(-1),
            json!(1.5),
            json!(2.0),
            json!([]),
            json!({}),
            json!({ "x": "y" }),
            json!(["metrics_json", "metrics_json"]),
            json!(vec!["x"; 65]),
            json!({ "p": "a/b" }),
            json!({ "mode": "derived" }),
            json!({ "mode": "explicit" }),
        ];
        prop::sample::select(texts.chain(numbers).chain(others).collect::<Vec<_>>())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// What the schema allows is not refused for its shape, and what it does not allow is refused.
        #[test]
        fn schema_and_reader_agree(
            changes in prop::collection::vec((any::<prop::sample::Index>(), prop::option::weighted(0.8, near()), any::<bool>()), 0..3)
        ) {
            let mut contract = sample();
            for (place, value, adds) in changes {
                let mut all = Vec::new();
                places(&contract, String::new(), &mut all);
                let at = place.get(&all).clone();
                let Some((parent, name)) = at.rsplit_once('/') else { continue };
                match (contract.pointer_mut(parent), value) {
                    (Some(Value::Object(map)), None) => drop(map.remove(name)),
                    (Some(Value::Object(map)), Some(value)) => {
                        map.insert(if adds { format!("{name}x") } else { name.to_owned() }, value);
                    }
                    (Some(Value::Array(items)), Some(value)) => items.push(value),
                    _ => {}
                }
            }
            let fits = jsonschema::is_valid(&super::contract(), &contract);
            let read = Envelope::parse(contract.to_string().as_bytes());
            let shape = |code| matches!(code, FailureCode::RequestSchema | FailureCode::RequestMalformed);
            let refused = read.as_ref().err().is_some_and(|failure| shape(failure.code));
            prop_assert_eq!(fits, !refused, "{}: {:?}", contract, read.err());
        }

        #[test]
        fn what_is_printable_has_no_control_character(text in "\\PC{0,8}|[\\x00-\\xff]{0,4}") {
            let fits = jsonschema::is_valid(&json!({ "pattern": PRINTABLE_PATTERN }), &json!(text));
            prop_assert_eq!(fits, !text.chars().any(char::is_control));
        }
    }
}
