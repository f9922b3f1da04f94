//! `forgepool usage`: what a project used, what it burns, and how long its budget lasts.

use anyhow::Result;
use serde_json::Value;

use super::{Export, count, millionths, more, report, signed, text, with};
use crate::client::Client;
use crate::exit::Outcome;
use crate::number;
use crate::table::{Align, Table};
use crate::target::TargetArgs;

/// Shows what the project used by day and kernel, what it burns, and how long its budget lasts.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The first day, UTC [default: 29 days before the last]
    #[arg(long, value_name = "YYYY-MM-DD")]
    from: Option<String>,
    /// The last day, UTC [default: today]
    #[arg(long, value_name = "YYYY-MM-DD")]
    to: Option<String>,
    /// Another project than the key's own (scope `admin`)
    #[arg(long, value_name = "PROJECT", conflicts_with = "all")]
    project: Option<String>,
    /// Every project (scope `admin`)
    #[arg(long)]
    all: bool,
    /// Print the hub's answer as JSON instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    export: Export,
    #[command(flatten)]
    target: TargetArgs,
}

/// Runs the command.
///
/// # Errors
/// The connection, the hub's refusal, or a file that cannot be written.
pub async fn run(args: Args) -> Result<Outcome> {
    let client = Client::new(args.target.resolve()?)?;
    let path = format!("/api/v0/usage?all={}", args.all);
    let path = with(path, &[("from", &args.from), ("to", &args.to), ("project", &args.project)]);
    report(&client, (&path, ""), (&args.export, args.json), render).await
}

fn render(answer: &Value) -> String {
    let mut table = Table::new(&[
        ("day", Align::Left),
        ("project", Align::Left),
        ("kernel", Align::Left),
        ("mode", Align::Left),
        ("jobs", Align::Right),
        ("fuel", Align::Right),
        ("credits", Align::Right),
        ("EUR", Align::Right),
    ]);
    for item in answer.get("items").and_then(Value::as_array).into_iter().flatten() {
        table.row([
            text(item, "day"),
            text(item, "project"),
            text(item, "kernel"),
            text(item, "mode"),
            number::count(count(item, "jobs")),
            number::count(count(item, "fuel")),
            millionths(signed(item, "credits_micro")),
            millionths(signed(item, "eur_micro")),
        ]);
    }
    let days = format!("{} to {}", text(answer, "from"), text(answer, "to"));
    let total = answer.get("total").cloned().unwrap_or_default();
    let mut shown = if table.is_empty() { format!("nothing was used from {days}\n") } else { table.render() };
    shown.push('\n');
    let mut facts = Table::new(&[("", Align::Left), ("", Align::Right)]);
    let credits = |micro: i64| format!("{} credits", millionths(micro));
    facts.row([format!("charged {days}"), credits(signed(&total, "charged_micro"))]);
    if let Some(burn) = answer.get("burn") {
        for (meaning, name) in [
            ("charged in the last hour", "hour_micro"),
            ("charged in the last 24 hours", "day_micro"),
            ("charged in the last 30 days", "month_micro"),
            ("30 days at the pace of the last 24 hours", "month_projected_micro"),
            ("held for jobs that run", "held_micro"),
        ] {
            facts.row([meaning.to_owned(), credits(signed(burn, name))]);
        }
    }
    if let Some(budget) = answer.get("budget") {
        facts.row(["balance".to_owned(), credits(signed(budget, "balance_micro"))]);
        if budget.get("budget_micro").is_some() {
            facts.row([format!("budget ({})", text(budget, "budget_period")), credits(signed(budget, "budget_micro"))]);
            facts.row(["left of it".to_owned(), credits(signed(budget, "left_micro"))]);
        }
    }
    if let Some(days) = answer.pointer("/burn/days_left").and_then(Value::as_f64) {
        facts.row(["days until it is spent, at the pace of the last 24 hours".to_owned(), format!("{days:.1}")]);
    }
    shown.push_str(&facts.render());
    shown + &more(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_report_says_what_was_used_and_what_is_left() {
        let shown = render(&json!({
            "from": "2026-11-01", "to": "2026-11-30",
            "items": [{"day": "2026-11-30", "project": "p", "kernel": "mc@1", "mode": "billable", "jobs": 3, "fuel": 3000,
                "credits_micro": 1_420_000, "eur_micro": 170_001}],
            "total": {"charged_micro": 1_420_000},
            "burn": {"hour_micro": 1, "day_micro": 1_420_000, "month_micro": 1_420_000, "month_projected_micro": 42_600_000,
                "held_micro": 0, "days_left": 7.5},
            "budget": {"project": "p", "budget_micro": 12_000_000, "budget_period": "month", "left_micro": 10_580_000,
                "balance_micro": -1_420_000}
        }));
        for part in ["mc@1", "0.170001", "budget (month)", "10.58 credits", "-1.42 credits", "7.5", "42.6 credits"] {
            assert!(shown.contains(part), "{part} is not in\n{shown}");
        }
        assert!(render(&json!({"from": "a", "to": "b", "items": []})).contains("nothing was used from a to b"));
    }
}
