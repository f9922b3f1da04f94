//! Kernels made on the spot: a core module in text form, the whole kernel interface around it, and a manifest.

use forge_contract::manifest::{Golden, INTERFACE, Manifest, SECTION};
use forge_contract::{Digest, JobId};
use forge_lifecycle::plan::{Kernel, golden_task};
use forge_sandbox::engine::Backend;
use forge_sandbox::{Inputs, local};
use serde_json::{Value, json};

const SHELL: &str = include_str!("../hostile/kernels/shell.wat");
/// Answers with the number of items it was given.
pub const HONEST: &str = include_str!("../hostile/kernels/honest.wat");

/// A component around a core module, without a manifest. `imports` stand before it, `arguments` give them to it.
///
/// # Panics
/// The text is none.
#[must_use]
pub fn component(imports: &str, arguments: &str, core: &str) -> Vec<u8> {
    let text = SHELL.replace("@IMPORTS@", imports).replace("@ARGUMENTS@", arguments).replace("@CORE@", core);
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
}

/// A component around [`HONEST`] with more in the module, so that its bytes are its own.
#[must_use]
pub fn honest(more: &str) -> Vec<u8> {
    component("", "", &format!("{HONEST}{more}"))
}

/// The manifest of a kernel that counts: `count.v1` with `items` in units of 10.
#[must_use]
pub fn manifest(name: &str, version: u32) -> Value {
    json!({
        "name": name, "version": version, "interface": INTERFACE, "summary": "Counts.",
        "profiles": { "count.v1": {
            "summary": "Counts its items.",
            "args": {
                "type": "object", "additionalProperties": false, "required": ["items"],
                "properties": { "items": { "type": "integer", "minimum": 1, "maximum": 1_000_000 } }
            },
            "stages": [{
                "name": "count", "split": { "range": { "total": "items", "unit": 10 } },
                "parts": [{ "name": "work", "kind": "count", "counts_items": true }],
                "limits": { "fuel": 1_000_000_000u64, "memory_bytes": 1 << 20, "output_bytes": 4096 },
                "fuel_expected": 1000
            }],
            "goldens": []
        }}
    })
}

/// The component with a manifest behind it.
#[must_use]
pub fn with_manifest(mut component: Vec<u8>, manifest: &Value) -> Vec<u8> {
    let text = manifest.to_string();
    let mut payload = leb(SECTION.len());
    payload.extend_from_slice(SECTION.as_bytes());
    payload.extend_from_slice(text.as_bytes());
    component.push(0);
    component.extend(leb(payload.len()));
    component.extend(payload);
    component
}

/// A number as WebAssembly writes it.
#[must_use]
pub fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(number & 0x7f).unwrap_or(0);
        number >>= 7;
        bytes.push(if number > 0 { low | 0x80 } else { low });
        if number == 0 {
            return bytes;
        }
    }
}

/// A golden of `count.v1`: unit `unit` of `items`, with an answer nobody has looked at.
///
/// # Panics
/// Never: it has every field.
#[must_use]
pub fn guessed(items: u64, unit: u64) -> Golden {
    let fields = json!({
        "stage": "count", "args": { "items": items }, "seed": "S", "unit": unit, "digest": Digest::of(b"?"), "fuel": 1
    });
    serde_json::from_value(fields).expect("these are a golden's fields")
}

/// The manifest with true goldens of these units: each is run here.
///
/// # Panics
/// A unit fails.
#[must_use]
pub fn recorded(component: &[u8], manifest: Value, units: &[(u64, u64)]) -> Value {
    recorded_of(component, manifest, units.iter().map(|(items, unit)| guessed(*items, *unit)).collect())
}

/// The manifest with these goldens, their answers made true: each is run here.
///
/// # Panics
/// A unit fails.
#[must_use]
pub fn recorded_of(component: &[u8], mut manifest: Value, mut goldens: Vec<Golden>) -> Value {
    let compiled = local::compile(component, Backend::CraneliftSpeed).unwrap_or_else(|error| panic!("{error}"));
    let parsed: Manifest = serde_json::from_value(manifest.clone()).expect("a manifest");
    let kernel = Kernel { digest: Digest::of(component), bytes: component.len() as u64, manifest: parsed };
    for golden in &mut goldens {
        let task = golden_task(&kernel, "count.v1", golden, JobId::from_bits(1)).unwrap_or_else(|e| panic!("{e}"));
        let mut inputs = Inputs::none();
        golden.reads().into_iter().for_each(|(input, bytes)| inputs.add(&input, bytes.into()));
        let run = local::run_unit(&compiled, &task, golden.unit, &inputs).unwrap_or_else(|e| panic!("{e}"));
        (golden.digest, golden.fuel) = (run.fragment.digest(), run.fuel);
    }
    if let Some(place) = manifest.pointer_mut("/profiles/count.v1/goldens") {
        *place = json!(goldens);
    }
    manifest
}

/// An honest kernel with two true goldens. `more` makes its bytes its own.
#[must_use]
pub fn kernel(name: &str, version: u32, more: &str) -> Vec<u8> {
    let bare = honest(more);
    let manifest = recorded(&bare, manifest(name, version), &[(25, 0), (25, 2)]);
    with_manifest(bare, &manifest)
}

/// A contract on a kernel of [`manifest`].
#[must_use]
pub fn contract(name: &str, version: u32, items: u64) -> Value {
    json!({
        "ctx": {}, "op": { "name": name, "version": version, "profile": "count.v1" },
        "seed": { "mode": "explicit", "value": "S" }, "policy": { "verify": "none" }, "args": { "items": items }
    })
}
