//! The agent's life: start, join, serve, lose the hub, join again, and in the end leave in order.

use std::fs::File;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cap_std::fs::Dir;
use forge_contract::AgentId;
use forge_protocol::identity::IdentityError;
use forge_protocol::{AgentEvent, AgentLink, Fetcher, Identity, Introduction, LinkError, LinkSettings};
use forge_sandbox::cache::Cache;
use forge_sandbox::{Compiler, WorkerError, engine_profile};
use forge_telemetry::{Telemetry, TelemetryError};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::backoff::Backoff;
use crate::bench::Bench;
use crate::components::Components;
use crate::config::{Config, ConfigError};
use crate::control::{self, Desk, Seen};
use crate::lease::{self, Counts, Received, Shop};
use crate::limits::Memory;
use crate::transfer::Source;
use crate::{COMPILE, WORKER, capability};

/// A session of this length was a good one.
const SETTLED: Duration = Duration::from_secs(10);
/// Between two looks at the load.
const LOAD_EVERY: Duration = Duration::from_secs(1);
/// Bytes of random that a wait needs.
const CHANCE_BYTES: usize = 4;

/// What happens to an agent, for whoever started it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A hub took it in.
    Joined {
        /// Who it is.
        agent: AgentId,
        /// The session's number at the hub.
        session: u64,
    },
    /// The session is over; it tries again.
    Left {
        /// Why.
        reason: String,
    },
    /// It takes no more and finishes what it runs.
    Draining,
    /// The same, until its owner or the hour wants it back.
    Paused,
}

/// What trying again cannot mend.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// It was told too little, or nonsense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It has no key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The data directory cannot be used.
    #[error("{path}: {source}")]
    Data {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another agent runs in the data directory.
    #[error("another agent runs with the data directory {path}")]
    Locked {
        /// Its path.
        path: PathBuf,
    },
    /// No span can be sent.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// No worker can be had.
    #[error("no worker can run here: {source}; --cage available runs kernels under what this machine has")]
    Worker {
        /// Why.
        source: WorkerError,
    },
    /// The hub does not take this agent in.
    #[error("the hub refuses this agent: {0}")]
    Refused(LinkError),
    /// Another agent with the same key took its place.
    #[error("another agent with this agent's key has joined the hub")]
    Replaced,
}

struct Agent {
    config: Config,
    identity: Arc<Identity>,
    introduction: Introduction,
    shop: Arc<Shop>,
    desk: Arc<Desk>,
    /// The session of the moment, for transfers.
    source: watch::Sender<Option<Fetcher>>,
    draining: watch::Sender<bool>,
    _lock: File,
}

/// Runs an agent until `stop` completes and its shards are done, or until nothing helps.
pub(crate) async fn run(
    config: Config,
    stop: impl Future<Output = ()>,
    mut tell: impl FnMut(News),
) -> Result<(), AgentError> {
    let agent = Agent::set_up(config).await?;
    let ended = live(&agent, stop, &mut tell).await;
    agent.shop.telemetry.close().await;
    ended
}

