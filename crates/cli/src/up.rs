//! `forgepool up`: a whole pool on this machine, until Ctrl-C.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::exit::Outcome;
use crate::pool::{Layout, News, Pool};
use crate::target::{DEV_ENV, Target, data_dir_default, variable};
use crate::{contract, parent, private, screen};

/// Starts a hub and agents on this machine and keeps them running until Ctrl-C.
///
/// Prints the URL, a project key and a curl that works, and writes DIR/dev.env, where the other commands find the
/// hub. Everything the pool has accepted is kept in DIR and goes on with the next start.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the pool keeps its data [default: the platform's data directory]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Address of the HTTP interface; port 0 picks a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    http: SocketAddr,
    /// Address that agents dial; port 0 picks a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:4433")]
    quic: SocketAddr,
    /// How many agents; they share this machine's cores [default: one per core, at most 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=256))]
    agents: Option<u32>,
    /// Let the processes log to this terminal instead of DIR/logs
    #[arg(long, short)]
    verbose: bool,
}

/// Cores this process may use.
#[must_use]
pub fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1))
}

/// Runs the command.
///
/// # Errors
/// A busy port, a second `up` on the directory, a process that does not come up, or the end of the hub.
pub async fn run(args: Args) -> Result<Outcome> {
    let data = args.data.map_or_else(data_dir_default, Ok)?;
    let data = std::path::absolute(&data).with_context(|| format!("cannot use {}", data.display()))?;
    let agents = args.agents.unwrap_or_else(|| cores().min(4));
    let layout = Layout {
        http: args.http,
        quic: args.quic,
        agents,
        cores_each: (cores() / agents.max(1)).max(1),
        key: key(&data)?,
        verbose: args.verbose,
        data: data.clone(),
    };
    let cores_each = layout.cores_each;
    let interrupted = parent::interrupted();
    tokio::pin!(interrupted);
    let mut pool = tokio::select! {
        pool = Pool::start(layout) => pool?,
        () = &mut interrupted => return Ok(Outcome::Done),
    };
    let target = pool.target();
    let written = private::write(&data.join(DEV_ENV), &dev_env(&target));
    let written = written.with_context(|| format!("cannot write {}", data.join(DEV_ENV).display()));
    if let Err(error) = written.and_then(|()| Ok(screen::print(&greeting(&pool, &target, &data, agents, cores_each))?))
    {
        pool.stop().await;
        return Err(error);
    }
    loop {
        tokio::select! {
            () = &mut interrupted => break,
            news = pool.watch() => match news {
                Ok(news) => screen::remark(&line(&news)),
                Err(error) => {
                    pool.stop().await;
                    return Err(error.into());
                }
            },
        }
    }
    screen::remark("\nstopping: agents finish the shards they run (Ctrl-C again ends at once)\n");
    tokio::select! {
        () = pool.stop() => screen::remark("stopped\n"),
        () = parent::interrupted() => screen::remark("ended at once\n"),
    }
    Ok(Outcome::Done)
}

/// The key that an earlier `up` left here, so that clients keep theirs; else a new one.
fn key(data: &Path) -> Result<String> {
    let left = std::fs::read_to_string(data.join(DEV_ENV)).ok().and_then(|text| variable(&text, "FORGEPOOL_API_KEY"));
    left.map_or_else(new_key, Ok)
}

/// A new project key: 256 random bits.
///
/// # Errors
/// The system gives no random bytes.
pub fn new_key() -> Result<String> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("the system gives no random bytes: {error}"))?;
    Ok(bytes.iter().fold("fpk_".to_owned(), |text, byte| format!("{text}{byte:02x}")))
}

fn line(news: &News) -> String {
    match news {
        News::Joined { number } => format!("agent {number} joined\n"),
        News::Restarting { number, status } => format!("agent {number} ended ({status}), starting it again\n"),
        News::GaveUp { number, error } => format!("agent {number} does not stay up and is left alone: {error}\n"),
    }
}

fn greeting(pool: &Pool, target: &Target, data: &Path, agents: u32, cores_each: u32) -> String {
    let cores = if cores_each == 1 { "1 core each".to_owned() } else { format!("{cores_each} cores each") };
    format!(
        "Forge Pool is up.

  url     {}
  key     {}
  agents  {agents} ({cores}), dialling {}
  data    {}
  env     {}

Try it:

{}
or: forgepool run examples/quickstart.json

Ctrl-C stops everything.
",
        target.url,
        target.key.as_deref().unwrap_or(""),
        pool.ready().quic,
        data.display(),
        data.join(DEV_ENV).display(),
        contract::curl(target, contract::QUICKSTART),
    )
}

fn dev_env(target: &Target) -> String {
    format!("FORGEPOOL_URL={}\nFORGEPOOL_API_KEY={}\n", target.url, target.key.as_deref().unwrap_or(""))
}
