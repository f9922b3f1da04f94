//! `forgepool plan`: what a contract would do and cost.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::Value;

use crate::client::Client;
use crate::exit::Outcome;
use crate::table::{Align, Table};
use crate::target::TargetArgs;
use crate::{contract, number, screen};

/// Shows the plan and the quote of a contract. Nothing runs, nothing is charged.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The contract as JSON (see examples/); `-` reads stdin
    #[arg(value_name = "CONTRACT.json")]
    contract: PathBuf,
    /// Print the hub's answer as JSON instead of a table
    #[arg(long)]
    json: bool,
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
    let answer = client.plan(&contract).await?;
    screen::show(&answer, args.json, render)
}

fn render(answer: &Value) -> String {
    let text = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str).unwrap_or("").to_owned();
    let count = |value: Option<&Value>| value.and_then(Value::as_u64).map_or_else(String::new, number::count);
    let mut facts = Table::new(&[("", Align::Left), ("", Align::Left)]);
    for (meaning, value) in [
        ("op", text("/plan/op")),
        ("component", text("/plan/component")),
        ("root seed", text("/root_seed")),
        ("replay key", text("/replay_key")),
        ("plan digest", text("/plan_digest")),
        ("iterations", count(answer.get("iterations"))),
        (
            "quote",
            format!(
                "{} credits, {} EUR, {} fuel",
                answer.pointer("/quote/credits").unwrap_or(&Value::Null),
                answer.pointer("/quote/eur").unwrap_or(&Value::Null),
                count(answer.pointer("/quote/fuel"))
            ),
        ),
        (
            "of that",
            format!(
                "{} micro-credits work, {} of the {} that checking costs",
                count(answer.pointer("/quote/work_micro")),
                count(answer.pointer("/quote/verification_charged_micro")),
                count(answer.pointer("/quote/verification_micro"))
            ),
        ),
        ("held at first", format!("{} micro-credits", count(answer.pointer("/quote/hold_micro")))),
    ] {
        facts.row([meaning.to_owned(), value]);
    }
    if let Some(rule) = answer.pointer("/plan/stages").and_then(early_end) {
        facts.row(["may end early".to_owned(), rule]);
    }
    let mut stages = Table::new(&[
        ("stage", Align::Left),
        ("units", Align::Right),
        ("shards", Align::Right),
        ("units per shard", Align::Right),
    ]);
    for stage in answer.pointer("/plan/stages").and_then(Value::as_array).into_iter().flatten() {
        let name = stage.get("name").and_then(Value::as_str).unwrap_or("").to_owned();
        stages.row([name, count(stage.get("units")), count(stage.get("shards")), count(stage.get("shard_units"))]);
    }
    format!("{}\n{}", facts.render(), stages.render())
}

/// The stop rule of the stage that has one, and what it leaves of the quote.
fn early_end(stages: &Value) -> Option<String> {
    let stop = stages.as_array()?.iter().find_map(|stage| stage.get("stop"))?;
    Some(format!("{}; iterations and quote are the most it can take", stop.get("rule")?))
}
