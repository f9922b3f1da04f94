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

/// Returns at SIGINT or SIGTERM.
pub async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => if interrupted.is_err() { std::future::pending().await },
        _ = terminate.recv() => {}
    }
}
