//! A whole pool on one machine: a hub and some agents, each a process of its own.

mod agents;
mod child;
mod lock;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::parent::DRAIN_MS_MAX;
use crate::target::Target;

use agents::Keeper;
pub use agents::News;
use child::{Child, ChildError, Start};
use lock::Lock;

/// How long agents may take to join before the pool is called ready without them, ms.
const JOIN_MS_MAX: u64 = 20_000;

/// What a pool is made of.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Where everything it keeps goes.
    pub data: PathBuf,
    /// Address of the HTTP interface; port 0 picks a free one.
    pub http: SocketAddr,
    /// Address agents dial; port 0 picks a free one.
    pub quic: SocketAddr,
    /// How many agents.
    pub agents: u32,
    /// Shards each agent runs at once.
    pub cores_each: u32,
    /// The key of the default project.
    pub key: String,
    /// Whether the processes' logs go to our stderr instead of files.
    pub verbose: bool,
}

/// What the hub's process says when it is ready.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HubReady {
    /// Where the HTTP interface is.
    pub http: SocketAddr,
    /// Where agents dial.
    pub quic: SocketAddr,
    /// The hub's public key, which agents pin.
    pub hub_key: String,
    /// The default project's key, where this start was given one or made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<String>,
    /// Single-use enrolment tokens, as many as were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub enrol_tokens: Vec<String>,
    /// Keys of further projects, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub project_keys: BTreeMap<String, String>,
}

