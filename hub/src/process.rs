//! The hub as a process: from its command line to its last log line.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::oneshot;
use tracing_subscriber::EnvFilter;

use crate::config::{HubArgs, LogFormat};
use crate::registry::KernelSource;
use crate::start::{Running, StartError, start};

/// What a parent asks on standard input for an orderly end.
const DRAIN: &str = "drain";
/// How long an orderly end may take.
const ASKED_TIME: Duration = Duration::from_secs(10);
/// How long the end may take once the parent is gone.
const ORPHANED_TIME: Duration = Duration::from_secs(2);

/// What a parent or an operator needs to know once the hub is ready: one line of JSON on standard output, and the
/// file of `--ready-file`.
#[derive(Debug, Serialize)]
struct Ready<'a> {
    event: &'static str,
    http: String,
    quic: String,
    hub_key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<&'a str>,
    pid: u32,
}

/// Logs to standard error; `RUST_LOG` chooses what. Does nothing where logging is set up already.
pub fn log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second initialisation in one process is refused, which leaves the first in force.
    drop(match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    });
}

/// How a hub ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Everything that was open was ended first.
    Orderly,
    /// A second signal came before that; what was acknowledged is stored.
    AtOnce,
}

/// Runs a hub until it is asked to stop: by SIGTERM, by ctrl-c, or with `--parent-pipe` by a line `drain` on standard
/// input or its end. A second signal ends it at once.
///
/// # Errors
/// Whatever keeps it from starting.
pub async fn run(args: &HubArgs, built_in: Vec<KernelSource>) -> Result<End, StartError> {
    // Listened to before anything runs: a signal that comes early must not be lost.
    let mut signals = Signals::listen();
    let mut running = start(args.config(built_in)?).await?;
    announce(args, &running)?;
    let time = tokio::select! {
        () = signals.next() => ASKED_TIME,
        time = parent(args.parent_pipe) => time,
        () = running.ended() => {
            tracing::error!("the HTTP server ended");
            ORPHANED_TIME
        }
    };
    tokio::select! {
        ended = tokio::time::timeout(time, running.shutdown()) => {
            if ended.is_err() {
                tracing::warn!("stopped before everything had ended; what was acknowledged is stored");
            }
            Ok(End::Orderly)
        }
        () = signals.next() => {
            tracing::warn!("ended at once at a second signal; what was acknowledged is stored");
            Ok(End::AtOnce)
        }
    }
}

fn announce(args: &HubArgs, running: &Running) -> Result<(), StartError> {
    let ready = Ready {
        event: "ready",
        http: running.http_addr.to_string(),
        quic: running.quic_addr.to_string(),
        hub_key: &running.hub_key,
        api_key: running.api_key.as_deref(),
        pid: std::process::id(),
    };
    let mut line = serde_json::to_string(&ready).unwrap_or_default();
    line.push('\n');
    if let Some(path) = &args.ready_file {
        write_private(path, &line).map_err(|source| StartError::Io { path: path.clone(), source })?;
    }
    // A parent that closed its end does not want the line.
    drop(std::io::stdout().lock().write_all(line.as_bytes()));
    drop(std::io::stdout().lock().flush());
    Ok(())
}

/// The file appears whole: whoever waits for it can read it at once.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let draft = path.with_extension("partial");
    let mut options = std::fs::File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(&draft)?.write_all(text.as_bytes())?;
    std::fs::rename(draft, path)
}

/// SIGTERM and ctrl-c, listened to once: a second one right after the first must not fall between two listeners.
#[cfg(unix)]
struct Signals(Option<[tokio::signal::unix::Signal; 2]>);

#[cfg(unix)]
impl Signals {
    fn listen() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        Self(signal(SignalKind::terminate()).and_then(|one| Ok([one, signal(SignalKind::interrupt())?])).ok())
    }

    async fn next(&mut self) {
        let Some([terminate, interrupt]) = &mut self.0 else { return std::future::pending().await };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> Self {
        Self
    }

    async fn next(&mut self) {
        drop(tokio::signal::ctrl_c().await);
    }
}

/// Resolves when the parent asks for the end or is gone, with the time there is for it. A thread of its own reads,
/// because such a read cannot be cancelled.
async fn parent(watched: bool) -> Duration {
    if !watched {
        return std::future::pending().await;
    }
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let asked = std::io::stdin().lock().lines().any(|line| line.is_ok_and(|line| line == DRAIN));
        // Nobody waits any more: the process is stopping for another reason.
        let _ = sender.send(if asked { ASKED_TIME } else { ORPHANED_TIME });
    });
    receiver.await.unwrap_or(ORPHANED_TIME)
}
