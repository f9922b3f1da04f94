//! Parameters beyond their types: what a parameter of a name may be, wherever it stands.

use forge_contract::array::slice;
use forge_contract::key::{KEY_BYTES_MAX, KEY_PATTERN, PREFIX_PATTERN, WORD_PATTERN};
use forge_lifecycle::books::Kind;
use serde_json::{Value, json};

use super::{DIGEST, unbounded};
use crate::api::{books, execute, kernels, kv, page, vmem};
use crate::condition;
use crate::store::{KernelState, Phase};

/// A ULID.
const JOB: &str = "^[0-7][0-9A-HJKMNP-TV-Z]{25}$";

/// Adds what is known of a parameter beyond its type.
pub(super) fn describe((method, path): (&str, &str), parameter: &mut Value) {
    let name = parameter.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let Some(schema) = parameter.get_mut("schema").and_then(Value::as_object_mut) else { return };
    // What may be left out may not therefore be `null`: a query has no such value.
    if let Some(kind) = schema.get_mut("type")
        && let Some(one) = kind.as_array().and_then(|kinds| kinds.iter().find(|kind| *kind != "null")).cloned()
    {
        *kind = one;
    }
    unbounded(schema);
    for (key, value) in rule(method, path, &name).as_ref().and_then(Value::as_object).into_iter().flatten() {
        schema.insert(key.clone(), value.clone());
    }
}

fn rule(method: &str, path: &str, name: &str) -> Option<Value> {
    let under = |prefix: &str| path.starts_with(prefix);
    let rule = match name {
        "digest" => json!({ "pattern": DIGEST }),
        "id" if under("/api/v0/jobs") => json!({ "pattern": JOB }),
        "id" if under("/api/v0/agents") => json!({ "pattern": DIGEST }),
        "job" if under("/api/v0/ledger") => json!({ "pattern": JOB }),
        "before" if path == "/api/v0/jobs" => json!({ "pattern": JOB }),
        "before" if path == "/api/v0/blobs" => json!({ "pattern": DIGEST }),
        "after" if path == "/api/v0/payouts" => json!({ "pattern": DIGEST }),
        "after" if path == "/api/v0/kernels" => json!({ "pattern": kernels::LABEL_PATTERN }),
        "after" if path == "/api/v0/kv" || path == "/api/v0/vmem" => json!({ "pattern": WORD_PATTERN }),
        "prefix" | "after" if under("/api/v0/kv/") => json!({ "pattern": PREFIX_PATTERN, "maxLength": KEY_BYTES_MAX }),
        "namespace" if under("/api/v0/kv") => json!({ "pattern": WORD_PATTERN }),
        "key" if under("/api/v0/kv") => json!({ "pattern": KEY_PATTERN, "maxLength": KEY_BYTES_MAX }),
        "name" if under("/api/v0/vmem") => json!({ "pattern": WORD_PATTERN }),
        "version" if under("/api/v0/vmem") && method == "delete" => json!({ "pattern": vmem::NUMBER_PATTERN }),
        "version" if under("/api/v0/vmem") => json!({ "pattern": vmem::VERSION_PATTERN }),
        "slice" => json!({ "pattern": slice::PATTERN }),
        "If-Match" | "If-None-Match" if under("/api/v0/kv") || under("/api/v0/vmem") => {
            json!({ "pattern": condition::PATTERN, "format": "entity-tags", "minLength": 1 })
        }
        "status" if path == "/api/v0/jobs" => json!({ "enum": Phase::ALL.map(Phase::as_str) }),
        "state" if path == "/api/v0/kernels" => json!({ "enum": KernelState::ALL.map(KernelState::as_str) }),
        "kind" if path == "/api/v0/ledger" => json!({ "enum": Kind::ALL.map(Kind::as_str) }),
        "format" => json!({ "enum": books::FORMATS }),
        "from" | "to" if path == "/api/v0/usage" => json!({ "format": "date", "pattern": books::DAY_PATTERN }),
        "limit" => json!({ "minimum": 1, "maximum": page::PAGE_MAX }),
        "ttl_s" => json!({ "minimum": 1, "maximum": kv::TTL_S_MAX }),
        "Idempotency-Key" => json!({ "pattern": execute::IDEMPOTENCY_PATTERN }),
        _ => return None,
    };
    Some(rule)
}
