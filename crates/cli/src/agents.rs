//! `forgepool agents`: the agents of a hub, for its operator.

use anyhow::Result;
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::Client;
use crate::exit::Outcome;
use crate::table::{Align, Table};
use crate::target::TargetArgs;
use crate::{number, screen};

/// Lists a hub's agents, shows how one stands, enrols and reserves them, and takes quarantined ones in again or out for good.
///
/// The operator sees and does all of it; a key with the scope `provider` enrols, sees and reserves its organisation's own.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    word: Option<Word>,
    /// Print the hub's answer as JSON instead of a table
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Word {
    /// Every enrolled agent
    List,
    /// One agent: its record, what it earned, why that moved
    Show(Whom),
    /// Lifts a quarantine: the agent starts again as a stranger, one shard at a time
    Readmit(Whom),
    /// Takes an agent out for good: it loses what it holds, and what rests on it alone runs again
    Remove(Whom),
    /// Makes a token that enrols one agent, once, within a day; prints it
    Token(Token),
    /// Reserves an agent for a project, whose work alone it does from now on; for everybody's without one
    Reserve(Reserve),
}

#[derive(Debug, clap::Args)]
struct Token {
    /// Whoever enrols with it is a verifier: you run it and trust it; for the operator
    #[arg(long)]
    verifier: bool,
    /// The provider whose agent it enrols; for the operator
    #[arg(long)]
    provider: Option<String>,
    /// The project whose work alone it will do
    #[arg(long, value_name = "PROJECT")]
    reserve: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Reserve {
    #[command(flatten)]
    whom: Whom,
    /// The project
    #[arg(value_name = "PROJECT")]
    project: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Whom {
    /// The agent's identifier
    #[arg(value_name = "AGENT")]
    agent: String,
}

/// Runs the command.
///
/// # Errors
/// The connection, or the hub's refusal.
pub async fn run(args: Args) -> Result<Outcome> {
    let client = Client::new(args.target.resolve()?)?;
    let path = |whom: &Whom| format!("/api/v0/agents/{}", whom.agent);
    let order = async |whom: &Whom, word: &str| {
        client.answer(client.request(Method::POST, &format!("{}/{word}", path(whom)))).await.map(|(_, answer)| answer)
    };
    let (answer, render): (Value, fn(&Value) -> String) = match &args.word {
        None | Some(Word::List) => (client.read("/api/v0/agents").await?, list),
        Some(Word::Show(whom)) => (client.read(&path(whom)).await?, one),
        Some(Word::Readmit(whom)) => (order(whom, "readmit").await?, one),
        Some(Word::Remove(whom)) => (order(whom, "remove").await?, one),
        Some(Word::Token(Token { verifier, provider, reserve })) => {
            let wish = json!({ "verifier": verifier, "provider": provider, "reserved_for": reserve });
            (client.send_json(Method::POST, "/api/v0/agents/tokens", &wish).await?, token)
        }
        Some(Word::Reserve(Reserve { whom, project })) => {
            let path = format!("{}/reservation", path(whom));
            (client.send_json(Method::PUT, &path, &json!({ "reserved_for": project })).await?, one)
        }
    };
    screen::show(&answer, args.json, render)
}

fn text(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap_or("").to_owned()
}

fn count(value: &Value, name: &str) -> u64 {
    value.get(name).and_then(Value::as_u64).unwrap_or(0)
}

fn flag(value: &Value, name: &str) -> bool {
    value.get(name).and_then(Value::as_bool).unwrap_or(false)
}

fn token(answer: &Value) -> String {
    format!("{}\n", text(answer, "token"))
}

fn list(answer: &Value) -> String {
    let mut table = Table::new(&[
        ("agent", Align::Left),
        ("state", Align::Left),
        ("provider", Align::Left),
        ("reserved for", Align::Left),
        ("clean", Align::Right),
        ("accepted", Align::Right),
        ("quarantine", Align::Left),
    ]);
    for agent in answer.get("items").and_then(Value::as_array).into_iter().flatten() {
        let state = if flag(agent, "removed") { "removed".to_owned() } else { text(agent, "state") };
        table.row([
            text(agent, "agent_id"),
            state,
            text(agent, "provider"),
            text(agent, "reserved_for"),
            number::count(count(agent, "clean")),
            number::count(count(agent, "accepted")),
            text(agent, "quarantine_code"),
        ]);
    }
    if table.is_empty() { "no agent has enrolled yet\n".to_owned() } else { table.render() }
}

fn one(agent: &Value) -> String {
    let earnings = agent.get("earnings").cloned().unwrap_or_default();
    let micro = |name: &str| format!("{} micro-credits", number::count(count(&earnings, name)));
    let moment = |name: &str| agent.get(name).and_then(Value::as_u64).map(number::instant);
    let out = match (moment("removed_at_ms"), flag(agent, "quarantined")) {
        (Some(at), _) => format!("removed {at}"),
        (None, true) => format!("quarantined: {}", text(agent, "quarantine_code")),
        (None, false) if flag(agent, "connected") => "connected".to_owned(),
        (None, false) => "away".to_owned(),
    };
    let rows = [
        ("agent", text(agent, "agent_id")),
        ("state", out),
        ("provider", text(agent, "provider")),
        ("reserved for", text(agent, "reserved_for")),
        ("clean shards", number::count(count(agent, "clean"))),
        ("accepted shards", number::count(count(agent, "accepted"))),
        ("audited", percent(count(agent, "audit_ppm"))),
        ("strikes", count(agent, "strikes").to_string()),
        ("held", micro("held_micro")),
        ("payable", micro("payable_micro")),
        ("forfeited", micro("forfeited_micro")),
        ("enrolled (UTC)", moment("enrolled_at_ms").unwrap_or_default()),
        ("readmitted (UTC)", moment("readmitted_at_ms").unwrap_or_default()),
    ];
    let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
    for (name, value) in rows.into_iter().filter(|(_, value)| !value.is_empty()) {
        table.row([name.to_owned(), value]);
    }
    let mut shown = table.render();
    let mut events = Table::new(&[
        ("when (UTC)", Align::Left),
        ("what", Align::Left),
        ("job", Align::Left),
        ("stage/shard", Align::Left),
        ("why", Align::Left),
    ]);
    for event in agent.get("events").and_then(Value::as_array).into_iter().flatten() {
        let place =
            event.get("shard").and_then(Value::as_u64).map(|shard| format!("{}/{shard}", count(event, "stage")));
        events.row([
            number::instant(count(event, "at_ms")),
            text(event, "kind"),
            text(event, "job_id"),
            place.unwrap_or_default(),
            text(event, "detail"),
        ]);
    }
    if !events.is_empty() {
        shown.push('\n');
        shown.push_str(&events.render());
    }
    shown
}

/// Parts per million as a percentage, exactly.
fn percent(ppm: u64) -> String {
    let decimals = format!("{:04}", ppm % 10_000);
    match decimals.trim_end_matches('0') {
        "" => format!("{}%", ppm / 10_000),
        decimals => format!("{}.{decimals}%", ppm / 10_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_print_exactly() {
        assert_eq!([1_000_000, 50_000, 12_500, 1, 0].map(percent), ["100%", "5%", "1.25%", "0.0001%", "0%"]);
    }

    #[test]
    fn an_agent_is_shown_with_its_history() {
        let shown = one(&json!({
            "agent_id": "abc", "quarantined": true, "quarantine_code": "verification.mismatch", "clean": 0,
            "accepted": 1500, "audit_ppm": 1_000_000, "earnings": {"held_micro": 0, "payable_micro": 2_000, "forfeited_micro": 7},
            "enrolled_at_ms": 0,
            "events": [{"at_ms": 0, "kind": "refuted", "job_id": "J", "stage": 0, "shard": 3, "detail": "outvoted"}]
        }));
        for part in ["quarantined: verification.mismatch", "1,500", "2,000 micro-credits", "0/3", "outvoted"] {
            assert!(shown.contains(part), "{part} is not in\n{shown}");
        }
    }
}
