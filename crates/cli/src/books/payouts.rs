//! `forgepool payouts`: what providers earned, and payments to them.

use anyhow::Result;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Export, millionths, more, report, signed, text};
use crate::client::Client;
use crate::exit::Outcome;
use crate::screen;
use crate::table::{Align, Table};
use crate::target::TargetArgs;

/// Shows what the agents of the key's project earned, and records payments to them.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    word: Option<Word>,
    /// The agents of everybody (scope `admin`)
    #[arg(long)]
    all: bool,
    /// Print the hub's answer as JSON instead of a table
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    export: Export,
    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Word {
    /// Records that a provider was paid (scope `admin`). The payment itself is made elsewhere; the same reference again
    /// changes nothing
    Record {
        /// The agent it is for
        #[arg(value_name = "AGENT")]
        agent: String,
        /// Micro-credits, at most what is payable
        #[arg(value_name = "MICRO")]
        micro: u64,
        /// The payment's own number, such as that of the transfer
        #[arg(long, value_name = "TEXT")]
        reference: String,
    },
}

/// Runs the command.
///
/// # Errors
/// The connection, the hub's refusal, or a file that cannot be written.
pub async fn run(args: Args) -> Result<Outcome> {
    let client = Client::new(args.target.resolve()?)?;
    if let Some(Word::Record { agent, micro, reference }) = &args.word {
        let wish = json!({"agent_id": agent, "credits_micro": micro, "reference": reference});
        let request = client.request(Method::POST, "/api/v0/payouts").header("content-type", "application/json");
        let (status, answer) = client.answer(request.body(wish.to_string())).await?;
        let again = if status == reqwest::StatusCode::OK { ", as before" } else { "" };
        let said = |answer: &Value| format!("posted as number {}{again}\n", super::count(answer, "seq"));
        return screen::show(&answer, args.json, said);
    }
    let path = format!("/api/v0/payouts?all={}", args.all);
    report(&client, (&path, "&limit=1000"), (&args.export, args.json), render).await
}

fn render(answer: &Value) -> String {
    let mut table = Table::new(&[
        ("agent", Align::Left),
        ("provider", Align::Left),
        ("held", Align::Right),
        ("payable", Align::Right),
        ("paid", Align::Right),
        ("forfeited", Align::Right),
    ]);
    for item in answer.get("items").and_then(Value::as_array).into_iter().flatten() {
        let micro = |name: &str| millionths(signed(item, name));
        table.row([
            text(item, "agent_id"),
            text(item, "provider"),
            micro("held_micro"),
            micro("payable_micro"),
            micro("paid_micro"),
            micro("forfeited_micro"),
        ]);
    }
    let shown = if table.is_empty() { "no agent has enrolled in this project\n".to_owned() } else { table.render() };
    shown + &more(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pay_is_shown_in_credits() {
        let shown = render(&json!({"items": [{"agent_id": "abc", "held_micro": 800_000, "payable_micro": 5,
            "paid_micro": 2_000_000, "forfeited_micro": 0}]}));
        for part in ["abc", "0.8", "0.000005", "2", "forfeited"] {
            assert!(shown.contains(part), "{part} is not in\n{shown}");
        }
    }
}
