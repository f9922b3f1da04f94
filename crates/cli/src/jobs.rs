//! `forgepool jobs`: the project's jobs, newest first.

use anyhow::Result;
use serde_json::Value;

use crate::client::{Client, status};
use crate::exit::Outcome;
use crate::table::{Align, Table};
use crate::target::TargetArgs;
use crate::{number, screen};

/// Lists the project's jobs, newest first.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// At most this many
    #[arg(long, default_value_t = 20, value_name = "N")]
    limit: u32,
    /// Print the hub's answer as JSON instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Runs the command.
///
/// # Errors
/// The connection, or the hub's refusal.
pub async fn run(args: Args) -> Result<Outcome> {
    let client = Client::new(args.target.resolve()?)?;
    let answer = client.read(&format!("/api/v0/jobs?limit={}", args.limit)).await?;
    screen::show(&answer, args.json, render)
}

fn render(answer: &Value) -> String {
    let jobs = answer.get("items").and_then(Value::as_array);
    let mut table = Table::new(&[
        ("job", Align::Left),
        ("status", Align::Left),
        ("op", Align::Left),
        ("your label", Align::Left),
        ("wall", Align::Right),
        ("accepted (UTC)", Align::Left),
        ("code", Align::Left),
    ]);
    for job in jobs.into_iter().flatten() {
        let text = |name: &str| job.get(name).and_then(Value::as_str).unwrap_or("").to_owned();
        let moment = |name: &str| job.get(name).and_then(Value::as_u64);
        let (accepted, finished) = (moment("accepted_at_ms"), moment("finished_at_ms"));
        let wall = accepted.zip(finished).map(|(from, to)| format!("{} ms", number::count(to.saturating_sub(from))));
        table.row([
            text("job_id"),
            status(job).to_owned(),
            operation(job),
            text("client_job_id"),
            wall.unwrap_or_default(),
            accepted.map(number::instant).unwrap_or_default(),
            text("code"),
        ]);
    }
    if table.is_empty() {
        "no jobs yet: `forgepool run examples/quickstart.json` makes one\n".to_owned()
    } else {
        table.render()
    }
}

/// `mc@1 insurance.v1`, however the hub spells it.
pub(crate) fn operation(job: &Value) -> String {
    let Some(op) = job.get("op") else { return String::new() };
    if let Some(op) = op.as_str() {
        return op.to_owned();
    }
    let text = |name: &str| op.get(name).and_then(Value::as_str).unwrap_or("");
    let version = op.get("version").and_then(Value::as_u64).unwrap_or(0);
    format!("{}@{version} {}", text("name"), text("profile"))
}
