//! Contracts for tests.

use serde_json::{Value, json};

use crate::binary;

/// The quickstart's contract, byte for byte as in `examples/quickstart.json` and the product's documentation.
///
/// # Panics
/// The file is not there.
#[must_use]
pub fn quickstart_text() -> String {
    let path = binary::root().join("examples/quickstart.json");
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The quickstart's contract.
///
/// # Panics
/// The file is no JSON.
#[must_use]
pub fn quickstart() -> Value {
    serde_json::from_str(&quickstart_text()).expect("examples/quickstart.json is JSON")
}

/// The quickstart's contract with another number of iterations.
#[must_use]
pub fn insurance(iterations: u64) -> Value {
    changed(quickstart(), &[("/args/iterations", json!(iterations))])
}

/// `contract` with the values at these JSON pointers replaced or added.
///
/// # Panics
/// A pointer's parent is not there.
#[must_use]
pub fn changed(mut contract: Value, changes: &[(&str, Value)]) -> Value {
    for (pointer, value) in changes {
        let (parent, name) = pointer.rsplit_once('/').expect("a JSON pointer begins with a slash");
        let parent = contract.pointer_mut(parent).unwrap_or_else(|| panic!("nothing at {parent}"));
        parent.as_object_mut().expect("only members of objects are changed").insert(name.to_owned(), value.clone());
    }
    contract
}

/// `contract` without the member at this JSON pointer.
///
/// # Panics
/// It is not there.
#[must_use]
pub fn without(mut contract: Value, pointer: &str) -> Value {
    let (parent, name) = pointer.rsplit_once('/').expect("a JSON pointer begins with a slash");
    let parent = contract.pointer_mut(parent).and_then(Value::as_object_mut);
    parent.and_then(|parent| parent.remove(name)).unwrap_or_else(|| panic!("nothing at {pointer}"));
    contract
}
