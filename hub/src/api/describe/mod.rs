//! The OpenAPI document, completed: what holds for all routes alike is said here once, and not beside each of them.
//!
//! Works on the document's JSON, where parameters, bodies and answers of every route look the same.

use forge_lifecycle::books::Kind;
use serde_json::{Map, Value, json};
use utoipa::openapi::OpenApi;

/// A BLAKE3 digest.
const DIGEST: &str = "^[0-9a-f]{64}$";
/// A ULID.
const JOB: &str = "^[0-7][0-9A-HJKMNP-TV-Z]{25}$";
/// A day, UTC.
const DAY: &str = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$";
/// A namespace of values, or an array's name.
const WORD: &str = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$";
/// A key of a value: steps between slashes, none of them empty, `.` or `..`.
const KEY: &str = concat!(
    r"^(\.{0,2}[A-Za-z0-9_~:@=+,-][A-Za-z0-9._~:@=+,-]*|\.{3}[A-Za-z0-9._~:@=+,-]*)",
    r"(/(\.{0,2}[A-Za-z0-9_~:@=+,-][A-Za-z0-9._~:@=+,-]*|\.{3}[A-Za-z0-9._~:@=+,-]*))*$"
);
/// What keys can begin with.
const PREFIX: &str = "^[A-Za-z0-9._~:@=+,/-]*$";
/// Longest key, bytes.
const KEY_BYTES_MAX: usize = forge_contract::key::KEY_BYTES_MAX;
/// Where problems are described.
const PROBLEM: &str = "#/components/schemas/ProblemBody";
/// Their media type (RFC 9457).
const PROBLEM_TYPE: &str = "application/problem+json";

/// The document with the answers that any route can give, problems under their media type, and parameters of one name
/// described alike.
#[must_use]
pub fn completed(openapi: OpenApi) -> OpenApi {
    let Ok(mut document) = serde_json::to_value(&openapi) else { return openapi };
    name_steps(&mut document);
    for (path, item) in members(document.pointer_mut("/paths")) {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            if let Some(operation) = operation.as_object_mut() {
                complete(path, method, operation);
            }
        }
    }
    serde_json::from_value(document).unwrap_or(openapi)
}

/// A path's last step may hold several: the router writes it `{*key}`, the document `{key}`.
fn name_steps(document: &mut Value) {
    let Some(paths) = document.pointer_mut("/paths").and_then(Value::as_object_mut) else { return };
    let named = core::mem::take(paths).into_iter().map(|(path, item)| (path.replace("{*", "{"), item));
    *paths = named.collect();
}

fn members(value: Option<&mut Value>) -> impl Iterator<Item = (&String, &mut Value)> {
    value.and_then(Value::as_object_mut).into_iter().flatten()
}

/// A route's name, which no other has: its method and the steps of its path.
fn name(path: &str, method: &str) -> String {
    let steps = path.split('/').filter(|step| !matches!(*step, "" | "api" | "v0"));
    let words: Vec<String> = steps.map(|step| step.trim_matches(['{', '}']).replace('.', "_")).collect();
    if words.is_empty() { format!("{method}_index") } else { format!("{method}_{}", words.join("_")) }
}

