//! `forgepool hub`: the hub alone, with the kernels that come with this program.

use anyhow::{Context as _, Result, bail};
use forge_hub::{HubArgs, KernelSource, Running};

use crate::exit::Outcome;
use crate::pool::HubReady;
use crate::{kernels, parent, private, screen};

/// Runs a hub: takes contracts over HTTP, gives work to agents that dial in, verifies, reduces, records.
///
/// It offers the kernels that come with this program and those of --kernels. Once it is ready it prints one line of
/// JSON with its addresses. It ends in order at Ctrl-C or SIGTERM, and at once at a second one (exit code 1).
#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    hub: HubArgs,
    /// Enrolment tokens to make and announce
    #[arg(long, hide = true, default_value_t = 0)]
    announce_tokens: u32,
    /// A further project to make, with a key to announce
    #[arg(long, hide = true)]
    announce_project: Option<String>,
}

impl Args {
    /// Whether log lines are JSON.
    #[must_use]
    pub fn logs_json(&self) -> bool {
        matches!(self.hub.log_format, forge_hub::config::LogFormat::Json)
    }
}

/// Runs the command.
///
/// # Errors
/// Whatever keeps the hub from starting.
pub async fn run(args: Args) -> Result<Outcome> {
    let mut running = forge_hub::start(args.hub.config(vec![built_in()])?).await?;
    let ready = announcement(&args, &running).await?;
    if let Some(path) = &args.hub.ready_file {
        private::write(path, &ready).with_context(|| format!("cannot write {}", path.display()))?;
    }
    screen::print(&ready)?;
    let stop = tokio::select! {
        stop = parent::stop(args.hub.parent_pipe) => stop,
        () = running.ended() => {
            tracing::error!("the HTTP server ended");
            parent::Stop::Asked
        }
    };
    tokio::select! {
        ended = tokio::time::timeout(stop.grace(), running.shutdown()) => {
            if ended.is_err() {
                tracing::warn!("what was still open is cut off");
            }
            Ok(Outcome::Done)
        }
        () = parent::interrupted() => bail!("ended at once at a second signal; what was acknowledged is stored"),
    }
}

fn built_in() -> KernelSource {
    let component = |(name, bytes): &(&str, &'static [u8])| ((*name).to_owned(), bytes::Bytes::from_static(bytes));
    KernelSource::Embedded {
        components: kernels::BUILT_IN.iter().map(component).collect(),
        pins: Some(kernels::PINS.to_owned()),
    }
}

async fn announcement(args: &Args, running: &Running) -> Result<String> {
    let mut enrol_tokens = Vec::new();
    // Announced to whoever started this hub: agents of its own machine, which it may trust to settle what kernels give.
    for _ in 0..args.announce_tokens {
        enrol_tokens.push(running.enrol_token(true).await?);
    }
    let mut project_keys = std::collections::BTreeMap::new();
    if let Some(project) = &args.announce_project {
        project_keys.insert(project.clone(), running.project_key(project).await?);
    }
    let ready = HubReady {
        http: running.http_addr,
        quic: running.quic_addr,
        hub_key: running.hub_key.clone(),
        api_key: running.api_key.clone(),
        enrol_tokens,
        project_keys,
    };
    Ok(serde_json::to_string(&ready)? + "\n")
}
