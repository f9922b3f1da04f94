//! `forgepool kernel show`: one version of a kernel.

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::client::Client;
use crate::exit::Outcome;
use crate::target::TargetArgs;
use crate::{number, screen};

/// Shows one version of a kernel: its state, digest, profiles and arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// `name@version`, or `namespace/name@version`
    #[arg(value_name = "NAME@VERSION")]
    label: Label,
    /// Print the hub's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// A kernel's name and version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    name: String,
    version: u32,
}

impl std::str::FromStr for Label {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, version) = text.rsplit_once('@').context("expected name@version, such as default/pricer@1")?;
        let version = version.parse().with_context(|| format!("'{version}' is no version: a whole number from 1"))?;
        Ok(Self { name: name.to_owned(), version })
    }
}

impl Label {
    /// The version of a kernel.
    #[must_use]
    pub fn new(name: &str, version: u32) -> Self {
        Self { name: name.to_owned(), version }
    }

    /// Where the hub has it.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/api/v0/kernels/{}/{}", self.name, self.version)
    }
}

impl std::fmt::Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

/// Runs the command.
///
/// # Errors
/// The connection, or no such kernel.
pub async fn run(args: Args) -> Result<Outcome> {
    let client = Client::new(args.target.resolve()?)?;
    let kernel = client.read(&args.label.path()).await?;
    screen::print(&if args.json { screen::json(&kernel) } else { render(&args.label, &kernel) })?;
    Ok(Outcome::Done)
}

/// A kernel for people: what the hub says of it, then its profiles.
#[must_use]
pub fn render(label: &Label, kernel: &Value) -> String {
    let mut text = format!("{label}\n");
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            text.push_str(&format!("  {name:<9}{value}\n"));
        }
    };
    let word = |name: &str| kernel.get(name).and_then(Value::as_str).unwrap_or("");
    line("state", if word("state").is_empty() { "admitted" } else { word("state") });
    line("reason", word("reason"));
    line("digest", word("digest"));
    line("size", &kernel.get("bytes").and_then(Value::as_u64).map(number::bytes).unwrap_or_default());
    line("summary", word("summary"));
    for profile in kernel.get("profiles").and_then(Value::as_array).into_iter().flatten() {
        let word = |name: &str| profile.get(name).and_then(Value::as_str).unwrap_or("");
        text.push_str(&format!("  {}: {}\n", word("name"), word("summary")));
        let arguments = profile.pointer("/args/properties").and_then(Value::as_object);
        for (name, schema) in arguments.into_iter().flatten() {
            text.push_str(&format!("    {name}: {}\n", argument(schema)));
        }
    }
    text
}

/// `number, default 1.0 (metres): Radius of the disc.`
fn argument(schema: &Value) -> String {
    let word = |name: &str| schema.get(name).and_then(Value::as_str);
    let mut text = word("type").unwrap_or("any").to_owned();
    if let Some(default) = schema.get("default") {
        text.push_str(&format!(", default {default}"));
    }
    if let Some(unit) = word("x-unit") {
        text.push_str(&format!(" ({unit})"));
    }
    word("description").map_or(text.clone(), |what| format!("{text}: {what}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn labels_are_read_from_the_right() {
        let label: Label = "acme/pricer@3".parse().unwrap();
        assert_eq!(
            (label.path().as_str(), label.to_string().as_str()),
            ("/api/v0/kernels/acme/pricer/3", "acme/pricer@3")
        );
        assert!("acme/pricer".parse::<Label>().is_err());
        assert!("mc@x".parse::<Label>().is_err());
    }

    #[test]
    fn arguments_are_shown_with_default_and_unit() {
        let kernel = serde_json::json!({
            "state": "yanked", "reason": "wrong", "digest": "ab", "bytes": 10,
            "profiles": [{"name": "p", "summary": "s", "args": {"properties": {
                "r": {"type": "number", "default": 1.0, "x-unit": "metres", "description": "Radius."}}}}],
        });
        let text = render(&Label::new("acme/x", 1), &kernel);
        assert!(text.contains("state    yanked\n  reason   wrong"), "{text}");
        assert!(text.contains("    r: number, default 1.0 (metres): Radius.\n"), "{text}");
    }
}
