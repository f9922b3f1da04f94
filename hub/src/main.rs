//! `forge-hub`: the hub alone, without a line of wasmtime.

use std::process::ExitCode;

use clap::Parser;
use forge_hub::{HubArgs, process};

/// The Forge Pool hub: plans, dispatches, verifies, reduces and records; it never computes.
#[derive(Debug, Parser)]
#[command(version)]
struct Line {
    #[command(flatten)]
    hub: HubArgs,
}

fn main() -> anyhow::Result<ExitCode> {
    // The child that parses uploads: before any thread or runtime.
    if std::env::args_os().nth(1).is_some_and(|word| word == forge_hub::admission::ADMIT) {
        forge_hub::admission::admit_main();
    }
    let line = Line::parse();
    process::log(line.hub.log_format);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let end = runtime.block_on(process::run(&line.hub, Vec::new()))?;
    if end == process::End::AtOnce {
        // Without waiting for what still runs.
        runtime.shutdown_background();
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
