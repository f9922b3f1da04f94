//! `forgepool kernel list`: what the hub offers to this project.

use anyhow::Result;
use serde_json::Value;

use crate::client::Client;
use crate::exit::Outcome;
use crate::table::{Align, Table};
use crate::target::TargetArgs;
use crate::{number, screen};

/// Lists the kernels of the hub: built-ins and this project's own, with their states.
#[derive(Debug, clap::Args)]
pub struct Args {
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
    let answer = client.read("/api/v0/kernels").await?;
    screen::show(&answer, args.json, render)
}

fn render(answer: &Value) -> String {
    let mut table = Table::new(&[
        ("kernel", Align::Left),
        ("state", Align::Left),
        ("size", Align::Right),
        ("digest", Align::Left),
        ("profiles", Align::Left),
    ]);
    for kernel in answer.get("items").and_then(Value::as_array).into_iter().flatten() {
        let text = |name: &str| kernel.get(name).and_then(Value::as_str).unwrap_or("").to_owned();
        let whole = |name: &str| kernel.get(name).and_then(Value::as_u64).unwrap_or(0);
        let profiles = kernel.get("profiles").and_then(Value::as_array).into_iter().flatten();
        let profiles: Vec<&str> = profiles.filter_map(|p| p.get("name").and_then(Value::as_str)).collect();
        table.row([
            format!("{}@{}", text("name"), whole("version")),
            if text("state").is_empty() { "admitted".to_owned() } else { text("state") },
            number::bytes(whole("bytes")),
            text("digest").chars().take(16).collect(),
            profiles.join(", "),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_a_line() {
        let answer = serde_json::json!({ "items": [
            { "name": "mc", "version": 1, "digest": "ab".repeat(32), "bytes": 2048, "profiles": [{"name": "insurance.v1"}] },
            { "name": "acme/x", "version": 2, "digest": "cd".repeat(32), "bytes": 1, "state": "refused" },
        ]});
        let text = render(&answer);
        assert!(text.contains("mc@1      admitted  2.0 KiB  abababababababab  insurance.v1"), "{text}");
        assert!(text.contains("acme/x@2  refused"), "{text}");
    }
}
