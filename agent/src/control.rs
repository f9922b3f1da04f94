//! The owner's word to an agent that runs: a socket in its data directory, which nobody else can open.
//!
//! One line of JSON asks, one line of JSON answers: the state after the request.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use forge_protocol::Standing;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::config::Config;
use crate::lease::Counts;

/// The socket's name in the data directory.
const SOCKET: &str = "control.sock";
/// Longest request or answer, bytes.
const LINE_BYTES_MAX: u64 = 256 << 10;
/// Callers served at once.
#[cfg(unix)]
const CALLERS_MAX: usize = 8;
/// How long either end waits for the other, seconds.
#[cfg(unix)]
const PATIENCE_S: u64 = 5;

/// What an owner can ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Only to tell how it is.
    Status,
    /// To take no more shards until it is told otherwise, and finish those that run.
    Pause,
    /// To take shards again.
    Resume,
    /// To finish the shards that run and end.
    Drain,
}

/// What an agent does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Connected and taking shards.
    Working,
    /// Taking no more, by its owner's word or because of the hour.
    Paused,
    /// Finishing the last shards.
    Draining,
    /// No hub takes it in at the moment.
    Away,
}

/// How an agent is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// What it does.
    pub state: State,
    /// Why it is paused: `owner`, `hours`.
    pub paused_by: Vec<String>,
    /// Its id: the digest of its public key.
    pub agent: String,
    /// The hub that took it in, `address:port`.
    pub hub: Option<String>,
    /// The hub's number of the session.
    pub session: Option<u64>,
    /// Shards running.
    pub running: u32,
    /// Leases waiting for code, inputs, memory or a worker.
    pub waiting: u32,
    /// Shards computed since the start.
    pub completed: u64,
    /// Shards that failed since the start.
    pub failed: u64,
    /// Leases given back since the start.
    pub declined: u64,
    /// Shards at once.
    pub cores: u32,
    /// Memory for workers, bytes, where it is bounded.
    pub memory_bytes: Option<u64>,
    /// Disk for compiled kernels, bytes.
    pub disk_bytes: u64,
    /// Hours in which it works; none for always.
    pub hours: Vec<String>,
    /// Components it runs; `None` for all.
    pub kernels: Option<Vec<String>>,
    /// The only projects it works for; none where it works for all.
    #[serde(default)]
    pub projects: Vec<String>,
    /// Its labels.
    pub labels: Vec<String>,
    /// What holds its workers.
    pub cage: String,
    /// Where its key and cache are.
    pub data: PathBuf,
    /// How it stands at the hub, as the hub last said.
    #[serde(default)]
    pub standing: Option<Standing>,
}

/// Why an agent cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens.
    #[error("no agent runs with the data directory {data}: {reason}; --data DIR names another")]
    Absent {
        /// The directory.
        data: PathBuf,
        /// Why.
        reason: String,
    },
    /// Its answer is none.
    #[error("the agent's answer cannot be read: {reason}")]
    Answer {
        /// Why.
        reason: String,
    },
}

/// What the owner wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wish {
    paused: bool,
    drain: bool,
}

/// The session of the moment.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub hub: String,
    pub session: u64,
}

/// Where wishes come in and the state is told.
pub(crate) struct Desk {
    config: Config,
    agent: String,
    cage: String,
    wish: watch::Sender<Wish>,
    seen: Mutex<Option<Seen>>,
    standing: Mutex<Option<Standing>>,
}

impl Desk {
    pub fn new(config: Config, agent: String, cage: String) -> Self {
        Self { config, agent, cage, wish: watch::Sender::default(), seen: Mutex::default(), standing: Mutex::default() }
    }

    /// Whether it is to take no more for now.
    pub fn paused(&self) -> bool {
        self.wish.borrow().paused || !self.config.limits.at_work()
    }

    /// Returns when the owner wants something else than before. Cancel-safe.
    pub async fn changed(&self) {
        let _ = self.wish.subscribe().changed().await;
    }

    /// Returns when the owner wants it to end.
    pub async fn drained(&self) {
        let _ = self.wish.subscribe().wait_for(|wish| wish.drain).await;
    }

