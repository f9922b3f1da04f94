//! Admission: a component is parsed, never run. What it imports, exports, declares and weighs decides.

mod shape;
mod weight;

use forge_contract::limits::{COMPONENT_BYTES_MAX, UnitLimits};
use forge_contract::manifest::{INTERFACE, Manifest, ManifestError, Profile, SECTION, Split};
use forge_contract::{Digest, FailureCode};
use wasmparser::{
    ComponentExternalKind, ComponentTypeRef, Encoding, Parser, Payload, ValidPayload, Validator, WasmFeatures,
};

use crate::plan::{Kernel, check_schema};
use crate::trial::{self, GoldenError, TrialId};
use weight::Weight;
pub use weight::{Limit, LimitError, Place};

/// Largest manifest, bytes.
pub const MANIFEST_BYTES_MAX: usize = 1 << 20;
/// The interface a kernel exports.
pub const UNIT: &str = "forgepool:kernel/unit@1.0.0";
/// The interface a kernel may import.
pub const INPUTS: &str = "forgepool:kernel/inputs@1.0.0";
/// A further interface, exported by a kernel whose manifest says `checks`: a cheap check of a unit.
pub const CHECKS: &str = "forgepool:kernel/checks@1.0.0";

/// The harmless part of WASI, without its version: every 0.2 release of it.
const WASI: [&str; 7] = [
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stdout",
    "wasi:cli/stderr",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
];

/// A component that may be uploaded.
#[derive(Clone, Debug, PartialEq)]
pub struct Admitted {
    /// Its digest.
    pub digest: Digest,
    /// What it says of itself.
    pub manifest: Manifest,
    /// Its size, bytes.
    pub bytes: u64,
}

