//! `forgepool run`: submit a contract, watch it, show what came out.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::Value;

use crate::blob::{self, Input};
use crate::client::{Client, status};
use crate::exit::Outcome;
use crate::progress::Progress;
use crate::target::TargetArgs;
use crate::{contract, result, screen};

/// Submits a contract, shows its progress and its result.
///
/// Progress goes to stderr, the result to stdout.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The contract as JSON (see examples/); `-` reads stdin
    #[arg(value_name = "CONTRACT.json")]
    contract: PathBuf,
    /// Send a file where needed and name its content in args.ARG, or name an array, ARG=vmem:NAME@VERSION; may be repeated
    #[arg(long = "input", value_name = "ARG=FILE")]
    inputs: Vec<Input>,
    /// Print the hub's answer as JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Print the job's identifier and return at once
    #[arg(long = "async")]
    detach: bool,
    /// No progress
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Runs the command.
///
/// # Errors
/// The file, the connection, or the hub's refusal.
pub async fn run(args: Args) -> Result<Outcome> {
    let contract = contract::read(&args.contract)?;
    let client = Client::new(args.target.resolve()?)?;
    let contract = blob::with_inputs(&client, contract, &args.inputs, args.quiet).await?;
    let job = client.submit(&contract).await?;
    if args.detach {
        screen::print(&format!("{job}\n"))?;
        return Ok(Outcome::Done);
    }
    let state = watch(&client, &job, args.quiet).await?;
    screen::print(&if args.json { screen::json(&state) } else { result::render(&state) })?;
    Ok(outcome(&state))
}

/// Follows a job to its end with a bar or lines on stderr; returns its last state.
///
/// # Errors
/// The connection broke for good, or the job is not there.
pub async fn watch(client: &Client, job: &str, quiet: bool) -> Result<Value> {
    let mut progress = Progress::new(quiet);
    let state = client.follow(job, &mut |event| progress.event(event)).await;
    progress.finish();
    Ok(state?)
}

/// What a job's last state means for the exit code.
#[must_use]
pub fn outcome(state: &Value) -> Outcome {
    match status(state) {
        "FAILED" | "CANCELLED" => Outcome::JobFailed,
        _ => Outcome::Done,
    }
}
