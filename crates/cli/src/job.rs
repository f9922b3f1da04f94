//! `forgepool job`: one job, whole.

use anyhow::Result;
use clap::ValueEnum;

use crate::client::{Client, is_final};
use crate::exit::Outcome;
use crate::target::TargetArgs;
use crate::{result, run, screen};

/// Shows one job: its state, its result, what it took.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The job's identifier
    #[arg(value_name = "ID")]
    job: String,
    /// Print the hub's answer as JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Wait for its end, showing progress
    #[arg(long, short)]
    follow: bool,
    /// Print this part of the job's record as JSON
    #[arg(long, value_name = "PART")]
    show: Option<Part>,
    #[command(flatten)]
    target: TargetArgs,
}

/// What a job leaves behind.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Part {
    /// Every attempt at every shard: agent, seed, digest, wall and processor time, fuel
    Executions,
    /// Every accepted shard: whose answer, how it was checked, by whom, and what they found
    Verification,
    /// Immutable artifacts with their digests
    Artifacts,
}

/// Runs the command.
///
/// # Errors
/// The connection, or no such job.
pub async fn run(args: Args) -> Result<Outcome> {
    let client = Client::new(args.target.resolve()?)?;
    if let Some(part) = args.show {
        let part = match part {
            Part::Executions => "executions",
            Part::Verification => "verification",
            Part::Artifacts => "artifacts",
        };
        screen::print(&screen::json(&client.read(&format!("/api/v0/jobs/{}/{part}", args.job)).await?))?;
        return Ok(Outcome::Done);
    }
    let mut state = client.job(&args.job).await?;
    if args.follow && !is_final(&state) {
        state = run::watch(&client, &args.job, false).await?;
    }
    screen::print(&if args.json { screen::json(&state) } else { result::render(&state) })?;
    Ok(run::outcome(&state))
}
