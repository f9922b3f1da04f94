//! `forgepool cancel`: end a job early.

use anyhow::Result;

use crate::client::{Client, status};
use crate::exit::Outcome;
use crate::screen;
use crate::target::TargetArgs;

/// Cancels a job. Cancelling a job that has ended changes nothing.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The job's identifier
    #[arg(value_name = "ID")]
    job: String,
    #[command(flatten)]
    target: TargetArgs,
}

/// Runs the command.
///
/// # Errors
/// The connection, or no such job.
pub async fn run(args: Args) -> Result<Outcome> {
    let client = Client::new(args.target.resolve()?)?;
    let state = client.cancel(&args.job).await?;
    screen::print(&format!("{} {}\n", args.job, status(&state)))?;
    Ok(Outcome::Done)
}
