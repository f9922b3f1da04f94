//! The kernels of this folder, as components, and what each must lead to.

use forge_contract::duty::Duty;
use forge_contract::id::JobId;
use forge_contract::limits::UnitLimits;
use forge_contract::manifest::{PartKind, PartSpec};
use forge_contract::seed::StageKey;
use forge_contract::task::{Cut, InputRef, Task};
use forge_contract::{Digest, FailureCode};
use forge_sandbox::Inputs;

/// Items of each unit.
pub const ITEMS: u64 = 10;
/// What the input named `data` holds.
pub const DATA: &[u8] = b"the bytes of an input";

const SHELL: &str = include_str!("kernels/shell.wat");

macro_rules! kernels {
    ($($name:literal),* $(,)?) => {
        /// The text of a kernel.
        fn text(name: &str) -> &'static str {
            match name {
                $($name => include_str!(concat!("kernels/", $name, ".wat")),)*
                _ => panic!("no kernel '{name}'"),
            }
        }
    };
}

kernels![
    "honest",
    "spin",
    "start",
    "grow",
    "grow-at-once",
    "big",
    "table",
    "recurse",
    "unreachable",
    "out-of-bounds",
    "divide",
    "null-call",
    "wrong-name",
    "wrong-kind",
    "no-parts",
    "wrong-count",
    "no-such-kind",
    "nan",
    "unsorted",
    "too-much",
    "far-too-much",
    "beyond",
    "refuse",
    "not-text",
    "no-answer",
    "remember",
    "clock",
    "random",
    "exit",
    "read",
    "undeclared",
    "hoard",
    "read-forever",
    "chatter",
    "chatter-forever",
];

/// A kernel's component.
pub fn component(name: &str) -> Vec<u8> {
    assembled(name, text(name))
}

/// The component that adds up so many bytes of its input.
pub fn reading(bytes: usize) -> Vec<u8> {
    assembled("read", &text("read").replace("1000000", &bytes.to_string()))
}

fn assembled(name: &str, text: &str) -> Vec<u8> {
    let after = |mark: &str| text.split_once(mark).map(|(_, rest)| rest);
    let (imports, arguments, core) = match after(";;; imports\n") {
        None => ("", "", text),
        Some(rest) => {
            let (imports, rest) = rest.split_once(";;; arguments\n").unwrap();
            let (arguments, core) = rest.split_once(";;; core\n").unwrap();
            (imports, arguments, core)
        }
    };
    let whole = SHELL.replace("@IMPORTS@", imports).replace("@ARGUMENTS@", arguments).replace("@CORE@", core);
    wat::parse_str(whole).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// What a kernel must lead to.
pub struct Expected {
    /// The kernel.
    pub name: &'static str,
    /// The one part it is declared to give.
    pub kind: PartKind,
    /// The failure's code.
    pub code: FailureCode,
    /// Words of its detail.
    pub detail: &'static str,
}

/// Every kernel that must fail in a unit.
pub fn failing() -> Vec<Expected> {
    use FailureCode::*;
    use PartKind::{Bytes, Count, Histogram, Sum};
    let expect = |name, kind, code, detail| Expected { name, kind, code, detail };
    vec![
        expect("spin", Count, AgentFuelExhausted, "fuel"),
        expect("start", Count, AgentFuelExhausted, "fuel"),
        expect("read-forever", Count, AgentFuelExhausted, "fuel"),
        expect("chatter-forever", Count, AgentOutputTooLarge, "printed more than 1048576 bytes"),
        expect("grow", Count, AgentMemoryLimit, "bytes of memory"),
        expect("grow-at-once", Count, AgentMemoryLimit, "bytes of memory"),
        expect("big", Count, AgentMemoryLimit, "bytes of memory"),
        expect("table", Count, AgentMemoryLimit, "a table of 11000 elements"),
        expect("recurse", Count, AgentStackOverflow, "stack"),
        expect("unreachable", Count, AgentTrap, "unreachable"),
        expect("out-of-bounds", Count, AgentTrap, "out of bounds"),
        expect("divide", Count, AgentTrap, "divide by zero"),
        expect("null-call", Count, AgentTrap, "uninitialized element"),
        expect("exit", Count, AgentTrap, "exit(0)"),
        expect("hoard", Count, AgentTrap, "more than 1000 handles"),
        expect("wrong-name", Count, AgentOutputInvalid, "expected 'work: Count', found 'Work: Count'"),
        expect("wrong-kind", Count, AgentOutputInvalid, "found 'work: Sum'"),
        expect("no-parts", Count, AgentOutputInvalid, "found 'nothing'"),
        expect("wrong-count", Count, AgentOutputInvalid, "counts 11 items where the work has 10"),
        expect("no-such-kind", Count, AgentOutputInvalid, "discriminant"),
        expect("nan", Sum, AgentOutputInvalid, "not finite"),
        expect("unsorted", Histogram, AgentOutputInvalid, "bucket keys rise"),
        expect("beyond", Bytes, AgentOutputInvalid, "cannot be read"),
        expect("no-answer", Count, AgentOutputInvalid, "cannot be read"),
        expect("not-text", Count, AgentOutputInvalid, "cannot be read"),
        expect("too-much", Bytes, AgentOutputTooLarge, "limit is 4096"),
        expect("far-too-much", Bytes, AgentOutputTooLarge, "more bytes than its limit"),
    ]
}

/// A task of 4 units for a kernel that is declared to give one part.
pub fn task(name: &str, kind: PartKind) -> Task {
    // `far-too-much` must be allowed the memory it lies about.
    let memory_bytes = if name == "far-too-much" { 512 << 20 } else { 1 << 20 };
    Task {
        job: JobId::new(0, 0),
        stage_index: 0,
        shard: 0,
        component: Digest::of(&component(name)),
        component_bytes: component(name).len() as u64,
        profile: "hostile.v1".into(),
        stage: "only".into(),
        args: "{}".into(),
        key: StageKey([7; 32]),
        cut: Cut::Items { total: 4 * ITEMS, unit: ITEMS },
        first_unit: 0,
        unit_count: 4,
        limits: UnitLimits { fuel: 50_000_000, memory_bytes, output_bytes: 4096 },
        parts: vec![PartSpec { name: "work".into(), kind, counts_items: true, shown: true, unit: None }],
        inputs: vec![InputRef { name: "data".into(), digest: Digest::of(DATA), bytes: DATA.len() as u64 }],
        duty: Duty::Compute,
    }
}

/// The inputs of that task.
pub fn inputs(task: &Task) -> Inputs {
    let mut inputs = Inputs::none();
    for reference in &task.inputs {
        inputs.add(reference, bytes::Bytes::from_static(DATA));
    }
    inputs
}
