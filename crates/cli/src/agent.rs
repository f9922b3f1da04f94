//! `forgepool agent`: one agent alone, and its owner's word to one that runs.

use std::cell::Cell;
use std::path::PathBuf;

use anyhow::Result;
use forge_agent::{News, Request, State, Status};
use serde_json::json;
use tokio::sync::oneshot;

use crate::exit::Outcome;
use crate::parent::Stop;
use crate::table::{Align, Table};
use crate::{kernels, number, parent, screen};

/// Runs an agent: dials out to a hub and computes for it in caged worker processes.
///
/// It never listens on the network. The first start needs an enrolment token from the hub's operator; from then on the
/// agent is known by the key in its data directory. It prints one line of JSON when it has joined, tries the hubs in
/// order and for ever when they are away, and finishes the shards it runs when it is asked to end (Ctrl-C or SIGTERM; a
/// second one ends it at once).
///
/// Limits are yours: cores, memory, disk, hours, kernels. What does not fit is given back to the hub before anything is
/// fetched for it, and costs the agent some of its place in the hub's order.
#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(args_conflicts_with_subcommands = true, after_help = AFTER)]
pub struct Args {
    #[command(subcommand)]
    word: Option<Word>,
    #[command(flatten)]
    agent: forge_agent::Args,
    /// Stop when standard input ends: an agent started by another process does not outlive it
    #[arg(long, hide = true)]
    parent_pipe: bool,
}

const AFTER: &str = "Examples:
  forgepool agent --hub hub.example:4433 --enroll fpe_...        the first start
  forgepool agent --hub hub.example:4433                         every other
  forgepool agent --config /etc/forgepool/agent.toml --hours 22:00-06:30+01:00
  forgepool agent status                                         how it is, from another terminal
What a provider's machine sees, and every limit: docs/providers.md";

/// What an owner says to an agent that runs on this machine.
#[derive(Debug, clap::Subcommand)]
enum Word {
    /// How the agent that runs here is
    Status(Whom),
    /// Takes no more shards until `resume`; those that run are finished
    Pause(Whom),
    /// Takes shards again
    Resume(Whom),
    /// Finishes the shards that run, then ends
    Drain(Whom),
}

/// Which agent is meant.
#[derive(Debug, clap::Args)]
struct Whom {
    /// Its data directory [default: the platform's data directory]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The TOML file it was started with, which may name the data directory
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Whether log lines are JSON.
    #[must_use]
    pub fn logs_json(&self) -> bool {
        self.agent.log_format == forge_agent::LogFormat::Json
    }
}

/// Runs the command.
///
/// # Errors
/// What trying again cannot mend, such as a hub that refuses this agent.
pub async fn run(mut args: Args) -> Result<Outcome> {
    match args.word {
        Some(Word::Status(whom)) => return say(&whom, Request::Status),
        Some(Word::Pause(whom)) => return say(&whom, Request::Pause),
        Some(Word::Resume(whom)) => return say(&whom, Request::Resume),
        Some(Word::Drain(whom)) => return say(&whom, Request::Drain),
        None => args.agent.known_kernels = kernels::named().collect(),
    }
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
    // Alone, it takes the time its shards need: whoever cannot wait asks twice, and a service manager kills.
    let patience = async {
        match args.parent_pipe {
            true => tokio::time::sleep(stop.grace()).await,
            false => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = &mut agent => ended?,
        () = patience => tracing::warn!("shards that still run are left to others"),
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

/// Says it to the agent and shows how it is then.
fn say(whom: &Whom, request: Request) -> Result<Outcome> {
    let data = forge_agent::data_directory(whom.data.clone(), whom.config.as_deref())?;
    let status = forge_agent::ask(&data, request)?;
    if whom.json {
        screen::print(&format!("{}\n", serde_json::to_string(&status)?))?;
    } else {
        screen::print(&rendered(&status))?;
    }
    Ok(Outcome::Done)
}

fn rendered(status: &Status) -> String {
    let state = match status.state {
        State::Working => "working".to_owned(),
        State::Paused => format!("paused ({})", status.paused_by.join(", ")),
        State::Draining => "draining: it ends when its shards are done".to_owned(),
        State::Away => "away: no hub takes it in at the moment".to_owned(),
    };
    let all = |texts: &[String], none: &str| if texts.is_empty() { none.to_owned() } else { texts.join(", ") };
    let hub = status.hub.as_deref().map(|hub| format!("{hub}, session {}", status.session.unwrap_or(0)));
    let rows = [
        ("state", state),
        ("agent", status.agent.clone()),
        ("hub", hub.unwrap_or_else(|| "none".to_owned())),
        ("shards now", format!("{} running, {} waiting", status.running, status.waiting)),
        (
            "since the start",
            format!("{} computed, {} failed, {} given back", status.completed, status.failed, status.declined),
        ),
        ("cores", status.cores.to_string()),
        ("memory", status.memory_bytes.map_or("not bounded".to_owned(), number::bytes)),
        ("disk", number::bytes(status.disk_bytes)),
        ("hours", all(&status.hours, "always")),
        ("kernels", status.kernels.as_ref().map_or("all".to_owned(), |kernels| all(kernels, "none"))),
        ("projects", all(&status.projects, "all")),
        ("labels", all(&status.labels, "none")),
        ("cage", status.cage.clone()),
        ("data", status.data.display().to_string()),
    ];
    let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
    for (name, value) in rows {
        table.row([name.to_owned(), value]);
    }
    let mut shown = table.render();
    if let Some(standing) = &status.standing {
        let count = |value: u64| number::count(value);
        let pay = |micro: u64| format!("{} micro-credits", number::count(micro));
        let rows = [
            ("clean shards", count(standing.clean)),
            ("accepted shards", count(standing.accepted)),
            ("audited", format!("{} of a million answers", count(standing.audit_ppm.into()))),
            ("quarantined", standing.quarantined.clone().unwrap_or_else(|| "no".to_owned())),
            ("held", pay(standing.held_micro)),
            ("payable", pay(standing.payable_micro)),
            ("forfeited", pay(standing.forfeited_micro)),
        ];
        let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
        for (name, value) in rows {
            table.row([name.to_owned(), value]);
        }
        for (at, event) in standing.events.iter().enumerate() {
            table.row([if at == 0 { "what happened" } else { "" }.to_owned(), event.clone()]);
        }
        shown.push_str("\nStanding at the hub\n");
        shown.push_str(&table.render());
    }
    shown
}