fn complete(path: &str, method: &str, operation: &mut Map<String, Value>) {
    operation.insert("operationId".to_owned(), Value::String(name(path, method)));
    for parameter in operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
        describe(path, parameter);
    }
    let is_secured = operation.get("security").and_then(Value::as_array).is_some_and(|all| !all.is_empty());
    let has_body = operation.contains_key("requestBody");
    let takes = has_body || operation.contains_key("parameters");
    if let Some(body) = operation.get_mut("requestBody").and_then(Value::as_object_mut) {
        describe_body(body);
    }
    let Some(answers) = operation.get_mut("responses").and_then(Value::as_object_mut) else { return };
    for (status, answer) in answers.iter_mut() {
        rename_problems(answer);
        if status.starts_with('4') {
            admit_problem(answer);
        }
        describe_bytes(answer.get_mut("content"));
    }
    let mut may = |status: &str, description: &str| {
        let problem = json!({
            "description": description, "content": { (PROBLEM_TYPE): { "schema": { "$ref": PROBLEM } } }
        });
        answers.entry(status).or_insert(problem);
    };
    if takes {
        may("400", "A field, parameter or header is missing, unknown or out of range; `detail` names it");
    }
    if is_secured {
        may("401", "There is no key with the request, or it is unknown, expired or revoked");
        may("403", "The key's scopes do not allow this");
        may("429", "A limit of the project is reached; `Retry-After` says when to try again");
    }
    if has_body {
        may("408", "The body came too slowly or ended early");
        may("413", "The body is larger than allowed");
        may("415", "The body's media type or encoding is not one this route reads");
        may("422", "A limit of the project does not allow it, or the content is not what was declared");
    }
    if is_secured || takes {
        may("500", "The hub failed, or could not read or write its records");
        may("503", "The hub is stopping");
    }
    if method == "head" {
        // An answer to HEAD has no body, whatever its type says.
        for answer in answers.values_mut().filter_map(Value::as_object_mut) {
            answer.remove("content");
        }
    }
}

/// Problems say that they are problems.
fn rename_problems(answer: &mut Value) {
    let Some(content) = answer.get_mut("content").and_then(Value::as_object_mut) else { return };
    let is_problem = |media: &Value| media.pointer("/schema/$ref").and_then(Value::as_str) == Some(PROBLEM);
    if let Some(media) = content.get("application/json").filter(|media| is_problem(media)).cloned() {
        content.remove("application/json");
        content.insert(PROBLEM_TYPE.to_owned(), media);
    }
}

/// A refused request is a problem also where a job that failed is a document.
fn admit_problem(answer: &mut Value) {
    let Some(content) = answer.get_mut("content").and_then(Value::as_object_mut) else { return };
    content.entry(PROBLEM_TYPE).or_insert_with(|| json!({ "schema": { "$ref": PROBLEM } }));
}

/// A body that may be left out is not therefore `null`.
fn describe_body(body: &mut Map<String, Value>) {
    describe_bytes(body.get_mut("content"));
    let mut optional = false;
    for (_, media) in members(body.get_mut("content")) {
        let choices = media.pointer("/schema/oneOf").and_then(Value::as_array);
        let is_null = |choice: &&Value| choice.get("type").and_then(Value::as_str) == Some("null");
        let Some(choices) = choices.filter(|choices| choices.iter().any(|choice| is_null(&choice))) else { continue };
        if let Some(only) = choices.iter().find(|choice| !is_null(choice)).cloned() {
            optional = true;
            if let Some(media) = media.as_object_mut() {
                media.insert("schema".to_owned(), only);
            }
        }
    }
    if optional {
        body.insert("required".to_owned(), Value::Bool(false));
    }
}

/// What is neither JSON nor text is bytes.
fn describe_bytes(content: Option<&mut Value>) {
    for (kind, media) in members(content) {
        let is_text = kind.starts_with("text/") || kind.contains("json") || kind.contains("openmetrics");
        if let (false, Some(media)) = (is_text, media.as_object_mut()) {
            media.insert("schema".to_owned(), json!({ "type": "string", "format": "binary" }));
        }
    }
}

/// What a parameter of this name may be, wherever it stands.
fn describe(path: &str, parameter: &mut Value) {
    let name = parameter.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let Some(schema) = parameter.get_mut("schema").and_then(Value::as_object_mut) else { return };
    // What may be left out may not therefore be `null`: a query has no such value.
    if let Some(kind) = schema.get_mut("type")
        && let Some(one) = kind.as_array().and_then(|kinds| kinds.iter().find(|kind| *kind != "null")).cloned()
    {
        *kind = one;
    }
    // The format says 63 bits; what is read has 64.
    if schema.get("format").and_then(Value::as_str) == Some("int64") && schema.contains_key("minimum") {
        schema.remove("format");
        schema.insert("maximum".to_owned(), json!(u64::MAX));
    }
    for (key, value) in rule(path, &name).as_ref().and_then(Value::as_object).into_iter().flatten() {
        schema.insert(key.clone(), value.clone());
    }
}

