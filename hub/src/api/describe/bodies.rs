//! Bodies beyond their types: what derived schemas cannot say, of the constants that handlers go by.
//!
//! What fits a body's schema is not refused with 400. It can still be refused for what it says: 422 where that contradicts
//! itself or a limit, 404 where it names what is not there, 403, 409.

use forge_contract::capability::{LABEL_PATTERN, LABELS_MAX};
use forge_contract::envelope::{PRINTABLE_PATTERN, VerifyMode, contract_schema, policy_schema};
use forge_lifecycle::ledger::MICRO_MAX;
use serde_json::{Map, Value, json};

use super::{DIGEST, members, unbounded};
use crate::api::{agents, books, identifier, kernels, keys, replay};
use crate::signed;
use crate::store::KernelState;
use crate::store::tenancy::{LIMIT_MAX, LimitName};

/// Where the contract is described.
pub(super) const CONTRACT: &str = "#/components/schemas/Contract";
/// Where the body of a replay is.
pub(super) const REPLAY: &str = "#/components/schemas/ReplayWish";

/// Describes bodies in a document's schemas.
pub(super) fn describe(schemas: &mut Map<String, Value>) {
    for schema in schemas.values_mut() {
        bound(schema);
    }
    for (schema, member, rule) in rules() {
        if let Some(found) = schemas.get_mut(schema).and_then(|schema| schema.get_mut("properties")?.get_mut(member)) {
            apply(found, rule);
        }
    }
    for (name, schema) in [("Contract", contract_schema()), ("ReplayWish", replay()), ("UrlRequest", url())] {
        schemas.insert(name.to_owned(), schema);
    }
}

/// Says of every number what its type says of it.
fn bound(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            unbounded(map);
            map.values_mut().for_each(bound);
        }
        Value::Array(items) => items.iter_mut().for_each(bound),
        _ => {}
    }
}

fn apply(member: &mut Value, rule: Value) {
    let (Some(member), Value::Object(rule)) = (member.as_object_mut(), rule) else { return };
    // A closed set, or one of several, is the whole of a type.
    if rule.contains_key("enum") || rule.contains_key("oneOf") {
        member.retain(|key, _| key == "description");
    }
    member.extend(rule);
}

fn text(chars_min: usize, chars_max: usize) -> Value {
    json!({ "pattern": PRINTABLE_PATTERN, "minLength": chars_min, "maxLength": chars_max })
}

fn number(min: u64, max: u64) -> Value {
    json!({ "minimum": min, "maximum": max })
}

/// Rules of members, by schema.
fn rules() -> Vec<(&'static str, &'static str, Value)> {
    let mut rules = vec![
        ("OrganisationWish", "id", json!({ "pattern": identifier::ID_PATTERN })),
        ("ProjectWish", "id", json!({ "pattern": identifier::ID_PATTERN })),
        ("OrganisationChange", "ceilings", limits()),
        ("ProjectChange", "limits", limits()),
        (
            "Binding",
            "labels",
            json!({ "maxItems": LABELS_MAX, "items": { "type": "string", "pattern": LABEL_PATTERN } }),
        ),
        ("Binding", "region", json!({ "pattern": LABEL_PATTERN, "maxLength": identifier::REGION_CHARS_MAX })),
        ("TokenWish", "provider", text(1, agents::PROVIDER_CHARS_MAX)),
        ("KernelChange", "reason", text(0, kernels::REASON_CHARS_MAX)),
        ("KernelChange", "state", json!({ "type": "string", "enum": kernels::CHOSEN.map(KernelState::as_str) })),
        ("KeyWish", "seconds", number(1, keys::SECONDS_MAX)),
        ("RotateWish", "grace_seconds", number(0, keys::GRACE_SECONDS_MAX)),
        ("Payout", "agent_id", json!({ "pattern": DIGEST })),
        ("BudgetWish", "budget_micro", number(0, MICRO_MAX)),
        ("Limits", LimitName::VerifyMin.as_str(), verify_min()),
    ];
    for schema in ["OrganisationWish", "OrganisationChange", "ProjectWish", "ProjectChange", "KeyWish", "MemberWish"] {
        rules.push((schema, "name", text(1, identifier::NAME_CHARS_MAX)));
    }
    for schema in ["Grant", "Payout"] {
        rules.push((schema, "credits_micro", number(1, MICRO_MAX)));
        rules.push((schema, "reference", text(1, books::REFERENCE_CHARS_MAX)));
    }
    for (name, _) in crate::store::tenancy::Limits::default().numbers() {
        rules.push(("Limits", name.as_str(), number(0, LIMIT_MAX)));
    }
    rules
}