/// Why a component is refused. Every variant names the offender; its text names the fix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdmitError {
    /// Larger than any component may be.
    #[error(
        "the component has {found} bytes, at most {COMPONENT_BYTES_MAX} are admitted; strip debug sections and build for size"
    )]
    Size {
        /// Bytes found.
        found: u64,
    },
    /// Not WebAssembly at all.
    #[error(
        "this is no WebAssembly component: it starts with {head:?}; upload the output of `forgepool kernel build`, not {guess}"
    )]
    NotWasm {
        /// The first bytes, printable.
        head: String,
        /// What it looks like.
        guess: &'static str,
    },
    /// A core module.
    #[error("this is a core module; make it a component with `forgepool kernel build`")]
    CoreModule,
    /// Not valid, or it uses a feature that is off.
    #[error(
        "byte {at}: {reason}; kernels are WebAssembly with SIMD, without threads, GC, exceptions, memory64 and relaxed SIMD"
    )]
    Invalid {
        /// What the validator says.
        reason: String,
        /// Where.
        at: usize,
    },
    /// An import that no kernel may have.
    #[error("import '{name}': {why}; {fix}")]
    Import {
        /// The import.
        name: String,
        /// What is wrong with it.
        why: &'static str,
        /// What to do.
        fix: &'static str,
    },
    /// The interface of a kernel is not exported.
    #[error("export '{UNIT}' is missing; implement the world `kernel` of forgepool:kernel@1.0.0")]
    NoUnit,
    /// It is exported with other types.
    #[error("export '{UNIT}': `execute` is {found}, expected {expected}; build against wit/kernel.wit of this version")]
    UnitType {
        /// The type found.
        found: String,
        /// The type expected.
        expected: &'static str,
    },
    /// Its check is exported with other types.
    #[error("export '{CHECKS}': `check` is {found}, expected {expected}; build against wit/kernel.wit of this version")]
    CheckType {
        /// The type found.
        found: String,
        /// The type expected.
        expected: &'static str,
    },
    /// The check is exported, and the manifest does not say so.
    #[error("export '{CHECKS}' is there and the manifest says nothing of it; write `checks = true` in kernel.toml")]
    ChecksUnsaid,
    /// The manifest says that there is a check, and none is exported.
    #[error(
        "export '{CHECKS}' is missing and the manifest says `checks = true`; implement the world `checked-kernel` of \
         forgepool:kernel@1.0.0, or take the line out of kernel.toml"
    )]
    NoChecks,
    /// A limit on what a component weighs.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// No manifest, or more than one.
    #[error(
        "custom section '{SECTION}': found {found}, expected 1; `forgepool kernel build` writes it from kernel.toml"
    )]
    ManifestCount {
        /// Sections found.
        found: usize,
    },
    /// The manifest is too large.
    #[error("custom section '{SECTION}' has {found} bytes, at most {MANIFEST_BYTES_MAX} are admitted")]
    ManifestSize {
        /// Bytes found.
        found: usize,
    },
    /// The manifest breaks a rule.
    #[error("custom section '{SECTION}': {0}")]
    Manifest(#[from] ManifestError),
    /// A profile's argument schema cannot be used.
    #[error("custom section '{SECTION}': /profiles/{profile}/{reason}")]
    Schema {
        /// The profile.
        profile: String,
        /// What is wrong.
        reason: String,
    },
    /// A known answer is missing or cannot be run.
    #[error("custom section '{SECTION}': {0}")]
    Golden(#[from] GoldenError),
}

impl AdmitError {
    /// The stable code of the rule broken.
    #[must_use]
    pub const fn code(&self) -> FailureCode {
        match self {
            Self::NotWasm { .. } | Self::CoreModule => FailureCode::RequestComponentFormat,
            Self::Invalid { .. } => FailureCode::RequestComponentInvalid,
            Self::Import { .. } => FailureCode::RequestComponentImport,
            Self::NoUnit | Self::UnitType { .. } | Self::CheckType { .. } | Self::ChecksUnsaid | Self::NoChecks => {
                FailureCode::RequestComponentExport
            }
            Self::Size { .. } | Self::Limit(_) => FailureCode::RequestComponentLimit,
            Self::ManifestCount { .. } | Self::ManifestSize { .. } | Self::Manifest(_) | Self::Schema { .. } => {
                FailureCode::RequestComponentManifest
            }
            Self::Golden(_) => FailureCode::RequestComponentGolden,
        }
    }
}

/// Parses a component and checks every rule of admission, without running any of it.
///
/// Determinism: a pure function of the bytes. Cost: one pass over the code.
///
/// # Errors
/// The first rule broken.
pub fn inspect(component: &[u8]) -> Result<Admitted, AdmitError> {
    let bytes = component.len() as u64;
    if bytes > COMPONENT_BYTES_MAX {
        return Err(AdmitError::Size { found: bytes });
    }
    check_head(component)?;
    let walked = walk(component)?;
    let manifest = check_manifest(walked.manifests)?;
    match (walked.checks, manifest.checks) {
        (true, false) => return Err(AdmitError::ChecksUnsaid),
        (false, true) => return Err(AdmitError::NoChecks),
        _ => {}
    }
    let kernel = Kernel { digest: Digest::of(component), bytes, manifest };
    trial::exams(&kernel, TrialId(0))?;
    Ok(Admitted { digest: kernel.digest, manifest: kernel.manifest, bytes })
}

/// The same for a component that somebody uploads: a verifier must have something to run.
///
/// # Errors
/// The first rule broken; last of all, that a profile has no known answer.
pub fn inspect_upload(component: &[u8]) -> Result<Admitted, AdmitError> {
    let admitted = inspect(component)?;
    trial::every_profile_has_one(&admitted.manifest)?;
    Ok(admitted)
}

fn check_head(component: &[u8]) -> Result<(), AdmitError> {
    if component.starts_with(b"\0asm") {
        return if Parser::is_core_wasm(component) { Err(AdmitError::CoreModule) } else { Ok(()) };
    }
    let head: Vec<u8> = component.iter().take(8).copied().collect();
    let guess = match head.as_slice() {
        [0x7f, b'E', b'L', b'F', ..] => "a native program or precompiled code",
        [b'(', ..] => "its text form",
        [] => "nothing",
        _ => "something else",
    };
    Err(AdmitError::NotWasm { head: head.escape_ascii().to_string(), guess })
}

/// The features a kernel may use: those of the engine.
fn features() -> WasmFeatures {
    WasmFeatures::FLOATS
        | WasmFeatures::MUTABLE_GLOBAL
        | WasmFeatures::SATURATING_FLOAT_TO_INT
        | WasmFeatures::SIGN_EXTENSION
        | WasmFeatures::MULTI_VALUE
        | WasmFeatures::BULK_MEMORY
        | WasmFeatures::REFERENCE_TYPES
        | WasmFeatures::CALL_INDIRECT_OVERLONG
        | WasmFeatures::BULK_MEMORY_OPT
        | WasmFeatures::EXTENDED_CONST
        | WasmFeatures::SIMD
        | WasmFeatures::COMPONENT_MODEL
}

fn invalid(error: &wasmparser::BinaryReaderError) -> AdmitError {
    AdmitError::Invalid { reason: error.message().to_owned(), at: error.offset() }
}

/// What one pass over a component finds.
struct Walked<'a> {
    /// The manifest sections.
    manifests: Vec<&'a [u8]>,
    /// Whether it exports a check.
    checks: bool,
}

