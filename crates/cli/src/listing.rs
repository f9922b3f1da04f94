//! Lists as the hub gives them, newest or first by name.

use anyhow::Result;
use serde_json::Value;

use crate::client::Client;
use crate::exit::Outcome;
use crate::screen;
use crate::target::TargetArgs;

/// Options of a list that is nothing but a list.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// At most this many
    #[arg(long, default_value_t = 50, value_name = "N")]
    limit: u32,
    /// Print the hub's answer as JSON instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

impl ListArgs {
    /// Shows the list behind a path, which may have a query.
    ///
    /// # Errors
    /// The connection, or the hub's refusal.
    pub async fn show(self, path: &str, render: impl FnOnce(&Value) -> String) -> Result<Outcome> {
        let client = Client::new(self.target.resolve()?)?;
        let joint = if path.contains('?') { '&' } else { '?' };
        let answer = client.read(&format!("{path}{joint}limit={}", self.limit)).await?;
        screen::show(&answer, self.json, render)
    }
}
