//! Rows of the log as a table.

use anyhow::Result;
use serde_json::Value;

use crate::client::Client;
use crate::exit::Outcome;
use crate::table::{Align, Table};
use crate::target::TargetArgs;
use crate::{number, screen};

/// Which rows.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// At most this many
    #[arg(long, default_value_t = 20, value_name = "N")]
    limit: u32,
    /// Only rows older than this one
    #[arg(long, value_name = "SEQ")]
    before: Option<u64>,
    /// Only rows of this project
    #[arg(long, value_name = "PROJECT")]
    project: Option<String>,
    /// Only rows of this key, by its id or the start of its text
    #[arg(long, value_name = "KEY")]
    by: Option<String>,
    /// Only rows with this method and route, such as 'POST /api/v0/jobs/{id}/cancel'
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,
    /// Only rows with this trace id
    #[arg(long, value_name = "TRACE")]
    trace: Option<String>,
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
    let mut query = vec![("limit", args.limit.to_string())];
    query.extend(args.before.map(|before| ("before", before.to_string())));
    for (name, text) in [("project", args.project), ("key", args.by), ("action", args.action), ("trace_id", args.trace)]
    {
        query.extend(text.map(|text| (name, text)));
    }
    let (_, answer) = client.answer(client.request(reqwest::Method::GET, "/api/v0/audit").query(&query)).await?;
    screen::show(&answer, args.json, render)
}

fn render(answer: &Value) -> String {
    let mut table = Table::new(&[
        ("row", Align::Right),
        ("when (UTC)", Align::Left),
        ("project", Align::Left),
        ("key", Align::Left),
        ("what", Align::Left),
        ("outcome", Align::Left),
        ("note", Align::Left),
        ("from", Align::Left),
    ]);
    for row in answer.get("items").and_then(Value::as_array).into_iter().flatten() {
        let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or("").to_owned();
        let count = |name: &str| row.get(name).and_then(Value::as_u64).unwrap_or(0);
        let outcome = match (count("status"), text("code")) {
            (0, _) => String::new(),
            (status, code) => format!("{status} {code}").trim_end().to_owned(),
        };
        let (key, note, peer) = (text("key"), text("note"), text("peer"));
        let (seq, at) = (count("seq").to_string(), number::instant(count("at_ms")));
        table.row([seq, at, text("project"), key, text("action"), outcome, note, peer]);
    }
    if table.is_empty() { "no rows\n".to_owned() } else { table.render() }
}