/// Limits to set and to lift.
fn limits() -> Value {
    json!({ "oneOf": [{ "$ref": "#/components/schemas/Limits" }, { "type": "null" }] })
}

fn verify_min() -> Value {
    let modes = VerifyMode::ALL.iter().map(|mode| json!(mode)).chain([Value::Null]);
    json!({ "type": ["string", "null"], "enum": modes.collect::<Vec<_>>() })
}

fn replay() -> Value {
    json!({
        "type": "object", "description": "What a replay does otherwise.", "additionalProperties": false,
        "properties": { "policy": policy_schema(&replay::POLICY) }
    })
}

/// A URL's request: with `PUT` the size is needed, with `GET` it is known.
fn url() -> Value {
    let of = |method: &str, required: &[&str], bytes: Value| {
        json!({
            "type": "object", "required": required, "additionalProperties": false,
            "properties": {
                "method": { "type": "string", "enum": [method], "description": "What the URL gives leave to." },
                "seconds": { "type": "integer", "minimum": 1, "maximum": signed::SECONDS_MAX, "description": "How long." },
                "bytes": bytes
            }
        })
    };
    let size =
        json!({ "type": "integer", "minimum": 0, "maximum": LIMIT_MAX, "description": "The content's size, bytes." });
    json!({
        "description": "What a URL is asked for.",
        "oneOf": [
            of("GET", &["method", "seconds"], json!({ "type": "null" })),
            of("PUT", &["method", "seconds", "bytes"], size)
        ]
    })
}

/// Names a body's schema that its route cannot name.
pub(super) fn name(path: &str, content: Option<&mut Value>) {
    let (schema, example) = match path {
        "/api/v0/ops/execute" | "/api/v0/ops/plan" => (CONTRACT, example()),
        "/api/v0/jobs/{id}/replay" => (REPLAY, json!({ "policy": { "verify": "full" } })),
        _ => return,
    };
    for (_, media) in members(content) {
        if let Some(media) = media.as_object_mut() {
            media.insert("schema".to_owned(), json!({ "$ref": schema }));
            media.insert("example".to_owned(), example.clone());
        }
    }
}

/// A contract that every hub takes.
fn example() -> Value {
    json!({
        "ctx": { "job_id": "example-1", "billing": { "mode": "test" } },
        "op": { "name": "mc", "version": 1, "profile": "insurance.v1" },
        "seed": { "mode": "explicit", "value": "ROOT_SEED_QUICKSTART" },
        "policy": { "verify": "spotcheck" },
        "args": { "iterations": 100_000, "claim_freq": 2.0, "claim_severity_mu": 6.0, "claim_severity_sig": 1.0 }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn the_example_is_a_contract() {
        let contract = forge_contract::envelope::Envelope::parse(example().to_string().as_bytes()).unwrap();
        assert_eq!(contract.op.label(), "mc@1");
    }

    #[test]
    fn every_rule_has_its_member() {
        let document = crate::api::description();
        let schemas = &document["components"]["schemas"];
        for (schema, member, rule) in rules() {
            let found = &schemas[schema]["properties"][member];
            for (key, value) in rule.as_object().unwrap() {
                assert_eq!(&found[key], value, "{schema}.{member}: {found}");
            }
        }
    }

    fn numbers_are_bounded(schemas: &Value, schema: &Value, at: &str) {
        if let Some(name) = schema["$ref"].as_str() {
            return numbers_are_bounded(schemas, &schemas[name.rsplit('/').next().unwrap()], name);
        }
        let is = |kind: &str| {
            schema["type"] == kind || schema["type"].as_array().is_some_and(|all| all.contains(&json!(kind)))
        };
        if is("integer") {
            assert!(schema["minimum"].is_number() && schema["maximum"].is_number(), "{at}: {schema}");
        }
        if is("object") && schema["properties"].is_object() {
            assert_eq!(schema["additionalProperties"], false, "{at}: {schema}");
        }
        for (name, member) in schema["properties"].as_object().into_iter().flatten() {
            numbers_are_bounded(schemas, member, &format!("{at}/{name}"));
        }
        for part in schema["oneOf"].as_array().into_iter().flatten() {
            numbers_are_bounded(schemas, part, at);
        }
    }

    #[test]
    fn bodies_are_closed_and_their_numbers_bounded() {
        let document = crate::api::description();
        let mut bodies = 0;
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
                if !schema.is_null() {
                    numbers_are_bounded(&document["components"]["schemas"], schema, &format!("{method} {path}"));
                    bodies += 1;
                }
            }
        }
        assert!(bodies > 15, "{bodies}");
    }
}