/// One pass over the component: weighed, validated, imports and exports checked.
fn walk(component: &[u8]) -> Result<Walked<'_>, AdmitError> {
    let (mut weight, mut validator) = (Weight::default(), Validator::new_with_features(features()));
    let mut allocations = wasmparser::FuncValidatorAllocations::default();
    let (mut depth, mut manifests, mut unit, mut checks) = (0usize, Vec::new(), false, false);
    let mut refused_import = None;
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload.map_err(|e| invalid(&e))?;
        // Weighed first: what is too heavy is not even validated.
        weight.add(&payload, depth)?;
        // Of the component itself: those inside it end too.
        let last = depth == 0 && matches!(payload, Payload::End(_));
        match &payload {
            Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => return Err(AdmitError::CoreModule),
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::CustomSection(section) if depth == 0 && section.name() == SECTION => {
                manifests.push(section.data())
            }
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section.clone() {
                    let import = import.map_err(|e| invalid(&e))?;
                    let instance = matches!(import.ty, ComponentTypeRef::Instance(_));
                    refused_import = refused_import.or_else(|| check_import(import.name.name, instance).err());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section.clone() {
                    let export = export.map_err(|e| invalid(&e))?;
                    let instance = export.kind == ComponentExternalKind::Instance;
                    unit |= export.name.name == UNIT && instance;
                    // Of any kind: what has the name must be the thing.
                    checks |= export.name.name == CHECKS;
                }
            }
            _ => {}
        }
        match validator.payload(&payload).map_err(|e| invalid(&e))? {
            ValidPayload::Func(function, body) => {
                let mut function = function.into_validator(core::mem::take(&mut allocations));
                function.validate(&body).map_err(|e| invalid(&e))?;
                allocations = function.into_allocations();
            }
            ValidPayload::End(types) if last && unit && refused_import.is_none() => {
                shape::check(&types)?;
                if checks {
                    shape::check_checks(&types)?;
                }
            }
            ValidPayload::Ok | ValidPayload::Parser(_) | ValidPayload::End(_) => {}
        }
    }
    match refused_import {
        Some(refused) => Err(refused),
        None if unit => Ok(Walked { manifests, checks }),
        None => Err(AdmitError::NoUnit),
    }
}

/// Whether a kernel may import this.
fn check_import(name: &str, instance: bool) -> Result<(), AdmitError> {
    let refused = |why, fix| Err(AdmitError::Import { name: name.to_owned(), why, fix });
    let (interface, version) = name.split_once('@').unwrap_or((name, ""));
    let harmless = WASI.contains(&interface) && (version == "0.2" || version.starts_with("0.2."));
    if instance && (name == INPUTS || harmless) {
        return Ok(());
    }
    let seal = "remove its use, or let `forgepool kernel build` seal it inside the component";
    match interface.split_once('/').map_or(interface, |(package, _)| package) {
        "wasi:clocks" => refused("a kernel has no clock: its answer must not depend on when it runs", seal),
        "wasi:random" => refused("a kernel has no entropy: draw from the unit's generator, keyed by `task.seed`", seal),
        "wasi:sockets" => refused("a kernel has no network", seal),
        "wasi:http" => refused("a kernel has no network", seal),
        "wasi:filesystem" => refused("a kernel has no files; declare what it reads as inputs", seal),
        "wasi:cli" | "wasi:io" => {
            refused("of WASI only output, an empty environment and exit exist, in a 0.2 version", seal)
        }
        "forgepool:kernel" => refused(
            "the only import is the interface `inputs` in version 1.0.0",
            "build against wit/kernel.wit of this version",
        ),
        _ => refused(
            "no such import exists here",
            "a kernel imports `forgepool:kernel/inputs@1.0.0` alone; link everything else into it",
        ),
    }
}

fn check_manifest(sections: Vec<&[u8]>) -> Result<Manifest, AdmitError> {
    let [section] = sections.as_slice() else {
        return Err(AdmitError::ManifestCount { found: sections.len() });
    };
    if section.len() > MANIFEST_BYTES_MAX {
        return Err(AdmitError::ManifestSize { found: section.len() });
    }
    let manifest = Manifest::parse(section)?;
    for (name, profile) in &manifest.profiles {
        let schema = |reason| AdmitError::Schema { profile: name.clone(), reason };
        check_schema(&profile.args).map_err(|e| schema(e.to_string()))?;
        check_splits(profile).map_err(schema)?;
    }
    debug_assert_eq!(manifest.interface, INTERFACE);
    Ok(manifest)
}

/// A split reads its numbers from arguments the schema declares.
fn check_splits(profile: &Profile) -> Result<(), String> {
    let declared = |argument: &str| profile.args.get("properties").is_some_and(|p| p.get(argument).is_some());
    for (index, stage) in profile.stages.iter().enumerate() {
        let arguments: Vec<&str> = match &stage.split {
            Split::Range { total, .. } => vec![total],
            Split::Tiles { rows, columns, .. } => vec![rows, columns],
            Split::List { items } => vec![items],
            Split::Segments { boundaries } => vec![boundaries],
            Split::Once => vec![],
        };
        if let Some(argument) = arguments.into_iter().find(|argument| !declared(argument)) {
            return Err(format!("stages/{index}/split: the schema of args declares no '{argument}'"));
        }
        if let Some(stop) = stage.stop.as_ref().filter(|stop| !declared(&stop.argument)) {
            return Err(format!("stages/{index}/stop: the schema of args declares no '{}'", stop.argument));
        }
        let UnitLimits { memory_bytes, .. } = stage.limits;
        if memory_bytes == 0 {
            return Err(format!("stages/{index}/limits/memory_bytes: a unit needs memory"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