    pub fn see(&self, session: Option<Seen>) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = session;
    }

    /// Keeps the hub's last word on this agent.
    pub fn stand(&self, standing: Standing) {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = Some(standing);
    }

    /// Does what is asked and tells how it is then.
    fn answer(&self, request: Request, counts: &Counts) -> Status {
        match request {
            Request::Status => {}
            Request::Pause => self.want(|wish| wish.paused = true),
            Request::Resume => self.want(|wish| wish.paused = false),
            Request::Drain => self.want(|wish| wish.drain = true),
        }
        self.status(counts)
    }

    fn want(&self, change: impl FnOnce(&mut Wish)) {
        self.wish.send_modify(change);
    }

    fn status(&self, counts: &Counts) -> Status {
        let (wish, limits) = (*self.wish.borrow(), &self.config.limits);
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let reasons = [(wish.paused, "owner"), (!limits.at_work(), "hours")];
        let paused_by: Vec<String> =
            reasons.into_iter().filter(|(holds, _)| *holds).map(|(_, name)| name.to_owned()).collect();
        let load = counts.load(0);
        let (completed, failed, declined) = counts.ended();
        Status {
            state: match &seen {
                _ if wish.drain => State::Draining,
                _ if !paused_by.is_empty() => State::Paused,
                Some(_) => State::Working,
                None => State::Away,
            },
            paused_by,
            agent: self.agent.clone(),
            session: seen.as_ref().map(|seen| seen.session),
            hub: seen.map(|seen| seen.hub),
            running: load.running,
            waiting: load.waiting,
            completed,
            failed,
            declined,
            cores: self.config.cores,
            memory_bytes: limits.memory_bytes,
            disk_bytes: limits.disk_bytes,
            hours: limits.hours.texts(),
            kernels: limits.kernels.as_ref().map(|kernels| kernels.iter().map(ToString::to_string).collect()),
            projects: self.config.projects.clone(),
            labels: self.config.labels.clone(),
            cage: self.cage.clone(),
            data: self.config.data.clone(),
            standing: self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

#[cfg(unix)]
pub(crate) use socket::{Listening, listen};

#[cfg(unix)]
pub use socket::ask;

/// Asks the agent that runs with this data directory.
///
/// # Errors
/// `Absent`: this system has no such sockets.
#[cfg(not(unix))]
pub fn ask(data: &Path, _: Request) -> Result<Status, ControlError> {
    Err(ControlError::Absent { data: data.into(), reason: "this system has no local sockets".into() })
}

#[cfg(unix)]
mod socket {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixStream as Stream;
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{UnixListener, UnixStream};
    use tokio::sync::Semaphore;

    use super::{CALLERS_MAX, ControlError, Desk, LINE_BYTES_MAX, PATIENCE_S, Path, PathBuf, Request, SOCKET, Status};
    use crate::lease::Shop;

    const PATIENCE: Duration = Duration::from_secs(PATIENCE_S);

    /// The socket's file, removed with it.
    pub(crate) struct Listening(PathBuf);

    impl Drop for Listening {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    /// Serves the owner's requests until the runtime ends. The caller holds the directory's lock, so what lies there
    /// is left from an agent that is gone.
    pub(crate) fn listen(data: &Path, desk: Arc<Desk>, shop: Arc<Shop>) -> std::io::Result<Listening> {
        let path = data.join(SOCKET);
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        tokio::spawn(serve(listener, desk, shop));
        Ok(Listening(path))
    }

    async fn serve(listener: UnixListener, desk: Arc<Desk>, shop: Arc<Shop>) {
        let callers = Arc::new(Semaphore::new(CALLERS_MAX));
        loop {
            let Ok(turn) = callers.clone().acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (desk, shop) = (desk.clone(), shop.clone());
            tokio::spawn(async move {
                let _ = tokio::time::timeout(PATIENCE, converse(stream, &desk, &shop)).await;
                drop(turn);
            });
        }
    }

    async fn converse(stream: UnixStream, desk: &Desk, shop: &Shop) -> std::io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut line = String::new();
        tokio::io::BufReader::new(read.take(LINE_BYTES_MAX)).read_line(&mut line).await?;
        let mut answer = match serde_json::from_str::<Request>(&line) {
            Ok(request) => {
                if request != Request::Status {
                    tracing::info!(?request, "the owner asks");
                }
                serde_json::to_string(&desk.answer(request, &shop.counts))?
            }
            Err(error) => serde_json::json!({ "error": error.to_string() }).to_string(),
        };
        answer.push('\n');
        write.write_all(answer.as_bytes()).await?;
        write.shutdown().await
    }

    /// Asks the agent that runs with this data directory, and gives its state after the request.
    ///
    /// # Errors
    /// `Absent`, `Answer`.
    pub fn ask(data: &Path, request: Request) -> Result<Status, ControlError> {
        let absent = |error: std::io::Error| ControlError::Absent { data: data.into(), reason: error.to_string() };
        let answer = |reason: String| ControlError::Answer { reason };
        let mut stream = Stream::connect(data.join(SOCKET)).map_err(absent)?;
        stream
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
            .map_err(absent)?;
        let mut line = serde_json::to_string(&request).map_err(|error| answer(error.to_string()))?;
        line.push('\n');
        stream.write_all(line.as_bytes()).map_err(absent)?;
        let mut text = String::new();
        let read = BufReader::new(stream.take(LINE_BYTES_MAX)).read_line(&mut text);
        read.map_err(|error| answer(error.to_string()))?;
        serde_json::from_str(&text).map_err(|error| answer(error.to_string()))
    }
}
