//! Benchmarks: every figure of the README, each as a ratio measured in one run.

use anyhow::Result;

use crate::steps::Steps;

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Args {
    /// Rounds per figure; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Iterations of the large job.
    #[arg(long, default_value_t = 100_000_000)]
    iterations: u64,
    /// Only one group: kernel or platform.
    #[arg(long)]
    only: Option<String>,
    /// Also write the figures to this file as JSON.
    #[arg(long)]
    json: Option<String>,
}

/// Builds everything in release, then measures.
pub fn run(args: &Args) -> Result<()> {
    let mut steps = Steps::new(false);
    steps.run("programs", "cargo", &["build", "--release", "--locked", "--package", "forgepool"])?;
    let (rounds, iterations) = (args.rounds.to_string(), args.iterations.to_string());
    let mut words = vec!["bench", "--locked", "--package", "forge-tests", "--bench", "ratios", "--"];
    words.extend(["--rounds", &rounds, "--iterations", &iterations]);
    if let Some(only) = &args.only {
        words.extend(["--only", only]);
    }
    if let Some(json) = &args.json {
        words.extend(["--json", json]);
    }
    steps.run("figures", "cargo", &words)
}