/// A pool that could not be started, or that ended.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// A process did not come up.
    #[error(transparent)]
    Child(#[from] ChildError),
    /// The address is taken.
    #[error("{address} is already in use: {hint}")]
    Busy {
        /// Which.
        address: SocketAddr,
        /// What to do.
        hint: String,
    },
    /// The address cannot be used.
    #[error("cannot listen on {address}: {source}")]
    Address {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Another pool runs in this directory.
    #[error("another `forgepool up` (process {holder}) uses {}: stop it, or choose another --data", data.display())]
    Locked {
        /// The data directory.
        data: PathBuf,
        /// Its process id, or `unknown`.
        holder: String,
    },
    /// A file or directory cannot be used.
    #[error("cannot use {}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No agent came up.
    #[error("no agent comes up: {error}")]
    NoAgent {
        /// What the last one said.
        error: String,
    },
    /// The hub's announcement is not what this version understands.
    #[error("the hub announced itself in a way this program does not understand: {0}")]
    Announcement(serde_json::Error),
    /// The hub's process ended.
    #[error("the hub's process ended ({status}); its log is {}", log.display())]
    HubEnded {
        /// How.
        status: String,
        /// Where it wrote why.
        log: PathBuf,
    },
}

/// A running pool. Dropping it kills its processes; [`Pool::stop`] ends them in order.
#[derive(Debug)]
pub struct Pool {
    layout: Layout,
    hub: Child,
    ready: HubReady,
    keepers: Vec<Keeper>,
    news: mpsc::UnboundedReceiver<News>,
    // Held for as long as the pool runs.
    _lock: Lock,
}

impl Pool {
    /// Starts the hub, waits until it is ready, starts the agents and waits until they joined.
    ///
    /// # Errors
    /// [`PoolError`]; whatever had been started is ended again.
    pub async fn start(layout: Layout) -> Result<Self, PoolError> {
        let file = |source| PoolError::File { path: layout.data.clone(), source };
        std::fs::create_dir_all(&layout.data).map_err(file)?;
        let lock = Lock::take(&layout.data)?;
        free(layout.http, Transport::Tcp)?;
        free(layout.quic, Transport::Udp)?;
        let mut hub = Child::spawn(&hub_start(&layout))?;
        let ready: HubReady = serde_json::from_value(hub.ready().await?).map_err(PoolError::Announcement)?;
        let (tell, news) = mpsc::unbounded_channel();
        let mut tokens = ready.enrol_tokens.iter();
        let keepers = (1..=layout.agents)
            .map(|number| Keeper::start(&layout, &ready, number, tokens.next().cloned(), tell.clone()))
            .collect();
        let mut pool = Self { layout, hub, ready, keepers, news, _lock: lock };
        pool.joined().await?;
        Ok(pool)
    }

    /// What the hub said of itself.
    #[must_use]
    pub fn ready(&self) -> &HubReady {
        &self.ready
    }

    /// The hub and the key, for clients.
    #[must_use]
    pub fn target(&self) -> Target {
        Target { url: format!("http://{}", self.ready.http), key: Some(self.layout.key.clone()), ca: None }
    }

    /// The next thing that happened to an agent; [`PoolError::HubEnded`] when the hub is gone.
    ///
    /// # Errors
    /// [`PoolError::HubEnded`].
    pub async fn watch(&mut self) -> Result<News, PoolError> {
        tokio::select! {
            status = self.hub.wait() => Err(PoolError::HubEnded {
                status: status.map_or_else(|error| error.to_string(), |status| status.to_string()),
                log: log_path(&self.layout.data, "hub"),
            }),
            Some(news) = self.news.recv() => Ok(news),
        }
    }

    /// Ends the agents, which finish the shards they run, and then the hub.
    pub async fn stop(self) {
        let stops: Vec<_> = self.keepers.into_iter().map(|keeper| tokio::spawn(keeper.stop())).collect();
        for stop in stops {
            stop.await.ok();
        }
        self.hub.stop(Duration::from_millis(DRAIN_MS_MAX)).await;
    }

    /// Waits until every agent has joined or was given up; an error where none is left.
    async fn joined(&mut self) -> Result<(), PoolError> {
        let mut missing = self.layout.agents;
        let mut joined = 0;
        let mut last_error = String::new();
        let deadline = tokio::time::Instant::now() + Duration::from_millis(JOIN_MS_MAX);
        while missing > 0 {
            match tokio::time::timeout_at(deadline, self.watch()).await {
                Ok(news) => match news? {
                    News::Joined { .. } => (missing, joined) = (missing - 1, joined + 1),
                    News::GaveUp { error, .. } => (missing, last_error) = (missing - 1, error),
                    News::Restarting { number, status } => tracing::debug!(number, status, "an agent starts again"),
                },
                Err(_) => {
                    tracing::warn!(missing, "some agents have not joined yet");
                    return Ok(());
                }
            }
        }
        if joined == 0 && self.layout.agents > 0 {
            return Err(PoolError::NoAgent { error: last_error });
        }
        if !last_error.is_empty() {
            tracing::error!(error = last_error, "not every agent came up");
        }
        Ok(())
    }
}

fn hub_start(layout: &Layout) -> Start {
    let mut args = arguments(&["hub", "--parent-pipe"]);
    push(&mut args, "--data", layout.data.join("hub"));
    push(&mut args, "--http", layout.http.to_string());
    push(&mut args, "--quic", layout.quic.to_string());
    push(&mut args, "--announce-tokens", layout.agents.to_string());
    Start {
        name: "the hub".into(),
        args,
        env: vec![("FORGEPOOL_API_KEY", layout.key.clone())],
        log: (!layout.verbose).then(|| log_path(&layout.data, "hub")),
    }
}

fn log_path(data: &Path, name: &str) -> PathBuf {
    data.join("logs").join(format!("{name}.log"))
}

fn arguments(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

fn push(args: &mut Vec<OsString>, name: &str, value: impl Into<OsString>) {
    args.push(name.into());
    args.push(value.into());
}

#[derive(Debug, Clone, Copy)]
enum Transport {
    Tcp,
    Udp,
}

/// Whether `address` can be listened on now. The hub finds out for itself; asked here, the answer is clearer.
fn free(address: SocketAddr, transport: Transport) -> Result<(), PoolError> {
    let (bound, flag) = match transport {
        Transport::Tcp => (std::net::TcpListener::bind(address).map(drop), "--http"),
        Transport::Udp => (std::net::UdpSocket::bind(address).map(drop), "--quic"),
    };
    bound.map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => PoolError::Busy {
            address,
            hint: format!(
                "stop what listens there, or choose another with {flag} ({}:0 picks a free port)",
                address.ip()
            ),
        },
        _ => PoolError::Address { address, source },
    })
}
