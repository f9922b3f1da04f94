//! The OpenAPI document, completed: what holds for all routes alike is said here once, and not beside each of them.
//!
//! Works on the document's JSON, where parameters, bodies and answers of every route look the same.

mod bodies;
mod parameters;

use serde_json::{Map, Value, json};
use utoipa::openapi::OpenApi;

/// A BLAKE3 digest.
const DIGEST: &str = "^[0-9a-f]{64}$";
/// Where problems are described.
const PROBLEM: &str = "#/components/schemas/ProblemBody";
/// Their media type (RFC 9457).
const PROBLEM_TYPE: &str = "application/problem+json";

/// Routes that are read as another is, whose path has more steps.
const LIKE: [(&str, &str); 1] = [("/api/v0/vmem/{name}", "/api/v0/vmem/{name}/{version}")];

/// The document with the answers that any route can give, problems under their media type, and parameters and bodies
/// described by the rules that handlers go by.
#[must_use]
pub fn completed(openapi: &OpenApi) -> Value {
    let mut document = serde_json::to_value(openapi).unwrap_or_default();
    name_steps(&mut document);
    for (path, model) in LIKE {
        liken(&mut document, path, model);
    }
    for (path, item) in members(document.pointer_mut("/paths")) {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            if let Some(operation) = operation.as_object_mut() {
                complete(path, method, operation);
            }
        }
    }
    if let Some(schemas) = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut) {
        bodies::describe(schemas);
    }
    document
}

/// A number's format says 63 bits, or 31; what is read has 64, or 32.
fn unbounded(schema: &mut Map<String, Value>) {
    let largest = match schema.get("format").and_then(Value::as_str) {
        Some("int64") => u64::MAX,
        Some("int32") => u64::from(u32::MAX),
        _ => return,
    };
    if schema.contains_key("minimum") {
        schema.remove("format");
        schema.entry("maximum").or_insert_with(|| json!(largest));
    }
}

/// A path's last step may hold several: the router writes it `{*key}`, the document `{key}`.
fn name_steps(document: &mut Value) {
    let Some(paths) = document.pointer_mut("/paths").and_then(Value::as_object_mut) else { return };
    let named = core::mem::take(paths).into_iter().map(|(path, item)| (path.replace("{*", "{"), item));
    *paths = named.collect();
}

/// Gives a route the answers of another, and those of its parameters that are no steps of a path.
fn liken(document: &mut Value, path: &str, model: &str) {
    let place = |path: &str, method: &str| format!("/paths/{}/{method}", path.replace('~', "~0").replace('/', "~1"));
    for method in ["get", "head"] {
        let Some(model) = document.pointer(&place(model, method)).cloned() else { continue };
        let Some(operation) = document.pointer_mut(&place(path, method)).and_then(Value::as_object_mut) else {
            continue;
        };
        operation.insert("responses".to_owned(), model.get("responses").cloned().unwrap_or_default());
        let parameters = model.get("parameters").and_then(Value::as_array).into_iter().flatten();
        let more = parameters.filter(|parameter| parameter.get("in").is_some_and(|place| place != "path")).cloned();
        if let Some(own) = operation.get_mut("parameters").and_then(Value::as_array_mut) {
            own.extend(more);
        }
    }
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
        parameters::describe((method, path), parameter);
    }
    let is_secured = operation.get("security").and_then(Value::as_array).is_some_and(|all| !all.is_empty());
    let has_body = operation.contains_key("requestBody");
    let takes = has_body || operation.contains_key("parameters");
    if let Some(body) = operation.get_mut("requestBody").and_then(Value::as_object_mut) {
        describe_body(body);
        bodies::name(path, body.get_mut("content"));
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
        may("422", "It can be read, and what it says cannot be done: it contradicts itself, a limit, or what it names");
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn every_secured_route_says_who_is_refused_and_problems_have_their_type() {
        let document = super::super::description();
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
        for (path, model) in LIKE {
            let (own, model) = (&document["paths"][path]["get"], &document["paths"][model]["get"]);
            assert!(own["responses"]["200"].is_object() && own["responses"] == model["responses"], "{own:#}");
            let count = |operation: &Value| operation["parameters"].as_array().unwrap().len();
            assert_eq!(count(own) + 1, count(model), "{own:#}");
        }
    }
}
