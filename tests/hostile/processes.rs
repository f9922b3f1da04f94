//! In caged child processes, as agents run them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use forge_contract::manifest::PartKind;
use forge_contract::report::Outcome;
use forge_contract::{Failure, FailureCode};
use forge_sandbox::engine::Backend;
use forge_sandbox::{CageLevel, CompileLimits, Compiler, ShardResult, Worker, WorkerError, local};
use tokio::sync::watch;

use crate::kernels::{component, failing, inputs, task};

/// Far beyond what any of these takes: only a hung test meets it.
pub const LONG: Duration = Duration::from_secs(120);

fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_forge-test-worker"))
}

pub async fn spawn() -> Worker {
    Worker::spawn(&program(), &[OsString::from("run")], CageLevel::Available).await.unwrap()
}

pub async fn compile_bytes(component: &[u8]) -> Result<Vec<u8>, Failure> {
    Compiler::new(program(), vec!["compile".into()], CageLevel::Available).compile(component).await
}

async fn compile(name: &str) -> Result<Vec<u8>, Failure> {
    compile_bytes(&component(name)).await
}

async fn run(worker: &mut Worker, name: &str, kind: PartKind) -> Result<ShardResult, WorkerError> {
    let task = task(name, kind);
    worker.run(&task, &inputs(&task), LONG, &watch::Sender::new(0)).await
}

#[tokio::test]
async fn each_fails_in_its_process_and_an_honest_kernel_follows() {
    let honest = compile("honest").await.unwrap();
    let task = task("honest", PartKind::Count);
    let kernel = local::compile(&component("honest"), Backend::CraneliftNone).unwrap();
    let expected_outcome = local::run_shard(&kernel, &task, &inputs(&task), |_| {}).outcome;
    for expected in failing() {
        let mut worker = spawn().await;
        worker.load(&compile(expected.name).await.unwrap()).await.unwrap();
        // Twice: the worker outlives what its unit did.
        for _ in 0..2 {
            let result = run(&mut worker, expected.name, expected.kind).await.unwrap();
            let Outcome::Failed(failure) = result.outcome else { panic!("{}: {:?}", expected.name, result.outcome) };
            assert_eq!((failure.code, failure.unit), (expected.code, Some(0)), "{}", expected.name);
        }
        drop(worker);
        let mut worker = spawn().await;
        worker.load(&honest).await.unwrap();
        let result = run(&mut worker, "honest", PartKind::Count).await.unwrap();
        assert_eq!(result.outcome, expected_outcome, "after {}", expected.name);
    }
}

#[tokio::test]
async fn a_worker_runs_many_shards_of_its_job_and_gets_inputs_once() {
    let mut worker = spawn().await;
    worker.load(&compile("read").await.unwrap()).await.unwrap();
    let mut task = task("read", PartKind::Count);
    task.parts[0].counts_items = false;
    let mut outcomes = Vec::new();
    for _ in 0..3 {
        let result = worker.run(&task, &inputs(&task), LONG, &watch::Sender::new(0)).await.unwrap();
        outcomes.push(result.outcome);
    }
    assert!(matches!(outcomes[0], Outcome::Completed(_)));
    assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]));
    let second = worker.load(b"").await;
    assert!(matches!(second, Err(WorkerError::Load(_))), "code is given once");
}

#[tokio::test]
async fn an_import_that_is_not_linked_is_refused_by_name() {
    let mut worker = spawn().await;
    let code = compile("clock").await.unwrap();
    match worker.load(&code).await {
        Err(WorkerError::Load(failure)) => assert!(failure.detail.contains("wasi:clocks/monotonic-clock"), "{failure}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_unit_without_end_is_killed_at_its_deadline() {
    let mut worker = spawn().await;
    worker.load(&compile("spin").await.unwrap()).await.unwrap();
    let mut task = task("spin", PartKind::Count);
    task.limits.fuel = forge_contract::limits::FUEL_MAX;
    let ended = worker.run(&task, &inputs(&task), Duration::from_millis(200), &watch::Sender::new(0)).await;
    assert!(matches!(ended, Err(WorkerError::Deadline(_))), "{ended:?}");
    assert_eq!(Failure::from(ended.unwrap_err()).code, FailureCode::AgentDeadline);
    let again = worker.run(&task, &inputs(&task), LONG, &watch::Sender::new(0)).await;
    assert!(matches!(again, Err(WorkerError::Busy)), "{again:?}");
}

#[tokio::test]
async fn code_of_another_backend_or_no_code_at_all_is_refused() {
    let engine = forge_sandbox::engine::engine(Backend::Pulley).unwrap();
    let pulley = forge_sandbox::code::compile(&engine, &component("honest")).unwrap();
    for code in [&pulley[..], b"", b"\x7fELF and more"] {
        let mut worker = spawn().await;
        assert!(matches!(worker.load(code).await, Err(WorkerError::Load(_))));
    }
}

#[tokio::test]
async fn what_cannot_be_compiled_is_a_failure_of_the_component() {
    let compiler = Compiler::new(program(), vec!["compile".into()], CageLevel::Available);
    let failure = compiler.compile(b"\0asm\x01\0\0\0").await.unwrap_err();
    assert_eq!(failure.code, FailureCode::AgentCompile);
}

/// A table of branches to as many places: its compile time grows with the square of its length.
fn compile_bomb() -> Vec<u8> {
    let depth = 20_000;
    let targets: Vec<String> = (0..depth).map(|target| target.to_string()).collect();
    let (open, close) = ("block ".repeat(depth), "end local.get 0 drop ".repeat(depth));
    let function = format!("(func (param i32) {open} local.get 0 br_table {} {close})", targets.join(" "));
    wat::parse_str(format!("(component (core module {function}))")).unwrap()
}

#[tokio::test]
async fn a_compile_bomb_meets_its_limits_and_the_next_component_compiles() {
    let bomb = compile_bomb();
    let compiler = Compiler::new(program(), vec!["compile".into()], CageLevel::Available);
    for (limits, words) in [
        (CompileLimits { cpu_seconds: 1, memory_bytes: 2 << 30 }, "processor time"),
        (CompileLimits { cpu_seconds: 60, memory_bytes: 64 << 20 }, "bytes of memory"),
    ] {
        let failure = compiler.clone().with_limits(limits).compile(&bomb).await.map(drop).unwrap_err();
        assert_eq!(failure.code, FailureCode::AgentCompile, "{failure}");
        assert!(failure.detail.contains(words), "{failure}");
    }
    compile("honest").await.unwrap();
}

#[tokio::test]
async fn a_program_that_is_no_worker_is_an_error() {
    for (program, args) in [("/nonexistent", ""), ("/bin/true", ""), ("/bin/echo", "hello")] {
        let spawned = Worker::spawn(Path::new(program), &[OsString::from(args)], CageLevel::Available).await;
        assert!(spawned.is_err(), "{program}");
    }
}

#[tokio::test]
async fn a_worker_ends_with_its_parents_pipe_even_in_the_middle_of_a_unit() {
    let mut worker = spawn().await;
    worker.load(&compile("spin").await.unwrap()).await.unwrap();
    let mut task = task("spin", PartKind::Count);
    task.limits.fuel = forge_contract::limits::FUEL_MAX;
    let inputs = inputs(&task);
    let progress = watch::Sender::new(0);
    // Polled until the child has its task, then dropped: the child is left computing.
    let running = worker.run(&task, &inputs, LONG, &progress);
    assert!(tokio::time::timeout(Duration::from_millis(100), running).await.is_err());
    let ended = tokio::time::timeout(LONG, worker.end()).await.expect("it ended");
    assert!(ended.unwrap().success());
}
