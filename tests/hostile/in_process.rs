//! In this process, under all three backends: same codes, same words, same fuel.

use forge_contract::FailureCode;
use forge_contract::fragment::Part;
use forge_contract::manifest::PartKind;
use forge_contract::report::Outcome;
use forge_sandbox::engine::Backend;
use forge_sandbox::local::{self, LocalKernel};
use forge_sandbox::{Inputs, ShardResult};

use crate::kernels::{DATA, ITEMS, component, failing, inputs, task};

fn kernel(name: &str, backend: Backend) -> LocalKernel {
    local::compile(&component(name), backend).unwrap_or_else(|failure| panic!("{name}: {failure}"))
}

fn run(name: &str, backend: Backend) -> ShardResult {
    let task = task(name, PartKind::Count);
    local::run_shard(&kernel(name, backend), &task, &inputs(&task), |_| {})
}

#[test]
fn each_fails_with_its_code_at_its_unit_under_every_backend() {
    for expected in failing() {
        let task = task(expected.name, expected.kind);
        let mut details = Vec::new();
        for backend in Backend::ALL {
            let kernel = kernel(expected.name, backend);
            let failure = local::run_unit(&kernel, &task, 2, &inputs(&task)).unwrap_err();
            assert_eq!(failure.code, expected.code, "{}, {backend:?}: {failure}", expected.name);
            assert_eq!(failure.unit, Some(2), "{}", expected.name);
            assert!(failure.detail.contains(expected.detail), "{}, {backend:?}: {failure}", expected.name);
            details.push(failure.detail);
        }
        // A failure is compared between agents like any answer, so its words must not differ either.
        assert!(details.iter().all(|detail| *detail == details[0]), "{}: {details:?}", expected.name);
    }
}

#[test]
fn refusals_keep_their_kind_and_lose_their_length() {
    let codes = [
        FailureCode::AgentKernelArguments,
        FailureCode::AgentKernelInput,
        FailureCode::AgentKernelNumeric,
        FailureCode::AgentKernelOther,
    ];
    let task = task("refuse", PartKind::Count);
    let kernel = kernel("refuse", Backend::CraneliftSpeed);
    for (unit, code) in (0..).zip(codes) {
        let failure = local::run_unit(&kernel, &task, unit, &inputs(&task)).unwrap_err();
        assert_eq!((failure.code, failure.unit), (code, Some(unit)));
        assert_eq!(failure.detail, "x".repeat(forge_contract::limits::DETAIL_BYTES_MAX));
    }
}

#[test]
fn what_is_not_linked_is_refused_by_name_before_anything_runs() {
    for (name, import) in [("clock", "wasi:clocks/monotonic-clock"), ("random", "wasi:random/random")] {
        let refused = local::compile(&component(name), Backend::CraneliftSpeed).err().unwrap();
        assert_eq!(refused.code, FailureCode::AgentCompile);
        assert!(refused.detail.contains(import), "{refused}");
    }
}

#[test]
fn no_component_is_refused() {
    for bytes in [&b"\0asm\x01\0\0\0"[..], b"\x7fELF", b""] {
        let refused = local::compile(bytes, Backend::CraneliftSpeed).err().unwrap();
        assert_eq!(refused.code, FailureCode::AgentCompile);
    }
}

#[test]
fn what_a_kernel_prints_is_kept_up_to_its_limit_and_changes_nothing() {
    let honest = run("honest", Backend::CraneliftSpeed);
    let chatter = run("chatter", Backend::CraneliftSpeed);
    let (Outcome::Completed(quiet), Outcome::Completed(loud)) = (&honest.outcome, &chatter.outcome) else {
        panic!("{honest:?} {chatter:?}")
    };
    assert_eq!(quiet.fragment, loud.fragment);
    assert!(honest.log.is_empty());
    assert!(chatter.log.len() <= forge_contract::limits::LOG_BYTES_MAX);
    let printed = chatter.log.bytes().filter(|byte| *byte == b'a').count();
    let dropped = 4 * 30_000 - forge_contract::limits::LOG_BYTES_MAX;
    assert!(chatter.log.ends_with(&format!("[{dropped} more bytes]")), "{printed} kept");
    assert!(printed > forge_contract::limits::LOG_BYTES_MAX - 64);
}

#[test]
fn each_unit_starts_from_nothing() {
    let task = task("remember", PartKind::Count);
    let kernel = kernel("remember", Backend::CraneliftSpeed);
    for unit in 0..4 {
        let mut task = task.clone();
        task.parts[0].counts_items = false;
        let run = local::run_unit(&kernel, &task, unit, &inputs(&task)).unwrap();
        assert_eq!(run.fragment.part("work"), Some(&Part::Count(1)));
    }
}

#[test]
fn backends_agree_in_bytes_and_fuel() {
    for name in ["honest", "chatter", "read", "undeclared"] {
        let mut outcomes = Vec::new();
        for backend in Backend::ALL {
            let mut task = task(name, PartKind::Count);
            task.parts[0].counts_items = false;
            let result = local::run_shard(&kernel(name, backend), &task, &inputs(&task), |_| {});
            let Outcome::Completed(completed) = result.outcome else { panic!("{name}: {:?}", result.outcome) };
            assert!(completed.units.iter().all(|unit| unit.fuel > 0));
            outcomes.push(completed);
        }
        assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]), "{name}: {outcomes:?}");
    }
}

#[test]
fn reading_gives_the_input_and_costs_fuel_by_the_byte() {
    let kernel = kernel("read", Backend::CraneliftSpeed);
    let mut task = task("read", PartKind::Count);
    task.parts[0].counts_items = false;
    let run = local::run_unit(&kernel, &task, 0, &inputs(&task)).unwrap();
    let sum = DATA[1..].iter().map(|byte| u64::from(*byte)).sum();
    assert_eq!(run.fragment.part("work"), Some(&Part::Count(sum)));

    let honest = local::run_unit(&self::kernel("honest", Backend::CraneliftSpeed), &task, 0, &inputs(&task)).unwrap();
    let read = DATA.len() as u64 - 1;
    assert!(run.fuel > honest.fuel + forge_sandbox::bounds::FUEL_PER_OPEN + read);
    assert!(local::run_unit(&kernel, &task, 0, &Inputs::none()).is_err());
}

#[test]
fn the_shard_does_not_say_more_than_its_units() {
    let result = run("honest", Backend::CraneliftSpeed);
    let Outcome::Completed(completed) = result.outcome else { panic!("{:?}", result.outcome) };
    let fragment = forge_contract::fragment::Fragment::decode(&completed.fragment).unwrap();
    assert_eq!(fragment.part("work"), Some(&Part::Count(4 * ITEMS)));
    let task = task("honest", PartKind::Count);
    let unit = local::run_unit(&kernel("honest", Backend::CraneliftSpeed), &task, 3, &inputs(&task)).unwrap();
    assert_eq!(completed.units[3].digest, unit.fragment.digest());
    assert_eq!(completed.units[3].fuel, unit.fuel);
}
