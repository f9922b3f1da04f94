//! What the sandbox costs around a kernel: a fresh instance, a fragment, a worker process.
//!
//! `cargo bench -p forge-sandbox`. The program runs itself again as the worker.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::panic, clippy::indexing_slicing)]

use std::ffi::OsString;
use std::time::{Duration, Instant};

use forge_contract::Digest;
use forge_contract::duty::Duty;
use forge_contract::fragment::Fragment;
use forge_contract::fragment::tree::Fold;
use forge_contract::id::JobId;
use forge_contract::limits::UnitLimits;
use forge_contract::manifest::{PartKind, PartSpec};
use forge_contract::report::{Completed, Outcome};
use forge_contract::seed::StageKey;
use forge_contract::task::{Cut, Task};
use forge_sandbox::engine::Backend;
use forge_sandbox::{CageLevel, Compiler, Inputs, Worker, local};
use tokio::sync::watch;

const NOOP: &[u8] = include_bytes!("../../../workloads/dist/noop@1.wasm");
const MC: &[u8] = include_bytes!("../../../workloads/dist/mc@1.wasm");
const MC_ARGS: &str = r#"{"aggregate_limit":250000,"cat_mu":10,"cat_prob":0.02,"cat_sig":1.5,"claim_freq":2,"claim_severity_mu":6,"claim_severity_sig":1,"iterations":1000000000,"policy_limit":50000}"#;

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("run") => forge_sandbox::worker_main(),
        Some("compile") => forge_sandbox::compile_main(),
        Some("mc") => return units("mc@1", MC, &mc(1024)),
        Some("fragments") => return fragments(),
        Some("noop") => return units("noop@1", NOOP, &noop(8192)),
        _ => {}
    }
    units("noop@1", NOOP, &noop(8192));
    units("mc@1", MC, &mc(256));
    units("mc@1, one item a unit", MC, &Task { cut: Cut::Items { total: 1 << 20, unit: 1 }, ..mc(2048) });
    fragments();
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(processes());
}

fn task(profile: &str, stage: &str, args: &str, part: (&str, PartKind), unit: u64, units: u64) -> Task {
    Task {
        job: JobId::new(0, 0),
        stage_index: 0,
        shard: 0,
        component: Digest::of(b""),
        component_bytes: 0,
        profile: profile.into(),
        stage: stage.into(),
        args: args.into(),
        key: StageKey([1; 32]),
        cut: Cut::Items { total: unit << 20, unit },
        first_unit: 0,
        unit_count: units,
        limits: UnitLimits { fuel: 1 << 36, memory_bytes: 32 << 20, output_bytes: 8 << 20 },
        parts: vec![PartSpec { name: part.0.into(), kind: part.1, counts_items: true, shown: true, unit: None }],
        inputs: vec![],
        duty: Duty::Compute,
    }
}

fn noop(units: u64) -> Task {
    task("count.v1", "count", r#"{"units":1000000}"#, ("work", PartKind::Count), 1, units)
}

fn mc(units: u64) -> Task {
    task("insurance.v1", "simulate", MC_ARGS, ("loss", PartKind::Distribution), 65_536, units)
}

fn completed(outcome: Outcome) -> Completed {
    outcome.completed().unwrap_or_else(|failure| panic!("{failure}"))
}

/// The shortest of a few repetitions.
fn best(mut work: impl FnMut()) -> Duration {
    let timed = |_| {
        let start = Instant::now();
        work();
        start.elapsed()
    };
    (0..7).map(timed).min().unwrap()
}

fn per(whole: Duration, count: u64) -> f64 {
    whole.as_secs_f64() * 1e6 / count as f64
}

fn units(name: &str, component: &[u8], task: &Task) {
    let start = Instant::now();
    let kernel = local::compile(component, Backend::CraneliftSpeed).unwrap();
    println!("{name}: compile {:?}, {} bytes of code", start.elapsed(), kernel.code_bytes());
    let mut fuel = 0;
    let took = best(|| fuel = completed(local::run_shard(&kernel, task, &Inputs::none(), |_| {}).outcome).fuel());
    println!("{name}: {:.1} us a unit, fuel {} a unit", per(took, task.unit_count), fuel / task.unit_count);
}

/// The host's share of one mc unit after the call: checking, encoding, hashing, folding.
fn fragments() {
    let kernel = local::compile(MC, Backend::CraneliftSpeed).unwrap();
    let task = mc(64);
    let found: Vec<Fragment> =
        (0..64).map(|unit| local::run_unit(&kernel, &task, unit, &Inputs::none()).unwrap().fragment).collect();
    let bytes = found[0].encode().len();
    let check = best(|| found.iter().for_each(|f| f.check(&task.parts, 65_536).unwrap()));
    let encode = best(|| found.iter().for_each(|f| drop(f.encode())));
    let digest = best(|| found.iter().for_each(|f| assert_ne!(f.digest(), Digest::of(b""))));
    let mut copies: Vec<Vec<Fragment>> = (0..7).map(|_| found.clone()).collect();
    let fold = best(|| {
        let mut fold = Fold::new(64);
        for (unit, fragment) in (0..).zip(copies.pop().unwrap()) {
            fold.insert(unit, 1, fragment).unwrap();
        }
        drop(fold.finish().unwrap());
    });
    println!(
        "mc@1 fragment of {bytes} bytes: check {:.1}, encode {:.1}, encode and digest {:.1}, fold {:.1} us a unit",
        per(check, 64),
        per(encode, 64),
        per(digest, 64),
        per(fold, 64)
    );
}

async fn processes() {
    let program = std::env::current_exe().unwrap();
    let compiler = Compiler::new(program.clone(), vec!["compile".into()], CageLevel::Required);
    let start = Instant::now();
    let code = compiler.compile(MC).await.unwrap();
    println!("mc@1: compiled in a caged child in {:?}", start.elapsed());
    let task = mc(1);
    let progress = watch::Sender::new(0);
    for _ in 0..5 {
        let start = Instant::now();
        let mut worker = Worker::spawn(&program, &[OsString::from("run")], CageLevel::Required).await.unwrap();
        let spawned = start.elapsed();
        let start = Instant::now();
        worker.load(&code).await.unwrap();
        let loaded = start.elapsed();
        let start = Instant::now();
        let result = worker.run(&task, &Inputs::none(), Duration::from_secs(60), &progress).await.unwrap();
        let ran = start.elapsed();
        let inside = Duration::from_micros(result.usage.wall_us);
        println!("worker: spawn to caged {spawned:?}, load {loaded:?}, one unit {ran:?} of which inside {inside:?}");
    }
}