async fn live(agent: &Agent, stop: impl Future<Output = ()>, tell: &mut impl FnMut(News)) -> Result<(), AgentError> {
    let _control = agent.listen();
    let desk = agent.desk.clone();
    let stop = async {
        tokio::select! {
            () = stop => {}
            () = desk.drained() => {}
        }
    };
    let mut stop = core::pin::pin!(stop);
    let (mut backoff, mut joined_once) = (Backoff::default(), false);
    loop {
        let settings = LinkSettings { handshake: backoff.patience(), ..LinkSettings::default() };
        let connecting = agent.connect(&settings);
        let connected = tokio::select! {
            connected = connecting => connected,
            () = &mut stop => return Ok(()),
        };
        match connected {
            Ok(link) => {
                joined_once = true;
                backoff.ease();
                let began = Instant::now();
                agent.joined(&link, tell);
                let ended = agent.serve(link, stop.as_mut(), tell).await;
                agent.desk.see(None);
                match ended {
                    Ended::Stopped => return Ok(()),
                    // At once: the owner or the hour wants it back.
                    Ended::Rested => continue,
                    Ended::Lost(LinkError::Replaced) => return Err(AgentError::Replaced),
                    Ended::Lost(error) => {
                        tracing::warn!(%error, "the session is over");
                        tell(News::Left { reason: error.to_string() });
                    }
                }
                if began.elapsed() >= SETTLED {
                    backoff.reset();
                }
            }
            Err(LinkError::Refused(refusal)) if !refusal.code.is_passing() => {
                return Err(AgentError::Refused(LinkError::Refused(refusal)));
            }
            Err(error @ LinkError::WrongHub { .. }) if !joined_once => return Err(AgentError::Refused(error)),
            Err(error) => tracing::warn!(%error, "no hub takes this agent in"),
        }
        let wait = backoff.wait(chance());
        tracing::debug!(?wait, "trying again");
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = &mut stop => return Ok(()),
        }
    }
}

/// Without random bytes every agent waits the longest, which is slow but right.
fn chance() -> u32 {
    let mut bytes = [0; CHANCE_BYTES];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u32::from_le_bytes(bytes),
        Err(_) => u32::MAX,
    }
}

enum Ended {
    Stopped,
    /// It was paused and is to work again: a session that drained takes no more, so another begins.
    Rested,
    Lost(LinkError),
}

impl Agent {
    async fn set_up(config: Config) -> Result<Self, AgentError> {
        let (lock, cache) = open_data(&config)?;
        let identity = Arc::new(Identity::load_or_create(&config.key_file())?);
        let data = |source| AgentError::Data { path: config.data.clone(), source };
        let program = std::env::current_exe().map_err(data)?;
        let seats = Bench::set_up(config.cores, program.clone(), vec![WORKER.into()], config.cage);
        let (bench, cage) = seats.await.map_err(|source| AgentError::Worker { source })?;
        if cage.missing().next().is_some() {
            tracing::warn!(%cage, "this machine does not offer every guard of the cage");
        }
        let (source, sessions) = watch::channel(None);
        let counts = Counts::default();
        let compiler = Compiler::new(program, vec![COMPILE.into()], config.cage);
        let shop = Shop {
            bench,
            components: Components::new(Source::new(sessions, counts.fetched.clone()), compiler, cache),
            memory: Memory::new(config.limits.memory_bytes),
            engine: engine_profile(),
            counts,
            agent: identity.agent_id().to_string(),
            telemetry: Telemetry::to(config.otlp.as_deref(), "forgepool-agent", identity.agent_id().to_string())?,
        };
        let introduction = Introduction {
            software: format!("forge-agent {}", env!("CARGO_PKG_VERSION")),
            capability: capability::detect(&config, &cage),
            enrol_secret: config.enrol_secret,
        };
        let (shop, draining) = (Arc::new(shop), watch::Sender::new(false));
        let desk = Arc::new(Desk::new(config.clone(), identity.agent_id().to_string(), cage.to_string()));
        Ok(Self { config, identity, introduction, shop, desk, source, draining, _lock: lock })
    }

    /// Opens the owner's socket. An agent without one works all the same.
    #[cfg(unix)]
    fn listen(&self) -> Option<control::Listening> {
        match control::listen(&self.config.data, self.desk.clone(), self.shop.clone()) {
            Ok(listening) => Some(listening),
            Err(error) => {
                tracing::warn!(%error, "status, pause, resume and drain are not to be had");
                None
            }
        }
    }

    #[cfg(not(unix))]
    fn listen(&self) {}

    async fn connect(&self, settings: &LinkSettings) -> Result<AgentLink, LinkError> {
        let Self { config, identity, introduction, .. } = self;
        AgentLink::connect(&config.hubs, config.hub_key, identity, introduction, settings).await
    }

