//! `forgepool agent`: one agent alone.

use std::cell::Cell;

use anyhow::Result;
use forge_agent::News;
use serde_json::json;
use tokio::sync::oneshot;

use crate::exit::Outcome;
use crate::parent::Stop;
use crate::{parent, screen};

/// Runs an agent: dials out to a hub and computes for it in caged worker processes.
///
/// It never listens. It prints one line of JSON when it has joined, keeps trying when the hub is away, and finishes
/// the shards it runs when it is asked to end (Ctrl-C; a second one ends it at once).
#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    agent: forge_agent::Args,
    /// Stop when standard input ends: an agent started by another process does not outlive it
    #[arg(long, hide = true)]
    parent_pipe: bool,
}

/// Runs the command.
///
/// # Errors
/// What trying again cannot mend, such as a hub that refuses this agent.
pub async fn run(args: Args) -> Result<Outcome> {
    let (ask, asked) = oneshot::channel::<()>();
    let announced = Cell::new(false);
    let tell = |news: News| {
        if let News::Joined { agent, session } = news
            && !announced.replace(true)
        {
            let line = json!({ "event": "joined", "agent": agent.to_string(), "session": session });
            // A parent that is gone is noticed elsewhere.
            screen::print(&format!("{line}\n")).ok();
        }
    };
    let agent = forge_agent::run_telling(args.agent, async { drop(asked.await) }, tell);
    tokio::pin!(agent);
    let stop = tokio::select! {
        ended = &mut agent => {
            ended?;
            return Ok(Outcome::Done);
        }
        stop = parent::stop(args.parent_pipe) => stop,
    };
    drop(ask);
    tokio::select! {
        ended = &mut agent => ended?,
        () = tokio::time::sleep(stop.grace()) => tracing::warn!("shards that still run are left to others"),
        () = second_signal(stop) => tracing::warn!("ended at once"),
    }
    Ok(Outcome::Done)
}

/// Returns at a further signal of a user at the terminal.
async fn second_signal(stop: Stop) {
    match stop {
        Stop::Asked => parent::interrupted().await,
        Stop::Orphaned => std::future::pending().await,
    }
}