/// What is known of a parameter beyond its type.
fn rule(path: &str, name: &str) -> Option<Value> {
    let under = |prefix: &str| path.starts_with(prefix);
    let rule = match name {
        "digest" => json!({ "pattern": DIGEST }),
        "id" if under("/api/v0/jobs") => json!({ "pattern": JOB }),
        "id" if under("/api/v0/agents") => json!({ "pattern": DIGEST }),
        "job" if under("/api/v0/ledger") => json!({ "pattern": JOB }),
        "before" if path == "/api/v0/jobs" => json!({ "pattern": JOB }),
        "before" if path == "/api/v0/blobs" => json!({ "pattern": DIGEST }),
        "after" if path == "/api/v0/payouts" => json!({ "pattern": DIGEST }),
        "after" if path == "/api/v0/kv" || path == "/api/v0/vmem" => json!({ "pattern": WORD }),
        "prefix" | "after" if under("/api/v0/kv/") => json!({ "pattern": PREFIX, "maxLength": KEY_BYTES_MAX }),
        "namespace" if under("/api/v0/kv") => json!({ "pattern": WORD }),
        "key" if under("/api/v0/kv") => json!({ "pattern": KEY, "maxLength": KEY_BYTES_MAX }),
        "name" if under("/api/v0/vmem") => json!({ "pattern": WORD }),
        "version" if under("/api/v0/vmem") => json!({ "pattern": "^([1-9][0-9]{0,15}|latest)$" }),
        "status" if path == "/api/v0/jobs" => json!({ "enum": ["RUNNING", "COMPLETED", "FAILED", "CANCELLED"] }),
        "state" if path == "/api/v0/kernels" => {
            json!({ "enum": ["pending", "admitted", "refused", "deprecated", "yanked"] })
        }
        "kind" if path == "/api/v0/ledger" => json!({ "enum": Kind::ALL.map(Kind::as_str) }),
        "format" => json!({ "enum": ["json", "csv", "parquet"] }),
        "from" | "to" if path == "/api/v0/usage" => json!({ "pattern": DAY }),
        "limit" => json!({ "minimum": 1, "maximum": 1000 }),
        "ttl_s" => json!({ "minimum": 1, "maximum": 315_360_000 }),
        "Idempotency-Key" => json!({ "pattern": "^[!-~]{1,255}$" }),
        _ => return None,
    };
    Some(rule)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn every_secured_route_says_who_is_refused_and_problems_have_their_type() {
        let document = serde_json::to_value(super::super::description()).unwrap();
        let (mut routes, mut names) = (0, std::collections::BTreeSet::new());
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let answers = operation["responses"].as_object().unwrap();
                let name = operation["operationId"].as_str().unwrap();
                assert!(names.insert(name.to_owned()), "{name} is the name of two routes");
                if operation.get("security").is_some() {
                    assert!(answers.contains_key("401") && answers.contains_key("429"), "{method} {path}");
                    routes += 1;
                }
                for (status, answer) in answers {
                    let plain = answer.pointer("/content/application~1json/schema/$ref");
                    assert_ne!(plain.and_then(Value::as_str), Some(PROBLEM), "{method} {path} {status}");
                }
            }
        }
        assert!(routes > 20, "{routes} routes with a key");
        let digest = document["paths"]["/api/v0/blobs/{digest}"]["get"]["parameters"].as_array().unwrap();
        assert!(digest.iter().any(|parameter| parameter["schema"]["pattern"] == DIGEST), "{digest:#?}");
    }
}
