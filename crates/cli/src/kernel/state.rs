//! `forgepool kernel yank` and `deprecate`: a version's state. Its bytes never change and never go.

use anyhow::Result;
use serde_json::json;

use crate::client::Client;
use crate::exit::Outcome;
use crate::kernel::show::{Label, render};
use crate::screen;
use crate::target::TargetArgs;

/// Takes a version off: no new job may use it. Old jobs still replay, and the version's name is never given away.
#[derive(Debug, clap::Args)]
pub struct YankArgs {
    /// `namespace/name@version`
    #[arg(value_name = "NAME@VERSION")]
    label: Label,
    /// Why, for everyone who asks for it
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    target: TargetArgs,
}

/// Advises against a version: jobs may still use it, and are told.
#[derive(Debug, clap::Args)]
pub struct DeprecateArgs {
    /// `namespace/name@version`
    #[arg(value_name = "NAME@VERSION")]
    label: Label,
    /// Why, and what to use instead
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Take the advice or the yank back: the version is admitted again
    #[arg(long)]
    undo: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Yanks a version.
///
/// # Errors
/// The connection, or the hub's refusal.
pub async fn yank(args: YankArgs) -> Result<Outcome> {
    set(&args.target, &args.label, "yanked", &args.reason).await
}

/// Deprecates a version.
///
/// # Errors
/// As [`yank`].
pub async fn deprecate(args: DeprecateArgs) -> Result<Outcome> {
    set(&args.target, &args.label, if args.undo { "admitted" } else { "deprecated" }, &args.reason).await
}

async fn set(target: &TargetArgs, label: &Label, state: &str, reason: &str) -> Result<Outcome> {
    let client = Client::new(target.resolve()?)?;
    let kernel = client.change(&label.path(), &json!({ "state": state, "reason": reason })).await?;
    screen::print(&render(label, &kernel))?;
    Ok(Outcome::Done)
}
