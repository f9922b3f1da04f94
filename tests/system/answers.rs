//! What tests read from answers.

use serde_json::Value;

/// Asserts that a job completed and gives the digest of its result.
pub fn digest(state: &Value) -> String {
    assert_eq!(state["status"], "COMPLETED", "{state:#}");
    assert_eq!(state["ok"], true, "{state:#}");
    state["hub"]["replay"]["result_digest"]
        .as_str()
        .unwrap_or_else(|| panic!("no result digest in {state:#}"))
        .to_owned()
}

/// The reduced output.
pub fn output(state: &Value) -> &Value {
    &state["hub"]["output"]
}

/// A number.
pub fn number(value: &Value, pointer: &str) -> f64 {
    value.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("no number at {pointer} in {value:#}"))
}
