//! `forgepool quickstart`: everything once, for real, in a few seconds.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::client::{Client, status};
use crate::exit::Outcome;
use crate::pool::{Layout, Pool, PoolError};
use crate::target::Target;
use crate::{contract, parent, result, run, screen, up};

/// Rounds after which a pool counts as warm whether or not every agent took part.
const WARM_UPS_MAX: u32 = 8;

/// Starts a pool of real processes, runs the quickstart's contract on it, shows the result, and proves that it repeats.
///
/// The contract is the one of the product's documentation. It runs on one pool of agents, then again on another with
/// a different number of them; the two results must be equal bit for bit. Nothing is left behind.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Agents of the first pool
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    agents: u32,
    /// Agents of the second pool
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    again: u32,
}

/// Runs the command.
///
/// # Errors
/// A process that does not come up, or the hub's refusal.
pub async fn run(args: Args) -> Result<Outcome> {
    let dir = tempfile::Builder::new().prefix("forgepool-quickstart-").tempdir().context("no temporary directory")?;
    tokio::select! {
        outcome = both(&args, dir.path()) => outcome,
        // Dropping the pools kills their processes.
        () = parent::interrupted() => Ok(Outcome::JobFailed),
    }
}

async fn both(args: &Args, dir: &Path) -> Result<Outcome> {
    screen::print(&format!(
        "Starting a hub and {} on this machine; each agent fetches the kernel by its digest and compiles it.\n",
        agents(args.agents)
    ))?;
    let first = once(args.agents, &dir.join("first")).await?;
    screen::print(&format!("\n{}", result::render(&first)))?;
    if status(&first) != "COMPLETED" {
        return Ok(Outcome::JobFailed);
    }
    screen::print(&format!("\nThe same contract again, on a new hub with {}.\n", agents(args.again)))?;
    let again = once(args.again, &dir.join("again")).await?;
    if status(&again) != "COMPLETED" {
        screen::print(&result::render(&again))?;
        return Ok(Outcome::JobFailed);
    }
    let (digest, digest_again) = (result::digest(&first), result::digest(&again));
    let same = digest.is_some() && digest == digest_again && result::output(&first) == result::output(&again);
    screen::print(&comparison(&first, &again, same))?;
    if !same {
        return Ok(Outcome::Differs);
    }
    screen::print(&goodbye())?;
    Ok(Outcome::Done)
}

fn agents(count: u32) -> String {
    if count == 1 { "one agent".to_owned() } else { format!("{count} agents") }
}

async fn once(agents: u32, data: &Path) -> Result<Value> {
    let any = ([127, 0, 0, 1], 0).into();
    let layout = Layout {
        data: data.to_owned(),
        http: any,
        quic: any,
        agents,
        cores_each: (up::cores() / agents).max(1),
        key: up::new_key()?,
        verbose: false,
    };
    let mut pool = Pool::start(layout).await?;
    let target = pool.target();
    let state = tokio::select! {
        state = submit(target, agents) => state,
        error = hub_end(&mut pool) => Err(error.into()),
    };
    pool.stop().await;
    state
}

async fn submit(target: Target, agents: u32) -> Result<Value> {
    let client = Client::new(target)?;
    warm_up(&client, agents).await?;
    let job = client.submit(contract::QUICKSTART).await?;
    run::watch(&client, &job, false).await
}

/// Lets every agent fetch and compile the kernel, with the same job under other seeds: the first agent that is ready
/// would do all of so small a job alone.
async fn warm_up(client: &Client, agents: u32) -> Result<()> {
    for round in 0..WARM_UPS_MAX {
        let seed = format!("WARM_UP_{round}");
        let job = client.submit(&contract::QUICKSTART.replace("ROOT_SEED_QUICKSTART", &seed)).await?;
        let state = run::watch(client, &job, true).await?;
        if result::metric(&state, "agents_used") >= Some(u64::from(agents)) || status(&state) != "COMPLETED" {
            break;
        }
    }
    Ok(())
}

async fn hub_end(pool: &mut Pool) -> PoolError {
    loop {
        if let Err(error) = pool.watch().await {
            return error;
        }
    }
}

fn comparison(first: &Value, again: &Value, same: bool) -> String {
    let line = |state: &Value| {
        let used = result::metric(state, "agents_used").and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
        let shards = result::metric(state, "shards").unwrap_or(0);
        let digest = result::digest(state).unwrap_or_else(|| "no digest".to_owned());
        format!("  {digest}  by {}, {shards} shards\n", agents(used))
    };
    let verdict = if same {
        "  Equal, bit for bit.\n"
    } else {
        "  THE RESULTS DIFFER. This must never happen: please report it with both answers.\n"
    };
    format!("{}{}{verdict}", line(first), line(again))
}

fn goodbye() -> String {
    let target = Target { url: "http://127.0.0.1:8080".into(), key: Some("$FORGEPOOL_API_KEY".into()), ca: None };
    format!(
        "
To repeat it yourself, start a pool that stays (it prints a key) and submit the contract:

{} up
{}",
        program(),
        contract::curl(&target, contract::QUICKSTART)
    )
}

/// This program as one would type it here: from `cargo run` it is not on the search path.
fn program() -> String {
    let Ok(path) = std::env::current_exe() else { return "forgepool".to_owned() };
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(&path).display().to_string()
}
