#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::cast_possible_truncation)]
use super::*;

fn built(name: &str) -> Vec<u8> {
    let path = format!("{}/../../workloads/dist/{name}.wasm", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).unwrap()
}

#[test]
fn the_built_kernels_are_admitted() {
    for name in ["gemm@1", "mc@1", "noop@1"] {
        let bytes = built(name);
        let admitted = inspect(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(admitted.manifest.label(), name);
        assert_eq!(admitted.digest, Digest::of(&bytes));
    }
}

const MANIFEST: &str = r#"{"name":"k","version":1,"interface":"forgepool:kernel@1.0.0","summary":"s","profiles":{"p":{"summary":"s",
"args":{"type":"object","properties":{"n":{"type":"integer"}}},"stages":[{"name":"a","split":{"range":{"total":"n","unit":1}},
"parts":[{"name":"c","kind":"count"}],"limits":{"fuel":10,"memory_bytes":65536,"output_bytes":10},"fuel_expected":5}]}}}"#;

fn component(body: &str) -> Vec<u8> {
    wat::parse_str(format!("(component {body})")).unwrap()
}

fn with_manifest(mut component: Vec<u8>, manifest: &str) -> Vec<u8> {
    let mut payload = leb(SECTION.len());
    payload.extend_from_slice(SECTION.as_bytes());
    payload.extend_from_slice(manifest.as_bytes());
    component.push(0);
    component.extend(leb(payload.len()));
    component.extend(payload);
    component
}

