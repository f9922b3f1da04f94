//! The pipe between `up` and the processes it starts: how they learn that it is over.
//!
//! `up` holds the writing end of each child's stdin. A line `drain` asks for an orderly end; the end of the stream
//! without it means that `up` is gone, however it went, and nothing may be left behind.

use std::io::BufRead as _;
use std::time::Duration;

/// The line that asks for an orderly end.
pub const DRAIN: &[u8] = b"drain\n";
/// How long a child whose parent is gone may take to close what it has open, ms.
pub const ORPHAN_MS_MAX: u64 = 2_000;
/// How long a process may take to finish what it is doing when it is asked to end, ms.
pub const DRAIN_MS_MAX: u64 = 10_000;

/// Why a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Asked to, by its parent or by a signal.
    Asked,
    /// The parent is gone.
    Orphaned,
}

impl Stop {
    /// How long the end may take.
    #[must_use]
    pub fn grace(self) -> Duration {
        Duration::from_millis(match self {
            Self::Asked => DRAIN_MS_MAX,
            Self::Orphaned => ORPHAN_MS_MAX,
        })
    }
}

/// Returns when the process has to end: SIGINT, SIGTERM, or what the parent's pipe says where there is one.
pub async fn stop(parent_pipe: bool) -> Stop {
    if !parent_pipe {
        interrupted().await;
        return Stop::Asked;
    }
    let (tell, told) = tokio::sync::oneshot::channel();
    // A thread, not the runtime's blocking pool: nothing must wait for it at the end.
    std::thread::spawn(move || {
        let asked = std::io::stdin().lock().lines().any(|line| line.is_ok_and(|line| line == "drain"));
        tell.send(if asked { Stop::Asked } else { Stop::Orphaned }).ok();
    });
    tokio::select! {
        stop = told => stop.unwrap_or(Stop::Orphaned),
        () = interrupted() => Stop::Asked,
    }
}

/// Both signals, listened to once for the whole process: a second one right after the first must not fall between two
/// listeners.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

fn listen() -> Option<tokio::sync::Mutex<Signals>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (interrupt, terminate) = (signal(SignalKind::interrupt()).ok()?, signal(SignalKind::terminate()).ok()?);
    Some(tokio::sync::Mutex::new(Signals { interrupt, terminate }))
}

/// Returns at SIGINT or SIGTERM; called again, at the next one.
pub async fn interrupted() {
    static SIGNALS: std::sync::OnceLock<Option<tokio::sync::Mutex<Signals>>> = std::sync::OnceLock::new();
    let Some(signals) = SIGNALS.get_or_init(listen) else { return std::future::pending().await };
    let mut signals = signals.lock().await;
    let Signals { interrupt, terminate } = &mut *signals;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