    fn joined(&self, link: &AgentLink, tell: &mut impl FnMut(News)) {
        let welcome = link.welcome();
        tracing::info!(agent = %welcome.agent, session = welcome.session, "joined the hub");
        if let Err(error) = self.config.remember_hub() {
            tracing::warn!(%error, "the hub's key is not remembered");
        }
        self.desk.see(Some(Seen { hub: link.remote().to_string(), session: welcome.session }));
        tell(News::Joined { agent: welcome.agent, session: welcome.session });
    }

    /// Serves one session to its end.
    async fn serve(
        &self,
        mut link: AgentLink,
        mut stop: Pin<&mut impl Future<Output = ()>>,
        tell: &mut impl FnMut(News),
    ) -> Ended {
        self.source.send_replace(Some(link.fetcher()));
        let mut leases = JoinSet::new();
        let mut ticker = tokio::time::interval(LOAD_EVERY);
        // Whether the hub was told that this session takes no more, which it cannot take back.
        let (mut stopping, mut drained) = (false, false);
        self.draining.send_replace(false);
        let ended = loop {
            if stopping && leases.is_empty() {
                break Ended::Stopped;
            }
            let paused = self.desk.paused();
            if paused && !drained {
                drained = true;
                link.drain();
                self.draining.send_replace(true);
                tell(News::Paused);
            }
            if drained && !paused && !stopping && leases.is_empty() {
                break Ended::Rested;
            }
            tokio::select! {
                event = link.next() => match event {
                    AgentEvent::Lease { responder, .. } if stopping || drained => {
                        self.shop.counts.decline();
                        responder.decline();
                    }
                    AgentEvent::Lease { lease, task, deadline, trace, responder } => {
                        // Before anything is fetched for it.
                        if let Err(reason) = self.config.limits.admit(&task) {
                            tracing::info!(%lease, reason, "a lease is given back");
                            self.shop.counts.decline();
                            responder.decline();
                            continue;
                        }
                        let received = Received { lease, task, deadline, trace, responder };
                        leases.spawn(lease::serve(self.shop.clone(), received, self.draining.subscribe()));
                    }
                    AgentEvent::Standing(standing) => {
                        if let Some(code) = &standing.quarantined {
                            tracing::warn!(code, "the hub gives this agent no more work; docs/providers.md says what to look at");
                        }
                        self.desk.stand(standing);
                    }
                    AgentEvent::Drain => tracing::info!("the hub gives no more leases"),
                    AgentEvent::Closed(_) if stopping => break Ended::Stopped,
                    AgentEvent::Closed(error) => break Ended::Lost(error),
                },
                Some(_) = leases.join_next(), if !leases.is_empty() => {}
                () = self.desk.changed() => {}
                _ = ticker.tick() => link.set_load(self.shop.counts.load(capability::memory_free_bytes())),
                () = &mut stop, if !stopping => {
                    stopping = true;
                    link.drain();
                    self.draining.send_replace(true);
                    tell(News::Draining);
                }
            }
        };
        self.source.send_replace(None);
        // What still runs has nobody to answer to.
        leases.shutdown().await;
        link.close().await;
        ended
    }
}

/// Takes the data directory for this process alone.
fn open_data(config: &Config) -> Result<(File, Cache), AgentError> {
    let data = |source| AgentError::Data { path: config.data.clone(), source };
    let code = config.data.join("code");
    create_private(&config.data).and_then(|()| create_private(&code)).map_err(data)?;
    let lock = File::create(config.data.join("lock")).map_err(data)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => return Err(AgentError::Locked { path: config.data.clone() }),
        Err(std::fs::TryLockError::Error(source)) => return Err(data(source)),
    }
    let directory = Dir::open_ambient_dir(&code, cap_std::ambient_authority()).map_err(data)?;
    Ok((lock, Cache::open(directory).bounded(config.limits.disk_bytes)))
}

/// Cached code is run: nobody else may write where it lies.
fn create_private(path: &std::path::Path) -> std::io::Result<()> {
    std::fs::create_dir_all(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}