fn leb(mut n: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while n >= 0x80 {
        bytes.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
    bytes
}

fn refusal(bytes: &[u8]) -> AdmitError {
    inspect(bytes).expect_err("refused")
}

#[test]
fn what_is_no_component_is_named() {
    assert_eq!(refusal(&wat::parse_str("(module)").unwrap()), AdmitError::CoreModule);
    let elf = refusal(b"\x7fELF\x02\x01\x01\0rest");
    assert!(matches!(&elf, AdmitError::NotWasm { guess: "a native program or precompiled code", .. }), "{elf}");
    assert!(matches!(refusal(b""), AdmitError::NotWasm { guess: "nothing", .. }));
    assert!(matches!(refusal(&vec![0; 17 << 20]), AdmitError::Size { found } if found == 17 << 20));
    let cut = built("noop@1");
    assert!(matches!(refusal(&cut[..cut.len() / 2]), AdmitError::Invalid { .. }));
}

#[test]
fn imports_are_refused_by_name_with_the_fix() {
    for (name, piece) in [
        ("wasi:clocks/monotonic-clock@0.2.0", "no clock"),
        ("wasi:random/random@0.2.6", "no entropy"),
        ("wasi:sockets/tcp@0.2.0", "no network"),
        ("wasi:http/outgoing-handler@0.2.0", "no network"),
        ("wasi:filesystem/types@0.2.0", "no files"),
        ("wasi:cli/stdin@0.2.0", "only output"),
        ("wasi:cli/stdout@0.3.0", "only output"),
        ("forgepool:kernel/inputs@2.0.0", "version 1.0.0"),
        ("acme:db/store@1.0.0", "no such import"),
    ] {
        let refused = refusal(&component(&format!(r#"(import "{name}" (instance))"#)));
        let AdmitError::Import { name: found, .. } = &refused else { panic!("{name}: {refused}") };
        assert_eq!(found, name);
        assert!(refused.to_string().contains(piece), "{refused}");
    }
    // A bare function is no import of ours whatever its name.
    assert!(matches!(refusal(&component(r#"(import "now" (func (result u64)))"#)), AdmitError::Import { .. }));
    // The harmless ones pass on to the next rule.
    for name in ["forgepool:kernel/inputs@1.0.0", "wasi:cli/stdout@0.2.6", "wasi:io/streams@0.2.0"] {
        assert_eq!(refusal(&component(&format!(r#"(import "{name}" (instance))"#))), AdmitError::NoUnit);
    }
}

#[test]
fn a_missing_or_wrong_interface_is_named() {
    assert_eq!(refusal(&component("")), AdmitError::NoUnit);
    let wrong = component(
        r#"(core module $m (func (export "execute") (param i32) (result i32) local.get 0))
           (core instance $i (instantiate $m))
           (func $f (param "task" u32) (result u32) (canon lift (core func $i "execute")))
           (instance $unit (export "execute" (func $f)))
           (export "forgepool:kernel/unit@1.0.0" (instance $unit))"#,
    );
    match refusal(&with_manifest(wrong, MANIFEST)) {
        AdmitError::UnitType { found, .. } => assert_eq!(found, "func(task: u32) -> u32"),
        other => panic!("{other}"),
    }
}

#[test]
fn a_check_is_exported_just_where_the_manifest_says_so() {
    let says = MANIFEST.replace("\"summary\":\"s\",\"profiles\"", "\"summary\":\"s\",\"checks\":true,\"profiles\"");
    assert_ne!(says, MANIFEST);
    let (checked, plain) = (stripped(&built("gemm@1")), stripped(&built("noop@1")));
    assert!(inspect(&with_manifest(checked.clone(), &says)).unwrap().manifest.checks);
    let unsaid = refusal(&with_manifest(checked, MANIFEST));
    assert_eq!(unsaid, AdmitError::ChecksUnsaid);
    assert!(unsaid.to_string().contains("write `checks = true` in kernel.toml"));
    let missing = refusal(&with_manifest(plain, &says));
    assert_eq!(missing, AdmitError::NoChecks);
    assert!(missing.to_string().contains("`checked-kernel`"));
    for refused in [unsaid, missing] {
        assert_eq!(refused.code(), FailureCode::RequestComponentExport);
    }
}

#[test]
fn a_check_of_another_type_is_named() {
    let other = component(
        r#"(core module $m (func (export "check") (param i32) (result i32) local.get 0))
           (core instance $i (instantiate $m))
           (func $f (param "task" u32) (result u32) (canon lift (core func $i "check")))
           (instance $checks (export "check" (func $f)))
           (export "forgepool:kernel/checks@1.0.0" (instance $checks))"#,
    );
    let types = Validator::new().validate_all(&other).unwrap();
    match shape::check_checks(&types) {
        Err(AdmitError::CheckType { found, .. }) => assert_eq!(found, "func(task: u32) -> u32"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_manifest_must_be_there_once_and_hold() {
    let bare = stripped(&built("noop@1"));
    assert_eq!(refusal(&bare), AdmitError::ManifestCount { found: 0 });
    let one = with_manifest(bare.clone(), MANIFEST);
    assert_eq!(inspect(&one).unwrap().manifest.label(), "k@1");
    assert_eq!(refusal(&with_manifest(one, MANIFEST)), AdmitError::ManifestCount { found: 2 });
    let refused = |manifest: String| refusal(&with_manifest(bare.clone(), &manifest));
    assert!(matches!(refused("{}".into()), AdmitError::Manifest(_)));
    assert!(matches!(refused(MANIFEST.replace("\"k\"", "\"K\"")), AdmitError::Manifest(ManifestError::Rule { .. })));
    let schema = refused(MANIFEST.replace("\"integer\"", "\"intger\""));
    assert!(matches!(&schema, AdmitError::Schema { profile, .. } if profile == "p"), "{schema}");
    let split = refused(MANIFEST.replace("\"total\":\"n\"", "\"total\":\"m\""));
    assert_eq!(
        split.to_string(),
        "custom section 'forgepool:manifest': /profiles/p/stages/0/split: the schema of args declares no 'm'"
    );
    assert!(matches!(refused(" ".repeat(MANIFEST_BYTES_MAX + 1)), AdmitError::ManifestSize { .. }));
}

/// The component without its manifest.
fn stripped(component: &[u8]) -> Vec<u8> {
    let mut kept = component.to_vec();
    for payload in Parser::new(0).parse_all(component) {
        if let Payload::CustomSection(section) = payload.unwrap()
            && section.name() == SECTION
        {
            let range = section.range();
            let size = leb(range.end - range.start).len();
            kept.drain(range.start - size - 1..range.end);
        }
    }
    kept
}

#[test]
fn what_is_too_heavy_is_not_even_validated() {
    let module = |body: &str| refusal(&component(&format!("(core module {body})")));
    let limit = |body: &str| match module(body) {
        AdmitError::Limit(error) => (error.limit, error.found),
        other => panic!("{other}"),
    };
    assert_eq!(limit("(memory 1)"), (Limit::MemoryBytes, None));
    assert_eq!(limit("(memory 1 8193)"), (Limit::MemoryBytes, Some(8193 << 16)));
    assert_eq!(limit("(table 1 funcref)"), (Limit::TableElements, None));
    assert_eq!(limit("(table 1 10001 funcref)"), (Limit::TableElements, Some(10_001)));
    assert_eq!(limit(&format!("(type (func (param {})))", "i32 ".repeat(101))), (Limit::Params, Some(101)));
    assert_eq!(limit(&format!("(func (local {}))", "i64 ".repeat(1001))), (Limit::Locals, Some(1001)));
    assert_eq!(limit(&format!("(func {})", "nop ".repeat(140_000))).0, Limit::BodyBytes);
    assert_eq!(limit(&"(func)".repeat(20_001)), (Limit::Functions, Some(20_001)));
    let exports: String = (0..20_001).map(|name| format!("(export \"{name}\" (func 0))")).collect();
    assert_eq!(limit(&format!("(func) {exports}")), (Limit::Exports, Some(20_001)));
    assert_eq!(
        limit(&format!("(func (param i32) block local.get 0 br_table {} end)", "0 ".repeat(4_098))).0,
        Limit::BranchTargets
    );
    // Parameters are locals too; each function is weighed by itself.
    let levels = |depth: usize| format!("{}{}", "block ".repeat(depth), "end ".repeat(depth));
    let nested = |depth: usize| {
        format!("(func (param {}) (local {}) {})", "i64 ".repeat(100), "i64 ".repeat(900), levels(depth))
    };
    assert_eq!(limit(&nested(101)), (Limit::Merges, Some(101_000)));
    let fine = refusal(&component(&format!("(core module {})", nested(100).repeat(3))));
    assert_eq!(fine, AdmitError::NoUnit);
    let modules = refusal(&component(&"(core module)".repeat(17)));
    assert_eq!(modules, AdmitError::Limit(LimitError { limit: Limit::Modules, found: Some(17), place: None }));
    let nested = format!("{}{}", "(component ".repeat(9), ")".repeat(9));
    assert!(matches!(refusal(&component(&nested)), AdmitError::Limit(LimitError { limit: Limit::Nesting, .. })));
    assert!(matches!(refusal(&nest(200)), AdmitError::Limit(LimitError { limit: Limit::Nesting, found: Some(9), .. })));
}

/// A component in a component, and so on: section 4 holds the inner one.
fn nest(levels: usize) -> Vec<u8> {
    let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
    if levels > 0 {
        let inner = nest(levels - 1);
        bytes.push(4);
        bytes.extend(leb(inner.len()));
        bytes.extend(inner);
    }
    bytes
}

#[test]
fn features_that_are_off_are_invalid() {
    for body in [
        "(memory 1 2 shared)",
        "(memory i64 1 2)",
        "(func (param v128 v128 v128) (result v128) local.get 0 local.get 1 local.get 2 f32x4.relaxed_madd)",
        "(type (struct))",
        "(tag)",
        "(func $f return_call $f)",
    ] {
        let refused = refusal(&component(&format!("(core module {body})")));
        assert!(matches!(refused, AdmitError::Invalid { .. }), "{body}: {refused}");
    }
}

#[test]
fn a_section_claims_no_more_than_its_bytes_could_hold() {
    for (section, name) in
        [(1u8, "types"), (2, "imports"), (3, "functions"), (6, "globals"), (7, "exports"), (9, "elements")]
    {
        // 541,357 items in four bytes.
        let module = [&b"\0asm\x01\0\0\0"[..], &[section, 4, 0xad, 0x85, 0x21, 0]].concat();
        let length = u8::try_from(module.len()).unwrap();
        let component = [&b"\0asm\x0d\0\x01\0"[..], &[1, length], &module].concat();
        let found = refusal(&component).to_string();
        assert!(found.contains("a section of 4 bytes claims 541357 items"), "{name}: {found}");
    }
}
