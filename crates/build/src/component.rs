//! From a core module to a component that holds its manifest and imports nothing it may not.

use forge_contract::canon;
use forge_contract::manifest::{INTERFACE, Manifest, SECTION};
use wasmparser::{Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::Resolve;

use crate::seal;
use crate::sections::{is_component, push_custom, without_custom};

/// The interface package's text: `wit/kernel.wit`.
const WIT: &str = include_str!("../../../wit/kernel.wit");
const WORLD: &str = "kernel";
/// The world of a kernel that can check its units.
const CHECKED_WORLD: &str = "checked-kernel";
/// The core function that such a kernel exports.
const CHECK: &str = "forgepool:kernel/checks@1.0.0#check";

/// Why bytes are no kernel component.
#[derive(Debug, thiserror::Error)]
pub enum ComponentError {
    /// The text is no WebAssembly text.
    #[error("the text does not parse: {reason}")]
    Text {
        /// What the parser says.
        reason: String,
    },
    /// The binary breaks off or a section is not what it says.
    #[error("malformed binary at byte {at}")]
    Malformed {
        /// Offset in its module or component.
        at: usize,
    },
    /// The module does not fit the kernel interface.
    #[error("not a module of the world `{WORLD}`: {reason}")]
    World {
        /// What the encoder says.
        reason: String,
    },
    /// The component does not validate.
    #[error("invalid component: {reason}")]
    Invalid {
        /// What the validator says.
        reason: String,
    },
    /// Imports that do not exist for kernels.
    #[error("{}", refusals(names))]
    ForeignImports {
        /// The imports.
        names: Vec<String>,
    },
    /// An import of a core module that nothing here can satisfy.
    #[error("the module imports `{name}`: {why}")]
    ModuleImport {
        /// Module and field.
        name: String,
        /// What to do about it.
        why: &'static str,
    },
    /// The interface is not exported.
    #[error("the component does not export `{name}`")]
    MissingExport {
        /// The export.
        name: String,
    },
    /// A check is exported, and the manifest does not say so.
    #[error("the component exports `{name}`: write `checks = true` in kernel.toml")]
    ChecksUnsaid {
        /// The export.
        name: String,
    },
    /// The manifest breaks a rule.
    #[error("manifest: {reason}")]
    Manifest {
        /// The rule.
        reason: String,
    },
}

fn refusals(names: &[String]) -> String {
    let lines: Vec<String> = names.iter().map(|name| format!("imports {name}: {}", crate::advice(name))).collect();
    lines.join("\n")
}

/// Encodes a core module as a component. A module that does not name its world is taken to be of the world `kernel`:
/// it exports the interface by its canonical names. One that exports `check` is of the world `checked-kernel`, whatever
/// it says.
///
/// Imports of WASI preview 1 are sealed inside the component: a clock that stands still, an entropy source that traps,
/// no argument, no environment, no file.
///
/// **Determinism**: of the module's custom sections only the component types are read; none is kept.
///
/// # Errors
/// `ModuleImport` names an import that no kernel may have; `World` where imports and exports are not those of the world.
pub fn component_from_core(core: &[u8]) -> Result<Vec<u8>, ComponentError> {
    let world = |e: &dyn std::fmt::Debug| ComponentError::World { reason: format!("{e:?}") };
    let seals = check_module_imports(core)?;
    let mut core = without_custom(core, &|name| !name.starts_with("component-type"))?;
    if exports_check(&core)? {
        core = without_custom(&core, &|_| true)?;
        embed_world(&mut core, CHECKED_WORLD)?;
    } else if !names_world(&core)? {
        embed_world(&mut core, WORLD)?;
    }
    let mut encoder = ComponentEncoder::default().debug_names(false).module(&core).map_err(|e| world(&e))?;
    if seals {
        encoder = encoder.adapter(seal::PREVIEW1, &seal::module()?).map_err(|e| world(&e))?;
    }
    let component = encoder.encode().map_err(|e| world(&e))?;
    without_custom(&component, &|_| true)
}

/// Whether the module has a section that says which world it is of.
fn names_world(core: &[u8]) -> Result<bool, ComponentError> {
    Ok(without_custom(core, &|name| name.starts_with("component-type"))?.len() != core.len())
}

fn exports_check(core: &[u8]) -> Result<bool, ComponentError> {
    let invalid = |e: wasmparser::BinaryReaderError| ComponentError::Invalid { reason: e.to_string() };
    for payload in Parser::new(0).parse_all(core) {
        let Payload::ExportSection(exports) = payload.map_err(invalid)? else { continue };
        for export in exports {
            if export.map_err(invalid)?.name == CHECK {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn embed_world(core: &mut Vec<u8>, world: &str) -> Result<(), ComponentError> {
    let reason = |e: &dyn std::fmt::Debug| ComponentError::World { reason: format!("{e:?}") };
    let mut resolve = Resolve::default();
    let package = resolve.push_str("kernel.wit", WIT).map_err(|e| reason(&e))?;
    let world = resolve.select_world(&[package], Some(world)).map_err(|e| reason(&e))?;
    wit_component::embed_component_metadata(core, &resolve, world, StringEncoding::UTF8).map_err(|e| reason(&e))
}

/// Whether the module imports WASI preview 1, which is sealed; refuses what has no place in a kernel, by name.
fn check_module_imports(core: &[u8]) -> Result<bool, ComponentError> {
    let invalid = |e: wasmparser::BinaryReaderError| ComponentError::Invalid { reason: e.to_string() };
    let mut seals = false;
    for payload in Parser::new(0).parse_all(core) {
        let Payload::ImportSection(imports) = payload.map_err(invalid)? else { continue };
        for import in imports.into_imports() {
            let import = import.map_err(invalid)?;
            let why = match import.module {
                seal::PREVIEW1 => {
                    seals = true;
                    continue;
                }
                "env" => {
                    "the linker found no definition of it; define it in the kernel (there is no libc), or link the library that has it"
                }
                "wbg" | "__wbindgen_placeholder__" | "__wbindgen_externref_xform__" => {
                    "JavaScript does not exist here; turn off the feature of a dependency that uses wasm-bindgen (often `getrandom/js`, `uuid/js`, `chrono/wasmbind`)"
                }
                _ => continue,
            };
            return Err(ComponentError::ModuleImport { name: format!("{}::{}", import.module, import.name), why });
        }
    }
    Ok(seals)
}

/// Reads WebAssembly text: a component, or a core module that exports the kernel interface by its canonical names.
///
/// # Errors
/// `Text` where it does not parse, else as [`component_from_core`].
pub fn from_wat(text: &str) -> Result<Vec<u8>, ComponentError> {
    let bytes = wat::parse_str(text).map_err(|e| ComponentError::Text { reason: e.to_string() })?;
    from_binary(&bytes)
}

/// A component as it is, a core module made one.
///
/// # Errors
/// As [`component_from_core`].
pub fn from_binary(bytes: &[u8]) -> Result<Vec<u8>, ComponentError> {
    if is_component(bytes) { without_custom(bytes, &|name| name != SECTION) } else { component_from_core(bytes) }
}

/// The component with this manifest, in canonical JSON, as its last section; one that is there is replaced.
///
/// # Errors
/// `Manifest` where the manifest breaks a rule, `Malformed` where the bytes are no component.
pub fn embed_manifest(component: &[u8], manifest: &Manifest) -> Result<Vec<u8>, ComponentError> {
    if !is_component(component) {
        return Err(ComponentError::Malformed { at: 0 });
    }
    let broken = |reason: String| ComponentError::Manifest { reason };
    let json = canon::json(manifest).map_err(|e| broken(e.to_string()))?;
    Manifest::parse(json.as_bytes()).map_err(|e| broken(e.to_string()))?;
    let mut out = without_custom(component, &|name| name == SECTION)?;
    push_custom(&mut out, SECTION, json.as_bytes());
    Ok(out)
}

/// Checks that a component is valid, imports nothing foreign and exports the kernel interface.
///
/// # Errors
/// The first rule broken, imports by name.
pub fn check_interface(component: &[u8]) -> Result<(), ComponentError> {
    let invalid = |e: wasmparser::BinaryReaderError| ComponentError::Invalid { reason: e.to_string() };
    wasmparser::Validator::new().validate_all(component).map_err(invalid)?;
    let names = foreign_imports(component)?;
    if !names.is_empty() {
        return Err(ComponentError::ForeignImports { names });
    }
    let unit = interface("unit");
    if exports(component)?.contains(&unit) { Ok(()) } else { Err(ComponentError::MissingExport { name: unit }) }
}

/// Checks that a component exports `checks` just where its manifest says so.
///
/// # Errors
/// `MissingExport` or `ChecksUnsaid`.
pub fn check_checks(component: &[u8], manifest: &Manifest) -> Result<(), ComponentError> {
    let name = interface("checks");
    match (exports(component)?.contains(&name), manifest.checks) {
        (false, true) => Err(ComponentError::MissingExport { name }),
        (true, false) => Err(ComponentError::ChecksUnsaid { name }),
        _ => Ok(()),
    }
}

/// What a component exports, by name.
fn exports(component: &[u8]) -> Result<Vec<String>, ComponentError> {
    outermost(component, |payload, names| {
        if let Payload::ComponentExportSection(exports) = payload {
            for export in exports.clone() {
                names.push(export?.name.name.to_owned());
            }
        }
        Ok(())
    })
}

/// What a component imports that no kernel may have, by name, in its own order.
///
/// # Errors
/// `Invalid` where the bytes are no component.
pub fn foreign_imports(component: &[u8]) -> Result<Vec<String>, ComponentError> {
    let inputs = interface("inputs");
    let mut names = outermost(component, |payload, names| {
        if let Payload::ComponentImportSection(imports) = payload {
            for import in imports.clone() {
                names.push(import?.name.name.to_owned());
            }
        }
        Ok(())
    })?;
    names.retain(|name| *name != inputs && !is_harmless(name));
    Ok(names)
}

/// An interface of the package, in its version.
fn interface(name: &str) -> String {
    let (package, version) = INTERFACE.split_once('@').unwrap_or((INTERFACE, ""));
    format!("{package}/{name}@{version}")
}

/// Collects names from the sections of the outermost component.
fn outermost(
    component: &[u8],
    collect: impl Fn(&Payload<'_>, &mut Vec<String>) -> wasmparser::Result<()>,
) -> Result<Vec<String>, ComponentError> {
    let invalid = |e: wasmparser::BinaryReaderError| ComponentError::Invalid { reason: e.to_string() };
    let (mut depth, mut names) = (0_usize, Vec::new());
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(invalid)? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            payload if depth == 0 => collect(&payload, &mut names).map_err(invalid)?,
            _ => {}
        }
    }
    Ok(names)
}

/// The subset of WASI that the sandbox links: output into a bounded log, empty arguments and environment, exit.
fn is_harmless(import: &str) -> bool {
    const HARMLESS: [&str; 7] = [
        "wasi:cli/environment",
        "wasi:cli/exit",
        "wasi:cli/stdout",
        "wasi:cli/stderr",
        "wasi:io/error",
        "wasi:io/poll",
        "wasi:io/streams",
    ];
    import.split_once('@').is_some_and(|(name, version)| version.starts_with("0.2.") && HARMLESS.contains(&name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    /// A core module that answers with garbage, but under the right names.
    const CORE: &str = r#"(module
        (memory (export "memory") 1 1)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024)
        (func (export "forgepool:kernel/unit@1.0.0#execute")
            (param i32 i32 i32 i32 i32 i32 i64 i64 i32 i64 i64 i32 i32 i32 i32) (result i32) unreachable))"#;

    fn manifest() -> Manifest {
        let json = serde_json::json!({
            "name": "t", "version": 1, "interface": INTERFACE, "summary": "s",
            "profiles": { "p": { "summary": "s", "args": {"type": "object"}, "stages": [{
                "name": "s", "split": "once", "parts": [{"name": "x", "kind": "count"}],
                "limits": {"fuel": 100, "memory_bytes": 65536, "output_bytes": 100}, "fuel_expected": 50
            }]}}
        });
        Manifest::parse(json.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn text_becomes_a_component_without_imports() {
        let component = from_wat(CORE).unwrap();
        check_interface(&component).unwrap();
        assert!(!component.windows(9).any(|w| w == b"producers"));
    }

    /// The same with a check.
    fn checked() -> String {
        CORE.trim_end().strip_suffix(')').unwrap().to_owned()
            + r#"(func (export "forgepool:kernel/checks@1.0.0#check") (param i32) (result i32) unreachable))"#
    }

    #[test]
    fn a_module_that_checks_is_of_the_other_world() {
        let (plain, checked) = (from_wat(CORE).unwrap(), from_wat(&checked()).unwrap());
        check_interface(&checked).unwrap();
        let says = |checks| Manifest { checks, ..manifest() };
        check_checks(&checked, &says(true)).unwrap();
        check_checks(&plain, &says(false)).unwrap();
        let name = "forgepool:kernel/checks@1.0.0";
        assert!(
            matches!(check_checks(&plain, &says(true)), Err(ComponentError::MissingExport { name: n }) if n == name)
        );
        assert!(
            matches!(check_checks(&checked, &says(false)), Err(ComponentError::ChecksUnsaid { name: n }) if n == name)
        );
    }

    #[test]
    fn the_manifest_is_embedded_once() {
        let component = from_wat(CORE).unwrap();
        let once = embed_manifest(&component, &manifest()).unwrap();
        assert_eq!(embed_manifest(&once, &manifest()).unwrap(), once);
        let found: Vec<Vec<u8>> = Parser::new(0)
            .parse_all(&once)
            .filter_map(|p| match p.unwrap() {
                Payload::CustomSection(c) if c.name() == SECTION => Some(c.data().to_vec()),
                _ => None,
            })
            .collect();
        assert_eq!(found.len(), 1);
        assert_eq!(Manifest::parse(found.first().unwrap()).unwrap(), manifest());
    }

    #[test]
    fn foreign_imports_are_refused_by_name() {
        let clock = "(component (import \"wasi:clocks/monotonic-clock@0.2.6\" (instance)))";
        match check_interface(&wat::parse_str(clock).unwrap()) {
            Err(ComponentError::ForeignImports { names }) => assert_eq!(names, ["wasi:clocks/monotonic-clock@0.2.6"]),
            other => panic!("{other:?}"),
        }
        let log = "(component (import \"wasi:cli/stdout@0.2.6\" (instance)))";
        assert!(matches!(check_interface(&wat::parse_str(log).unwrap()), Err(ComponentError::MissingExport { .. })));
    }

    #[test]
    fn wasi_of_the_first_preview_is_sealed_inside() {
        let import = "(import \"wasi_snapshot_preview1\" \"clock_time_get\" (func (param i32 i64 i32) (result i32)))
            (import \"wasi_snapshot_preview1\" \"random_get\" (func (param i32 i32) (result i32)))";
        let component = from_wat(&CORE.replace("(module", &format!("(module {import}"))).unwrap();
        check_interface(&component).unwrap();
        assert_eq!(foreign_imports(&component).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_modules_own_missing_symbols_are_named() {
        let undefined = CORE.replace("(module", "(module (import \"env\" \"sinf\" (func))");
        let error = from_wat(&undefined).unwrap_err().to_string();
        assert!(error.contains("`env::sinf`") && error.contains("no libc"), "{error}");
    }

    #[test]
    fn a_core_module_is_no_component() {
        let core = wat::parse_str(CORE).unwrap();
        assert!(matches!(embed_manifest(&core, &manifest()), Err(ComponentError::Malformed { at: 0 })));
    }
}
