//! The kernel alone: sandboxed, native, and numpy, in turn on one core.

use std::process::Command;
use std::time::Instant;

use forge_contract::JobId;
use forge_contract::envelope::Envelope;
use forge_contract::task::Task;
use forge_lifecycle::plan::{Kernel, plan};
use forge_sandbox::engine::Backend;
use forge_sandbox::{Inputs, local};
use forge_tests::binary::root;
use forge_tests::contract::insurance;

use crate::figures::{Report, median};

/// Iterations of one unit of mc@1.
pub const UNIT: u64 = 65_536;
/// Units of one timed stretch.
const UNITS: u64 = 64;

/// The sandboxed kernel, ready to run shards.
pub struct Sandboxed {
    kernel: local::LocalKernel,
    description: Kernel,
}

impl Sandboxed {
    pub fn load() -> Self {
        let component = std::fs::read(root().join("workloads/dist/mc@1.wasm")).expect("the committed component");
        let admitted = forge_lifecycle::admit::inspect(&component).expect("it is admissible");
        let description = Kernel { digest: admitted.digest, bytes: admitted.bytes, manifest: admitted.manifest };
        let kernel = local::compile(&component, Backend::CraneliftSpeed).expect("it compiles");
        Self { kernel, description }
    }

    /// A task of `count` whole units from unit `first`, of a job of `units` whole units.
    pub fn task(&self, units: u64, first: u64, count: u64) -> Task {
        let envelope = Envelope::parse(insurance(units * UNIT).to_string().as_bytes()).expect("a valid contract");
        let plan = plan(&envelope, &self.description).expect("a plan");
        let mut task = plan.task(JobId::from_bits(1), 0, 0, Vec::new()).expect("the first shard");
        task.first_unit = first;
        task.unit_count = count;
        task
    }

    /// Runs a shard; seconds it took.
    pub fn run(&self, task: &Task) -> f64 {
        let start = Instant::now();
        let result = local::run_shard(&self.kernel, task, &Inputs::none(), |_| {});
        assert!(matches!(result.outcome, forge_contract::report::Outcome::Completed(_)), "{:?}", result.outcome);
        start.elapsed().as_secs_f64()
    }
}

/// A field of the one JSON line that a program prints; `None` where the program is not there.
pub fn peer(program: &str, args: &[&str], field: &str) -> Option<f64> {
    let output = Command::new(program).args(args).current_dir(root()).output().ok()?;
    let line: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    line.get(field)?.as_f64()
}

/// Measures the three in turn, `rounds` times.
pub fn measure(report: &mut Report, rounds: usize) {
    let native = build_native("mc-native");
    let sandboxed = Sandboxed::load();
    let task = sandboxed.task(UNITS, 0, UNITS);
    sandboxed.run(&task);
    let (mut own, mut to_native, mut to_numpy) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let sandbox_ns = sandboxed.run(&task) * 1e9 / (UNITS * UNIT) as f64;
        own.push(sandbox_ns);
        let units = UNITS.to_string();
        if let Some(native_ns) = peer(&native, &["--units", &units, "--json"], "ns_per_iteration") {
            to_native.push((native_ns, native_ns / sandbox_ns));
        }
        let script = "tests/benches/peers/insurance_numpy.py";
        if let Some(numpy_ns) = peer("python3", &[script, "4194304"], "ns_per_iteration") {
            to_numpy.push((numpy_ns, numpy_ns / sandbox_ns));
        }
    }
    let ns = median(own);
    report.add("mc@1 in the sandbox", ns, "ns/iter", "", format!("{rounds} rounds of {UNITS} units, one core"));
    let pair = |pairs: &[(f64, f64)]| {
        (median(pairs.iter().map(|p| p.0).collect()), median(pairs.iter().map(|p| p.1).collect()))
    };
    if to_native.is_empty() {
        println!("native: the program could not be built or run; no ratio");
    } else {
        let (native_ns, ratio) = pair(&to_native);
        report.add(
            "sandbox speed / native speed",
            ratio,
            "x",
            ">= 0.75",
            format!("native {native_ns:.1} ns/iter, same source"),
        );
    }
    if to_numpy.is_empty() {
        println!("numpy: python3 with numpy is not there (pip install numpy); no ratio");
    } else {
        let (numpy_ns, ratio) = pair(&to_numpy);
        report.add(
            "sandbox speed / numpy speed",
            ratio,
            "x",
            ">= 1.3",
            format!("numpy {numpy_ns:.1} ns/iter, per core"),
        );
    }
}

/// Builds a kernel's native program; its path.
pub fn build_native(program: &str) -> String {
    let args = ["build", "--release", "--quiet", "--manifest-path", "workloads/Cargo.toml", "--bin", program];
    let built = Command::new("cargo").args(args).current_dir(root()).status();
    if !built.is_ok_and(|status| status.success()) {
        println!("native: cargo build of {program} failed");
    }
    root().join("workloads/target/release").join(program).to_string_lossy().into_owned()
}
