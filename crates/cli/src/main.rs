//! `forgepool`: run the whole pool, submit contracts, look at jobs.

mod agent;
mod agents;
mod artifact;
mod audit;
mod backup;
mod blob;
mod books;
mod cancel;
mod client;
mod contract;
mod doctor;
mod evidence;
mod exit;
mod histogram;
mod hub;
mod job;
mod jobs;
mod kernel;
mod kernels;
mod key;
mod kv;
mod limits;
mod listing;
mod logging;
mod number;
mod offline;
mod org;
mod parent;
mod plan;
mod pool;
mod private;
mod progress;
mod project;
mod quickstart;
mod replay;
mod restore;
mod result;
mod run;
mod screen;
mod sse;
mod table;
mod target;
mod transfer;
mod trust;
mod up;
mod verify;
mod vmem;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

use exit::Outcome;

/// Runs one job on many machines that nobody has to trust, and gives back a result anyone can re-derive bit for bit.
#[derive(Debug, Parser)]
#[command(name = "forgepool", version, after_help = exit::HELP, after_long_help = format!("{AFTER}\n\n{}", exit::HELP))]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER: &str = "Begin with:
  forgepool quickstart                      a pool, a job, its result and the proof that it repeats
  forgepool up                              a pool that stays; prints its URL, a key and a curl
  forgepool run examples/quickstart.json    submit a contract to it

Commands that speak to a hub find it by --url and --key, by FORGEPOOL_URL and FORGEPOOL_API_KEY,
or by the dev.env that `forgepool up` leaves in its data directory.
FORGEPOOL_LOG sets what is logged, such as info or forge_hub=debug.";

#[derive(Debug, Subcommand)]
enum Command {
    Quickstart(quickstart::Args),
    Up(up::Args),
    Run(run::Args),
    Plan(plan::Args),
    Jobs(jobs::Args),
    Job(job::Args),
    Artifact(artifact::Args),
    Cancel(cancel::Args),
    Blob(blob::Args),
    Kv(kv::Args),
    Vmem(vmem::Args),
    Evidence(evidence::Args),
    Verify(verify::Args),
    Replay(replay::Args),
    Kernel(kernel::Args),
    Audit(audit::Args),
    Backup(backup::Args),
    Restore(restore::Args),
    Org(org::Args),
    Project(project::Args),
    Key(key::Args),
    Doctor(doctor::Args),
    Hub(hub::Args),
    Agent(agent::Args),
    Agents(agents::Args),
    Usage(books::usage::Args),
    Ledger(books::ledger::Args),
    Payouts(books::payouts::Args),
}

fn main() -> ExitCode {
    // The caged children of an agent: before any thread, allocation of a runtime or look at the environment.
    match std::env::args_os().nth(1).as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("__worker") => forge_sandbox::worker::worker_main(),
        Some("__compile") => forge_sandbox::worker::compile_main(),
        // The hub's child that parses uploads.
        Some(forge_hub::admission::ADMIT) => forge_hub::admission::admit_main(),
        _ => {}
    }
    let cli = Cli::parse();
    logging::start(cli.command.log_default(), cli.command.logs_json());
    match work(cli.command) {
        Ok(outcome) => outcome.into(),
        Err(error) => {
            screen::remark(&exit::explain(&error));
            exit::code(&error)
        }
    }
}

fn work(command: Command) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    let outcome = runtime.block_on(command.run());
    // A thread that waits on stdin must not hold the process.
    runtime.shutdown_background();
    outcome
}

impl Command {
    async fn run(self) -> Result<Outcome> {
        match self {
            Self::Quickstart(args) => quickstart::run(args).await,
            Self::Up(args) => up::run(args).await,
            Self::Run(args) => run::run(args).await,
            Self::Plan(args) => plan::run(args).await,
            Self::Jobs(args) => jobs::run(args).await,
            Self::Job(args) => job::run(args).await,
            Self::Artifact(args) => artifact::run(args).await,
            Self::Cancel(args) => cancel::run(args).await,
            Self::Blob(args) => blob::run(args).await,
            Self::Kv(args) => kv::run(args).await,
            Self::Vmem(args) => vmem::run(args).await,
            Self::Evidence(args) => evidence::run(args).await,
            Self::Verify(args) => verify::run(&args),
            Self::Replay(args) => replay::run(args).await,
            Self::Kernel(args) => kernel::run(args).await,
            Self::Audit(args) => audit::run(args).await,
            Self::Backup(args) => backup::run(args).await,
            Self::Restore(args) => restore::run(&args),
            Self::Org(args) => org::run(args).await,
            Self::Project(args) => project::run(args).await,
            Self::Key(args) => key::run(args).await,
            Self::Doctor(args) => doctor::run(args).await,
            Self::Hub(args) => hub::run(args).await,
            Self::Agent(args) => agent::run(args).await,
            Self::Agents(args) => agents::run(args).await,
            Self::Usage(args) => books::usage::run(args).await,
            Self::Ledger(args) => books::ledger::run(args).await,
            Self::Payouts(args) => books::payouts::run(args).await,
        }
    }

    /// What is logged where FORGEPOOL_LOG says nothing: parts of the pool tell what they do, clients only trouble.
    fn log_default(&self) -> &'static str {
        match self {
            Self::Hub(_) | Self::Agent(_) => "info",
            _ => "warn",
        }
    }

    fn logs_json(&self) -> bool {
        match self {
            Self::Hub(args) => args.logs_json(),
            Self::Agent(args) => args.logs_json(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
