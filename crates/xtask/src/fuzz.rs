//! Every decoder of foreign bytes under libFuzzer: coverage leads it, the properties of `tests/fuzz` judge.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::steps::{root, say, target_dir};

/// Arguments of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub struct Args {
    /// Inputs per target.
    #[arg(long, default_value_t = 1_000_000)]
    inputs: u64,
    /// Only this target.
    #[arg(long)]
    target: Option<String>,
}

/// Target, longest input in bytes: those of `forge_fuzz::TARGETS`, which fails the run where a name is unknown to it.
const TARGETS: [(&str, u32); 8] = [
    ("component", 131_072),
    ("manifest", 32_768),
    ("fragment", 16_384),
    ("envelope", 8_192),
    ("wire", 8_192),
    ("text", 256),
    ("plan", 16_384),
    ("bundle", 32_768),
];

const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// Counters at every edge, comparisons seen: what libFuzzer steers by. No sanitizer, so the stable compiler does.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing";

/// What a run of one target came to.
struct Outcome {
    inputs: u64,
    seconds: f64,
    edges: u64,
    good: bool,
}

/// Builds the targets with coverage and runs them one after the other.
pub fn run(args: &Args) -> Result<()> {
    let chosen: Vec<_> = TARGETS.iter().filter(|(name, _)| args.target.as_ref().is_none_or(|t| t == name)).collect();
    if chosen.is_empty() {
        bail!("no such target; there are {}", TARGETS.map(|(name, _)| name).join(", "));
    }
    let folder = target_dir()?.join("fuzz");
    build(&folder)?;
    let mut outcomes = Vec::new();
    for (name, longest) in chosen {
        say(&format!("== {name}"));
        outcomes.push((name, fuzz(&folder, name, *longest, args.inputs)?));
    }
    say("\ntarget           inputs    seconds    edges  result");
    for (name, outcome) in &outcomes {
        let result = if outcome.good { "ok" } else { "BROKEN" };
        say(&format!("{name:<12} {:>10} {:>10.1} {:>8}  {result}", outcome.inputs, outcome.seconds, outcome.edges));
    }
    if outcomes.iter().all(|(_, outcome)| outcome.good) {
        return Ok(());
    }
    bail!("a property does not hold; the input lies beside the corpus in {}", folder.display())
}

fn build(folder: &Path) -> Result<()> {
    let status = Command::new("cargo")
        .args(["build", "--locked", "--release", "--target", TRIPLE])
        .args(["--manifest-path", "tests/fuzz/libfuzzer/Cargo.toml"])
        .env("RUSTFLAGS", FLAGS)
        .env("CARGO_TARGET_DIR", folder)
        .current_dir(root()?)
        .status()
        .context("cargo cannot be started")?;
    if status.success() {
        Ok(())
    } else {
        bail!("libFuzzer's driver does not build; it needs a C++ compiler (Debian: apt-get install g++)")
    }
}

fn fuzz(folder: &Path, name: &str, longest: u32, inputs: u64) -> Result<Outcome> {
    let home = folder.join(name);
    let corpus = home.join("corpus");
    std::fs::create_dir_all(&corpus)?;
    let start = Instant::now();
    let output = Command::new(folder.join(TRIPLE).join("release/forge-libfuzzer"))
        .arg(&corpus)
        .arg(format!("-runs={inputs}"))
        .arg(format!("-max_len={longest}"))
        .arg(format!("-artifact_prefix={}/", home.display()))
        .args(["-seed=1", "-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1"])
        .env("FORGEPOOL_FUZZ_TARGET", name)
        .env("FORGEPOOL_FUZZ_CORPUS", &corpus)
        .output()
        .context("the fuzzer cannot be started")?;
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    std::fs::write(home.join("log"), &log)?;
    let good = output.status.success();
    if !good {
        let found = log.lines().filter(|line| !line.starts_with('#') && !line.starts_with("INFO")).take(12);
        found.for_each(say);
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(Outcome {
        inputs: number_after(&log, "stat::number_of_executed_units: ").unwrap_or(0),
        seconds,
        edges: number_after(&log, "cov: ").unwrap_or(0),
        good,
    })
}

/// The number behind the last mention of a word.
fn number_after(log: &str, word: &str) -> Option<u64> {
    let (_, rest) = log.rsplit_once(word)?;
    rest.trim_start().split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}
