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
/// A day that every month has.
const DAY: &str = "^20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])$";
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

fn complete(path: &str, method: &str, operation: &mut Map<String, Value>) {
    for parameter in operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
        describe(path, parameter);
    }
    let is_secured = operation.get("security").and_then(Value::as_array).is_some_and(|all| !all.is_empty());
    let has_body = operation.contains_key("requestBody");
    let takes = has_body || operation.contains_key("parameters");
    let Some(answers) = operation.get_mut("responses").and_then(Value::as_object_mut) else { return };
    for answer in answers.values_mut() {
        rename_problems(answer);
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

/// What a parameter of this name may be, wherever it stands.
fn describe(path: &str, parameter: &mut Value) {
    let name = parameter.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let of_job = path.starts_with("/api/v0/jobs");
    let of_agent = path.starts_with("/api/v0/agents");
    let rule = match name.as_str() {
        "digest" => json!({ "pattern": DIGEST }),
        "id" if of_job => json!({ "pattern": JOB }),
        "id" if of_agent => json!({ "pattern": DIGEST }),
        "before" if path == "/api/v0/jobs" => json!({ "pattern": JOB }),
        "before" if path == "/api/v0/blobs" => json!({ "pattern": DIGEST }),
        "status" if path == "/api/v0/jobs" => json!({ "enum": ["RUNNING", "COMPLETED", "FAILED", "CANCELLED"] }),
        "job" => json!({ "pattern": JOB }),
        "after" if path == "/api/v0/payouts" => json!({ "pattern": DIGEST }),
        "kind" if path == "/api/v0/ledger" => json!({ "enum": Kind::ALL.map(Kind::as_str) }),
        "format" => json!({ "enum": ["json", "csv", "parquet"] }),
        "from" | "to" => json!({ "pattern": DAY }),
        "limit" => json!({ "minimum": 1, "maximum": 1000 }),
        _ => return,
    };
    let Some(schema) = parameter.get_mut("schema").and_then(Value::as_object_mut) else { return };
    // What may be left out may not therefore be `null`: a query has no such value.
    if let Some(kind) = schema.get_mut("type")
        && let Some(one) = kind.as_array().and_then(|kinds| kinds.iter().find(|kind| *kind != "null")).cloned()
    {
        *kind = one;
    }
    for (key, value) in rule.as_object().into_iter().flatten() {
        schema.insert(key.clone(), value.clone());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn every_secured_route_says_who_is_refused_and_problems_have_their_type() {
        let document = serde_json::to_value(super::super::description()).unwrap();
        let mut routes = 0;
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let answers = operation["responses"].as_object().unwrap();
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
