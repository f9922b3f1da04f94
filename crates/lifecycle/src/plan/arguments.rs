//! Arguments against a profile's schema: defaults filled in, every mistake answered with its place and its rule.

use jsonschema::error::ValidationErrorKind;
use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use serde_json::{Map, Value};

use forge_contract::{Failure, FailureCode};

/// Deepest nesting into which defaults are filled.
const DEPTH_MAX: usize = 32;

/// Why a profile's schema is no usable schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("args: {reason}")]
pub struct SchemaError {
    /// What the validator says.
    pub reason: String,
}

/// Whether a profile's argument schema can be used: valid 2020-12, no reference outside itself, linear patterns.
///
/// # Errors
/// `SchemaError` with the validator's words.
pub fn check_schema(schema: &Value) -> Result<(), SchemaError> {
    validator(schema).map(|_| ())
}

fn validator(schema: &Value) -> Result<Validator, SchemaError> {
    // `regex` instead of the default engine: linear time whatever pattern a kernel's author wrote.
    let patterns = PatternOptions::regex().size_limit(1 << 20).dfa_size_limit(1 << 20);
    let options = jsonschema::options().with_draft(Draft::Draft202012).with_pattern_options(patterns).offline();
    options.build(schema).map_err(|e| SchemaError { reason: e.to_string() })
}

/// The JSON pointer of a top-level argument.
pub fn pointer(argument: &str) -> String {
    format!("/args/{}", argument.replace('~', "~0").replace('/', "~1"))
}

/// The arguments with defaults filled in, valid against the schema.
///
/// # Errors
/// `request.arguments` at the first place (in pointer order) that breaks a rule.
pub fn complete(schema: &Value, given: &Map<String, Value>) -> Result<Value, Failure> {
    only_known(schema, given)?;
    let mut args = Value::Object(given.clone());
    fill(schema, schema, &mut args, 0);
    let validator = validator(schema).map_err(|e| {
        Failure::new(FailureCode::RequestUnknownOp, format!("the kernel's argument schema is unusable: {}", e.reason))
            .at("/op/profile")
    })?;
    let errors = validator.iter_errors(&args);
    let first = errors.min_by_key(|e| (e.instance_path().to_string(), e.schema_path().to_string()));
    match first {
        Some(error) => Err(explain(schema, &error)),
        None => Ok(args),
    }
}

/// Refuses top-level names the schema does not declare, also where its author forgot `additionalProperties`.
fn only_known(schema: &Value, given: &Map<String, Value>) -> Result<(), Failure> {
    let open = ["patternProperties", "$ref", "allOf", "anyOf", "oneOf"].iter().any(|word| schema.get(word).is_some());
    if open || schema.get("additionalProperties").is_some_and(|value| *value != Value::Bool(false)) {
        return Ok(());
    }
    let declared = schema.get("properties").and_then(Value::as_object);
    let known: Vec<&str> = declared.map(|map| map.keys().map(String::as_str).collect()).unwrap_or_default();
    let Some(unknown) = given.keys().find(|name| !known.contains(&name.as_str())) else { return Ok(()) };
    let fix = forge_contract::envelope::suggestion(unknown, &known);
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    let detail = format!("args.{unknown}: no such argument; expected one of {known}{fix}");
    Err(Failure::new(FailureCode::RequestArguments, detail).at(pointer(unknown)))
}

/// Fills declared defaults into objects and their nested objects and arrays.
fn fill(root: &Value, schema: &Value, value: &mut Value, depth: usize) {
    if depth > DEPTH_MAX {
        return;
    }
    let schema = referred(root, schema);
    match value {
        Value::Object(map) => {
            for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
                let property = referred(root, property);
                if let (None, Some(default)) = (map.get(name), property.get("default")) {
                    map.insert(name.clone(), default.clone());
                }
                if let Some(inner) = map.get_mut(name) {
                    fill(root, property, inner, depth + 1);
                }
            }
        }
        Value::Array(items) => {
            if let Some(item) = schema.get("items") {
                items.iter_mut().for_each(|value| fill(root, item, value, depth + 1));
            }
        }
        _ => {}
    }
}

/// The schema a local reference (`#/$defs/...`) stands for.
fn referred<'s>(root: &'s Value, schema: &'s Value) -> &'s Value {
    let target = schema.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix('#'));
    target.and_then(|pointer| root.pointer(pointer)).unwrap_or(schema)
}

fn explain(schema: &Value, error: &ValidationError<'_>) -> Failure {
    let at = error.instance_path().to_string();
    let (path, text) = match error.kind() {
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            let path = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
            let rule = rule_at(schema, &path).unwrap_or_else(|| "a value".into());
            (path, format!("required and missing; expected {rule}"))
        }
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            let name = unexpected.iter().min().cloned().unwrap_or_default();
            (format!("{at}/{name}"), "no such argument".to_owned())
        }
        _ => {
            let text = rule_at(schema, &at).map_or_else(
                || error.to_string(),
                |rule| format!("expected {rule}, found {}", short(error.instance())),
            );
            (at, text)
        }
    };
    let name: String = path.split('/').skip(1).fold("args".to_owned(), |name, step| name + "." + step);
    Failure::new(FailureCode::RequestArguments, format!("{name}: {text}")).at(format!("/args{path}"))
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 60 { text } else { text.chars().take(60).chain("...".chars()).collect() }
}

/// The rule of the schema at a place, in words: "an integer from 1 to 10 (years)".
fn rule_at(schema: &Value, path: &str) -> Option<String> {
    let mut found = schema;
    for step in path.split('/').skip(1) {
        found = referred(schema, found);
        let by_name = found.get("properties").and_then(|p| p.get(step.replace("~1", "/").replace("~0", "~")));
        found = by_name.or_else(|| found.get("items"))?;
    }
    rule(referred(schema, found))
}

fn rule(schema: &Value) -> Option<String> {
    if let Some(options) = schema.get("enum").and_then(Value::as_array) {
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        return Some(format!("one of {}", options.join(", ")));
    }
    let mut text = match schema.get("type")?.as_str()? {
        "integer" => "an integer",
        "number" => "a number",
        "string" => "text",
        "boolean" => "true or false",
        "array" => "an array",
        "object" => "an object",
        _ => return None,
    }
    .to_owned();
    let limits = (schema.get("minimum"), schema.get("maximum"));
    if let (Some(min), Some(max)) = limits {
        text.push_str(&format!(" from {min} to {max}"));
    }
    let said = if limits.0.is_some() && limits.1.is_some() { &["minimum", "maximum"][..] } else { &[] };
    for (keyword, words) in [
        ("minimum", "at least"),
        ("exclusiveMinimum", "above"),
        ("maximum", "at most"),
        ("exclusiveMaximum", "below"),
        ("multipleOf", "a multiple of"),
        ("minLength", "characters at least"),
        ("maxLength", "characters at most"),
        ("minItems", "items at least"),
        ("maxItems", "items at most"),
        ("pattern", "matching"),
    ] {
        if let Some(limit) = schema.get(keyword).filter(|_| !said.contains(&keyword)) {
            text.push_str(&format!(", {words} {limit}"));
        }
    }
    let unit = schema.get("x-unit").and_then(Value::as_str);
    Some(unit.map_or_else(|| text.clone(), |unit| format!("{text} ({unit})")))
}
