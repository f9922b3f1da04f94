//! Benchmarks: every figure of the README, each as a ratio measured in one run.

use anyhow::Result;

use crate::steps::{Steps, root};

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Args {
    /// Rounds per figure; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Iterations of the large job.
    #[arg(long, default_value_t = 100_000_000)]
    iterations: u64,
    /// Shards of the job of many shards.
    #[arg(long, default_value_t = 100_000)]
    shards: u64,
    /// How long the load of many clients lasts, seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Only one group: kernel, platform, scale, load, sessions or stragglers.
    #[arg(long)]
    only: Option<String>,
    /// Also write the figures to this file as JSON.
    #[arg(long)]
    json: Option<String>,
}

/// Builds everything in release, then measures.
pub fn run(args: &Args) -> Result<()> {
    let mut steps = Steps::new(false);
    // One selection of packages for both, so that the engine is built once.
    let packages = ["--locked", "--package", "forgepool", "--package", "forge-tests"];
    let build: Vec<&str> = ["build", "--release"].into_iter().chain(packages).collect();
    steps.run("programs", "cargo", &build)?;
    let (rounds, iterations, shards) = (args.rounds.to_string(), args.iterations.to_string(), args.shards.to_string());
    let seconds = args.seconds.to_string();
    let mut words = vec!["bench"];
    words.extend(packages);
    words.extend(["--bench", "ratios", "--"]);
    words.extend(["--rounds", &rounds, "--iterations", &iterations, "--shards", &shards, "--seconds", &seconds]);
    if let Some(only) = &args.only {
        words.extend(["--only", only]);
    }
    if let Some(json) = &args.json {
        words.extend(["--json", json]);
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root()?.join("target"), Into::into);
    let program = target.join("release/forgepool").to_string_lossy().into_owned();
    steps.run_with("figures", "cargo", &words, &[("FORGEPOOL_BIN", &program)])
}
