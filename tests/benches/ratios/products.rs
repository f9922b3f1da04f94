//! gemm@1 alone: one tile sandboxed, the same source natively, and numpy, in turn on one core.

use std::time::Instant;

use forge_contract::duty::{Challenge, Duty, Examination, FoundRef};
use forge_contract::envelope::Envelope;
use forge_contract::report::{Finding, Outcome};
use forge_contract::task::{InputRef, Task};
use forge_contract::{Digest, JobId};
use forge_lifecycle::plan::{Kernel, plan};
use forge_sandbox::engine::Backend;
use forge_sandbox::{Inputs, local};
use forge_tests::binary::root;
use forge_tests::contract::{changed, insurance};
use forge_tests::npy::{Matrix, Real};
use serde_json::json;

use crate::figures::{Report, median};
use crate::kernel::{build_native, peer};

/// Rows and columns of a tile.
const TILE: usize = 512;
/// Columns of A.
const DEPTH: usize = 1024;

/// Measures both precisions, `rounds` times each.
pub fn measure(report: &mut Report, rounds: usize) {
    let component = std::fs::read(root().join("workloads/dist/gemm@1.wasm")).expect("the committed component");
    let kernel = local::compile(&component, Backend::CraneliftSpeed).expect("it compiles");
    let native = build_native("gemm-native");
    let names = [
        "gemm@1 dgemm in the sandbox",
        "dgemm: sandbox / native speed",
        "dgemm: sandbox / numpy speed",
        "dgemm: check / unit, wall",
        "dgemm: check / unit, fuel",
    ];
    one::<f64>(report, rounds, (&component, &kernel), &native, ("dgemm", "float64", names));
    let names = [
        "gemm@1 sgemm in the sandbox",
        "sgemm: sandbox / native speed",
        "sgemm: sandbox / numpy speed",
        "sgemm: check / unit, wall",
        "sgemm: check / unit, fuel",
    ];
    one::<f32>(report, rounds, (&component, &kernel), &native, ("sgemm", "float32", names));
}

fn one<T: Real>(
    report: &mut Report,
    rounds: usize,
    (component, kernel): (&[u8], &local::LocalKernel),
    native: &str,
    (profile, dtype, names): (&str, &str, [&'static str; 5]),
) {
    let (task, inputs) = task::<T>(component, profile);
    let run = || {
        let start = Instant::now();
        local::run_unit(kernel, &task, 0, &inputs).expect("a tile");
        2.0 * (TILE * TILE * DEPTH) as f64 / start.elapsed().as_secs_f64() / 1e9
    };
    run();
    let depth = DEPTH.to_string();
    let single: &[&str] = if profile == "sgemm" { &["--single"] } else { &[] };
    let (mut own, mut to_native, mut to_numpy) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let sandbox = run();
        own.push(sandbox);
        let args = [&["--size", depth.as_str(), "--json"], single].concat();
        to_native.extend(peer(native, &args, "gflops").map(|native| (native, sandbox / native)));
        let args = ["tests/benches/peers/gemm_numpy.py", "bench", depth.as_str(), dtype];
        to_numpy.extend(peer("python3", &args, "gflops").map(|numpy| (numpy, sandbox / numpy)));
    }
    let [name, to_native_name, to_numpy_name, wall_name, fuel_name] = names;
    let note = format!("{rounds} rounds of one tile {TILE} x {TILE} x {DEPTH}, one core");
    report.add(name, median(own), "GFLOP/s", "", note);
    for (name, pairs, peer) in [(to_native_name, to_native, "native, same source"), (to_numpy_name, to_numpy, "numpy")]
    {
        if pairs.is_empty() {
            println!("{name}: {peer} is not there; no ratio");
            continue;
        }
        let gflops = median(pairs.iter().map(|pair| pair.0).collect());
        let ratio = median(pairs.iter().map(|pair| pair.1).collect());
        report.add(name, ratio, "x", "", format!("{peer} {gflops:.1} GFLOP/s, one thread"));
    }
    check(report, rounds, kernel, (&task, &inputs), [wall_name, fuel_name]);
}

/// What checking the tile costs against computing it, both in the sandbox, in turn.
fn check(
    report: &mut Report,
    rounds: usize,
    kernel: &local::LocalKernel,
    (task, inputs): (&Task, &Inputs),
    names: [&'static str; 2],
) {
    let honest = local::run_unit(kernel, task, 0, inputs).expect("a tile");
    let found = FoundRef { digest: Digest::of(&honest.bytes), bytes: honest.bytes.len() as u64 };
    let mut reads = inputs.clone();
    reads.set_found(&found, honest.bytes.into());
    let (mut walls, mut times, mut fuel) = (Vec::new(), Vec::new(), 0);
    for round in 0..rounds.max(1) * 3 {
        let start = Instant::now();
        local::run_unit(kernel, task, 0, inputs).expect("a tile");
        let unit_s = start.elapsed().as_secs_f64();
        let challenge = Challenge(*Digest::of(&round.to_le_bytes()).as_bytes());
        let duty = Duty::Check(Examination { found, challenge });
        let task = Task { unit_count: 1, duty, ..task.clone() };
        let start = Instant::now();
        let checked = local::run_shard(kernel, &task, &reads, |_| ());
        let check_s = start.elapsed().as_secs_f64();
        let Outcome::Checked(checked) = checked.outcome else { panic!("{:?}", checked.outcome) };
        assert!(matches!(checked.units[0].finding, Finding::Sound { .. }), "{:?}", checked.units);
        fuel = checked.fuel();
        walls.push(check_s / unit_s);
        times.push(check_s * 1e3);
    }
    let [wall_name, fuel_name] = names;
    let note = format!("{:.2} ms to check one tile, an instance of its own included", median(times));
    report.add(wall_name, median(walls), "x", "<= 0.05", note);
    let note = format!("{fuel} of {} fuel", honest.fuel);
    report.add(fuel_name, fuel as f64 / honest.fuel as f64, "x", "<= 0.05", note);
}

/// The first tile of a product of two by two.
fn task<T: Real>(component: &[u8], profile: &str) -> (Task, Inputs) {
    let admitted = forge_lifecycle::admit::inspect(component).expect("it is admissible");
    let description = Kernel { digest: admitted.digest, bytes: admitted.bytes, manifest: admitted.manifest };
    let side = 2 * TILE;
    let files = [Matrix::<T>::random(1, side, DEPTH).file(), Matrix::<T>::random(2, DEPTH, side).file()];
    let digests = files.each_ref().map(|bytes| Digest::of(bytes));
    let [a, b] = digests.map(|digest| digest.to_string());
    let op = json!({"name": "gemm", "version": 1, "profile": profile});
    let args = json!({"m": side, "n": side, "k": DEPTH, "a": a, "b": b});
    let contract = changed(insurance(1), &[("/op", op), ("/args", args)]);
    let envelope = Envelope::parse(contract.to_string().as_bytes()).expect("a valid contract");
    let plan = plan(&envelope, &description).expect("a plan");
    let mut inputs = Inputs::none();
    for ((name, digest), bytes) in ["a", "b"].into_iter().zip(digests).zip(files) {
        inputs.add(&InputRef { name: name.into(), digest, bytes: bytes.len() as u64 }, bytes.into());
    }
    let references = |input: &forge_sandbox::inputs::Input| InputRef {
        name: input.name.clone(),
        digest: input.digest,
        bytes: input.bytes,
    };
    let references = inputs.as_slice().iter().map(references).collect();
    (plan.task(JobId::from_bits(1), 0, 0, references).expect("the first shard"), inputs)
}
