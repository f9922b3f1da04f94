//! Modules that wasm-smith writes from a number, run under every backend.
//!
//! `generated.json` holds a digest per hundred modules of how all their calls ended: the same for every backend and
//! processor. `FORGEPOOL_RECORD_GOLDEN=1 cargo test --workspace --test differential` writes it.

use arbitrary::Unstructured;
use forge_contract::Digest;
use forge_sandbox::engine::Backend;
use forge_sandbox::module::{Call, CallLimits, Ending, Modules};
use serde::{Deserialize, Serialize};
use wasm_smith::{InstructionKind, InstructionKinds};
use wasmparser::{Validator, WasmFeatures};

use crate::corpus;

/// Modules whose endings are recorded.
pub const RECORDED: u64 = 2_000;
/// Modules per recorded digest.
pub const GROUP: u64 = 100;
/// Fixed argument lists per function.
pub const ARGUMENT_LISTS: u32 = 2;
/// What a call may use: enough that most end, little enough that a loop without end costs nothing.
pub const LIMITS: CallLimits = CallLimits { fuel: 20_000, memory_bytes: 4 << 20 };
/// The file.
pub const FILE: &str = "generated.json";

/// What is on file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    /// The generator's version: another writes other modules from the same numbers.
    pub generator: String,
    /// Digest of the endings of each hundred modules.
    pub groups: Vec<Digest>,
}

/// The file's content.
#[must_use]
pub fn recorded() -> Recorded {
    serde_json::from_str(&std::fs::read_to_string(corpus::path(FILE)).unwrap()).unwrap()
}

/// How the calls of some modules ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub modules: u64,
    pub calls: u64,
    pub completed: u64,
    pub exhausted: u64,
    pub trapped: u64,
    pub no_verdict: u64,
}

impl Tally {
    /// Counts a module's calls.
    pub fn count(&mut self, calls: &[Call]) {
        self.modules += 1;
        self.calls += calls.len() as u64;
        for call in calls {
            match call.ending {
                Ending::Completed { .. } => self.completed += 1,
                Ending::Exhausted { .. } => self.exhausted += 1,
                Ending::Trapped { .. } => self.trapped += 1,
                Ending::NoVerdict => self.no_verdict += 1,
            }
        }
    }

    /// Adds another tally.
    pub fn add(&mut self, other: &Self) {
        self.modules += other.modules;
        self.calls += other.calls;
        self.completed += other.completed;
        self.exhausted += other.exhausted;
        self.trapped += other.trapped;
        self.no_verdict += other.no_verdict;
    }
}

/// As many bytes as asked for, drawn from a number.
#[must_use]
pub fn bytes(domain: &str, number: u64, count: usize) -> Vec<u8> {
    let blocks = (0u64..).map(|block| Digest::tagged(domain, &[number.to_le_bytes(), block.to_le_bytes()].concat()));
    blocks.flat_map(|block| *block.as_bytes()).take(count).collect()
}

/// The module of a number: valid, without imports, of the features the engine has and no others.
#[must_use]
pub fn module(number: u64) -> Vec<u8> {
    // The generator knows reference types whole or not at all; the engine has no `externref`, so a draw with one is
    // drawn again, a few times.
    let with_references = (0..16).filter(|_| number.is_multiple_of(4)).map(|attempt| draw(number, attempt, true));
    let without = (16..17).map(|attempt| draw(number, attempt, false));
    with_references.chain(without).find(|module| is_of_the_engine(module)).expect("a draw without references is valid")
}

fn draw(number: u64, attempt: u64, references: bool) -> Vec<u8> {
    let config = wasm_smith::Config {
        // Three quarters are written so that they do not trap: what traps at once proves little.
        disallow_traps: number % 4 != 3,
        reference_types_enabled: references,
        allow_start_export: number.is_multiple_of(8),
        export_everything: true,
        max_imports: 0,
        // A third are straight lines: loops that draws make seldom end by themselves.
        allowed_instructions: if number % 3 == 1 { straight_lines() } else { InstructionKinds::all() },
        min_types: if references { 1 } else { 4 },
        max_types: if references { 4 } else { 24 },
        min_funcs: if references { 1 } else { 4 },
        max_funcs: 10,
        max_instructions: 40 + usize::try_from(number % 5).unwrap() * 60,
        max_memory32_bytes: 1 << 20,
        max_table_elements: 1_000,
        max_type_size: 200,
        max_globals: 12,
        memory_max_size_required: true,
        table_max_size_required: true,
        exceptions_enabled: false,
        gc_enabled: false,
        memory64_enabled: false,
        relaxed_simd_enabled: false,
        tail_call_enabled: false,
        threads_enabled: false,
        extended_const_enabled: true,
        wide_arithmetic_enabled: false,
        custom_page_sizes_enabled: false,
        ..wasm_smith::Config::default()
    };
    let drawn = bytes("forgepool v1 generated module", number << 16 | attempt, 12_000);
    let module = wasm_smith::Module::new(config, &mut Unstructured::new(&drawn));
    module.unwrap_or_else(|e| panic!("module {number}: {e}")).to_bytes()
}

fn straight_lines() -> InstructionKinds {
    use InstructionKind::{Aggregate, Memory, Numeric, Parametric, Reference, Table, Variable, Vector};
    InstructionKinds::new(&[Aggregate, Memory, Numeric, Parametric, Reference, Table, Variable, Vector])
}

fn is_of_the_engine(module: &[u8]) -> bool {
    let features = WasmFeatures::WASM2 | WasmFeatures::EXTENDED_CONST;
    let features = features.difference(WasmFeatures::GC_TYPES);
    Validator::new_with_features(features).validate_all(module).is_ok()
}

/// How every call of the module of a number ends under a backend.
#[must_use]
pub fn calls(modules: &Modules, number: u64) -> Vec<Call> {
    let compiled = modules.compile(&module(number)).unwrap_or_else(|e| panic!("module {number}: {e}"));
    compiled.call_all(LIMITS, ARGUMENT_LISTS).unwrap()
}

/// The first call on which two backends disagree. A call without a verdict agrees with every other.
#[must_use]
pub fn disagreement<'a>(left: &'a [Call], right: &'a [Call]) -> Option<(Option<&'a Call>, Option<&'a Call>)> {
    let longest = left.len().max(right.len());
    (0..longest).map(|at| (left.get(at), right.get(at))).find(|(left, right)| match (left, right) {
        (Some(left), Some(right)) => {
            let silent = [left, right].iter().any(|call| call.ending == Ending::NoVerdict);
            !silent && left != right
        }
        _ => true,
    })
}

/// The digest of how the calls of some modules ended.
#[must_use]
pub fn digest(group: &[Vec<Call>]) -> Digest {
    Digest::tagged("forgepool v1 generated endings", serde_json::to_string(group).unwrap().as_bytes())
}

/// The recorded groups that a backend does not give.
#[must_use]
pub fn differences(backend: Backend) -> Vec<String> {
    let modules = Modules::new(backend).unwrap();
    let mut found = Vec::new();
    for (group, recorded) in (0u64..).zip(recorded().groups) {
        let first = group * GROUP;
        let calls: Vec<Vec<Call>> = (first..first + GROUP).map(|number| calls(&modules, number)).collect();
        if digest(&calls) != recorded {
            found.push(format!("{backend:?}: modules {first} to {} end otherwise than recorded", first + GROUP - 1));
        }
    }
    found
}
