//! The grid of adversaries at full size.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::steps::Steps;

/// Arguments of `cargo xtask simulate`.
#[derive(clap::Args, Default)]
pub struct Args {
    /// Only one mode: spotcheck, quorum, full or none.
    #[arg(long)]
    mode: Option<String>,
    /// So many times the shards.
    #[arg(long, default_value_t = 1)]
    times: u64,
    /// Also write the table to this file, as Markdown.
    #[arg(long)]
    markdown: Option<PathBuf>,
}

/// Builds the grid in release and runs it; fails where a bound does not hold.
pub fn run(args: &Args) -> Result<()> {
    let mut steps = Steps::new(false);
    within(&mut steps, args)?;
    steps.finish()
}

/// The same as one of many steps.
pub fn within(steps: &mut Steps, args: &Args) -> Result<()> {
    // Of the lifecycle's package, so that no engine is built for it.
    let words = ["test", "--locked", "--release", "--package", "forge-lifecycle", "--test", "grid"];
    let words: Vec<&str> = words.into_iter().chain(["--", "--ignored", "--nocapture", "full_size"]).collect();
    let mut env = vec![("FORGEPOOL_GRID_TIMES", args.times.max(1).to_string())];
    if let Some(mode) = &args.mode {
        env.push(("FORGEPOOL_GRID_MODE", mode.clone()));
    }
    if let Some(path) = &args.markdown {
        // Tests run in their package's folder, the person is somewhere else.
        let path = std::path::absolute(path).context("the path of the table cannot be made absolute")?;
        env.push(("FORGEPOOL_GRID_MARKDOWN", path.to_string_lossy().into_owned()));
    }
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    steps.run_with("grid of adversaries", "cargo", &words, &env)
}
