//! `forge-agent`: the provider's program.

use std::process::ExitCode;

use clap::Parser;
use tokio::sync::oneshot;
use tracing_subscriber::EnvFilter;

/// Runs kernels for a hub on this machine.
#[derive(Debug, Parser)]
#[command(name = "forge-agent", version)]
struct Cli {
    #[command(flatten)]
    agent: forge_agent::Args,
    /// Stop when standard input ends: the program that started this one is gone
    #[arg(long, hide = true)]
    parent_pipe: bool,
}

fn main() -> ExitCode {
    // Before any thread exists and before the environment is looked at.
    forge_agent::become_child();
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_env("FORGEPOOL_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match cli.agent.log_format {
        forge_agent::LogFormat::Text => log.init(),
        forge_agent::LogFormat::Json => log.json().flatten_event(true).init(),
    }
    match work(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn work(cli: Cli) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let (ask, asked) = oneshot::channel();
        tokio::spawn(watch_signals(ask, cli.parent_pipe));
        let stop = async { drop(asked.await) };
        forge_agent::run(cli.agent, stop).await
    });
    // A thread that waits on standard input must not hold the process.
    runtime.shutdown_background();
    Ok(ended?)
}

/// The first signal asks for an orderly end, the second ends at once; so does a parent that is gone.
async fn watch_signals(ask: oneshot::Sender<()>, parent_pipe: bool) {
    if parent_pipe {
        // A thread, not the runtime's: nothing must wait for it at the end.
        std::thread::spawn(|| {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            std::process::exit(0);
        });
    }
    // Listened to once: a second signal right after the first must not fall between two listeners.
    let Ok(mut signals) = Signals::listen() else { return std::future::pending().await };
    signals.next().await;
    tracing::info!("finishing the shards that run; a second signal ends at once");
    drop(ask);
    signals.next().await;
    std::process::exit(1);
}

#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        drop(tokio::signal::ctrl_c().await);
    }
}
