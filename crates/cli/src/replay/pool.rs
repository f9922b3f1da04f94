//! A job again on the pool.

use anyhow::Result;
use serde_json::Value;

use super::Args;
use crate::client::Client;
use crate::exit::Outcome;
use crate::{result, run, screen};

/// Asks the hub to repeat a job, follows the new one, and says what it found.
///
/// # Errors
/// The connection, or the hub's refusal.
pub async fn run(args: &Args, job: &str) -> Result<Outcome> {
    let client = Client::new(args.target.resolve()?)?;
    let replay = client.replay(job).await?;
    let state = run::watch(&client, &replay, args.quiet).await?;
    screen::print(&match args.json {
        true => screen::json(&state),
        false => format!("{}\n{}", result::render(&state), verdict(&state)),
    })?;
    Ok(match verdict_word(&state) {
        Some("different") => Outcome::Differs,
        _ => run::outcome(&state),
    })
}

fn verdict_word(state: &Value) -> Option<&str> {
    state.pointer("/replay/verdict").and_then(Value::as_str)
}

fn verdict(state: &Value) -> String {
    let of = state.pointer("/replay/of").and_then(Value::as_str).unwrap_or("");
    match verdict_word(state) {
        Some("equal") => format!("EQUAL: every unit gave the bits of job {of} and burned its fuel\n"),
        Some(_) => match state.pointer("/replay/first_difference") {
            Some(first) => {
                let number = |name: &str| first.get(name).and_then(Value::as_u64).unwrap_or_default();
                let said = |name: &str| {
                    let unit = first.get(name);
                    let digest =
                        unit.and_then(|unit| unit.get("digest")).and_then(Value::as_str).unwrap_or("no such unit");
                    let fuel = unit.and_then(|unit| unit.get("fuel")).and_then(Value::as_u64);
                    fuel.map_or_else(|| digest.to_owned(), |fuel| format!("{digest}, {fuel} fuel"))
                };
                format!(
                    "DIFFERENT from job {of}: stage {}, unit {} is the first\n  recorded  {}\n  found     {}\n",
                    number("stage"),
                    number("unit"),
                    said("recorded"),
                    said("found")
                )
            }
            None => format!("DIFFERENT from job {of} in the result's digest; that job kept no units to compare\n"),
        },
        None => format!("job {of} could not be compared: the replay has no result\n"),
    }
}
