//! Bringing the hub up, in order, and taking it down.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forge_contract::Digest;
use forge_lifecycle::bundle::key::Key;
use forge_lifecycle::trail::Purpose;
use forge_protocol::identity::IdentityError;
use forge_protocol::{EnrolToken, HubEndpoint, Identity, LinkError};
use forge_telemetry::{Telemetry, TelemetryError};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::admission::{Desk, Examiner};
use crate::api::{App, Tokens};
use crate::config::Config;
use crate::coordinator::{Board, Coordinator, Notary, Surroundings};
use crate::garbage::Collector;
use crate::grants::Grants;
use crate::links::{self, StoreContent, StoreGate, Wire};
use crate::metrics::Metrics;
use crate::registry::{Registry, RegistryError};
use crate::signed::{UrlKey, UrlKeyError};
use crate::standing::Teller;
use crate::store::blobs::{BlobError, Blobs};
use crate::store::sqlite::Sqlite;
use crate::store::tenancy::{NewOrganisation, NewProject, OPERATOR, Scope, Scopes};
use crate::store::{Store, StoreError, TenancyWrite, Write, Written};
use crate::tenancy::{Keyring, Rates, key};
use crate::tls::{Tls, TlsError};
use crate::trail::by_operator;
use crate::trees::Trees;
use crate::upload::{UploadError, Uploads};

const PROJECT: &str = "default";
/// Between two sweeps of abandoned uploads.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);

/// Why the hub does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A directory or file cannot be used.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another hub uses the data directory.
    #[error("{path} is in use by another hub")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The address is taken.
    #[error("the HTTP address {address}: {source}")]
    Http {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The hub's key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The links.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The blobs.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The key of signed URLs.
    #[error(transparent)]
    UrlKey(#[from] UrlKeyError),
    /// The uploads.
    #[error(transparent)]
    Upload(#[from] UploadError),
    /// The kernels.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Traces.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
}

/// A hub that runs.
pub struct Running {
    /// Where the HTTP API listens.
    pub http_addr: SocketAddr,
    /// Where agents dial.
    pub quic_addr: SocketAddr,
    /// The hub's public key, which agents pin; base64url.
    pub hub_key: String,
    /// The API key of the default project, where this start was given one or made it.
    pub api_key: Option<String>,
    app: Arc<App>,
    wire: Arc<Wire>,
    server: JoinHandle<()>,
    carrier: JoinHandle<()>,
    clerk: JoinHandle<()>,
    teller: JoinHandle<()>,
    // Held for its lock.
    _lock: std::fs::File,
}

impl core::fmt::Debug for Running {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Running").field("http", &self.http_addr).field("quic", &self.quic_addr).finish_non_exhaustive()
    }
}

impl Running {
    /// A token that enrols one agent, as a verifier where whoever asks runs it and trusts it.
    ///
    /// # Errors
    /// `Identity`, `Store`.
    pub async fn enrol_token(&self, verifier: bool) -> Result<String, StartError> {
        let (token, hash) = self.app.tokens.make().ok_or(IdentityError::Entropy)?;
        let expires_ms = crate::clock::unix_ms() + 24 * 3600 * 1000;
        let write =
            Write::EnrolToken { hash, project: PROJECT.into(), expires_ms, verifier, provider: None, reserved: None };
        let note = if verifier { "of a verifier" } else { "of an agent" };
        let entry = by_operator("start: make an enrolment token", PROJECT, note.into());
        self.app.store.submit(write.audited(entry)).await?;
        Ok(token)
    }

    /// Makes an organisation with one project of the same id, where it is not there yet, and a new key of that with the
    /// scopes `compute` and `admin`.
    ///
    /// # Errors
    /// `Store`.
    pub async fn project_key(&self, project: &str) -> Result<String, StartError> {
        let text = key::new_text();
        let new = key::kept(&text, project, Scopes::of(&[Scope::Compute, Scope::Admin]));
        let organisation = NewOrganisation {
            id: project.into(),
            name: project.into(),
            ceilings: crate::store::tenancy::Limits::default(),
            project: NewProject::plain(project, project),
            key: new.clone(),
        };
        let entry = by_operator("start: make a key", project, format!("key {} ({})", new.id, new.hint));
        let organisation = TenancyWrite::Organisation(Box::new(organisation));
        self.app.store.submit(Write::Tenancy(Box::new(organisation))).await?;
        self.app.store.submit(Write::Tenancy(Box::new(TenancyWrite::Key(new))).audited(entry)).await?;
        Ok(text)
    }

    /// Waits until the server ends by itself, which it never should.
    pub async fn ended(&mut self) {
        drop((&mut self.server).await);
    }

    /// Stops: no new work, ends in progress become durable, agents are told, open requests end.
    pub async fn shutdown(self) {
        tracing::info!("stopping");
        self.app.stopping.cancel();
        self.app.coordinator.stop().await;
        self.wire.0.drain();
        self.wire.0.shutdown().await;
        self.carrier.abort();
        drop(self.carrier.await);
        self.clerk.abort();
        drop(self.clerk.await);
        self.teller.abort();
        drop(self.teller.await);
        if self.server.await.is_err() {
            tracing::error!("the HTTP server ended badly");
        }
        if let Err(error) = crate::trail::sign(&*self.app.store, &*self.app.notary, Purpose::Shutdown).await {
            tracing::error!(%error, "the audit log could not be signed");
        }
        self.app.store.close().await;
        self.app.telemetry.close().await;
        tracing::info!("stopped");
    }
}

/// The hub's key, in its two other uses.
struct Keys(Identity);

impl Notary for Keys {
    fn key(&self) -> Key {
        Key(self.0.public_key())
    }

    fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        self.0.sign(bytes)
    }
}

impl Tokens for Keys {
    fn make(&self) -> Option<(String, Digest)> {
        let token = EnrolToken::generate(self.0.hub_key()).ok()?;
        Some((token.to_string(), token.stored()))
    }

    fn hub_key(&self) -> String {
        self.0.hub_key().to_string()
    }
}

/// Starts a hub. When this returns it serves.
///
/// # Errors
/// Whatever keeps it from serving; nothing is left running.
pub async fn start(config: Config) -> Result<Running, StartError> {
    outlive_file_limits();
    let tls = config.tls.clone().map(Tls::load).transpose()?.map(Arc::new);
    let lock = claim(&config.data)?;
    let identity = Identity::load_or_create(&config.data.join("hub.key"))?;
    let telemetry = Telemetry::to(config.otlp.as_deref(), "forgepool-hub", identity.hub_key().to_string())?;
    let blobs = Arc::new(Blobs::open(&config.data.join("blobs"))?);
    let uploads = Uploads::open(&config.data.join("uploads"))?.patient(config.body_time);
    let url_key = UrlKey::load_or_create(&config.data.join("url.key"))?;
    let store: Arc<dyn Store> = Arc::new(Sqlite::open(&config.data.join("hub.db"), Arc::clone(&blobs)).await?);
    let api_key = first_key(&*store, config.api_key.clone()).await?;
    let registry = Arc::new(Registry::load(&config.kernels, &*store, &blobs).await?);
    let (board, metrics, keys) =
        (Arc::new(Board::default()), Arc::new(Metrics::default()), Arc::new(Keys(identity.clone())));

    let listener = listen(config.http).await?;
    let http_addr = listener.local_addr().map_err(|source| StartError::Http { address: config.http, source })?;
    let gate = Arc::new(StoreGate { store: Arc::clone(&store) });
    let grants = Arc::new(Grants::default());
    let content = Arc::new(StoreContent {
        grants: Arc::clone(&grants),
        registry: Arc::clone(&registry),
        board: Arc::clone(&board),
        blobs: Arc::clone(&blobs),
        store: Arc::clone(&store),
        trees: Trees::default(),
    });
    let settings = pool_settings(&config, &identity, &*store).await?;
    let examiner = examiner(&config)?;
    let (endpoint, events) = HubEndpoint::bind(config.quic, &identity, gate, content, config.link)?;
    let quic_addr = endpoint.local_addr()?;
    let wire = Arc::new(Wire(endpoint, Arc::clone(&grants)));
    let (decided, verdicts) = tokio::sync::mpsc::unbounded_channel();
    let (news, told) = tokio::sync::mpsc::unbounded_channel();
    let around = Surroundings {
        store: Arc::clone(&store),
        blobs: Arc::clone(&blobs),
        fleet: Arc::clone(&wire) as Arc<dyn crate::coordinator::Fleet>,
        board,
        metrics: Arc::clone(&metrics),
        telemetry: telemetry.clone(),
        notary: Arc::clone(&keys) as Arc<dyn Notary>,
        decided,
        registry: Arc::clone(&registry),
        settle: config.settle,
        doubts: Arc::default(),
        news,
    };
    let audits = settings.audits;
    let coordinator = Coordinator::start(settings, around, config.settle_every).await?;
    let teller =
        Teller { store: Arc::clone(&store), coordinator: coordinator.clone(), wire: Arc::clone(&wire), audits };
    let teller = tokio::spawn(teller.attend(told));
    let shelves = (Arc::clone(&registry), Arc::clone(&store), Arc::clone(&blobs));
    let opened = Desk::open(shelves, coordinator.clone(), examiner, verdicts).await;
    let (desk, clerk) = opened.map_err(|_| StoreError::Closed)?;
    let shared = (Arc::clone(&store), Arc::clone(&metrics));
    let carrier = tokio::spawn(links::carry(events, coordinator.clone(), grants, shared.0, shared.1));
    let hub_key = identity.hub_key().to_string();
    let stopping = CancellationToken::new();
    let collector = Collector::new(Arc::clone(&store), Arc::clone(&blobs), config.collect_grace);
    let app = Arc::new(App {
        keys: Arc::new(Keyring::new(Arc::clone(&store))),
        rates: Rates::default(),
        private_metrics: config.private_metrics,
        store,
        blobs,
        registry,
        desk,
        coordinator,
        metrics,
        telemetry,
        prices: config.prices,
        notary: Arc::clone(&keys) as Arc<dyn Notary>,
        tokens: Arc::clone(&keys) as Arc<dyn Tokens>,
        trusted_proxies: config.trusted_proxies,
        refusals: Mutex::default(),
        uploads,
        collector: collector.clone(),
        url_key,
        audits,
        body_time: config.body_time,
        blob_bytes: config.blob_bytes,
        quic_address: quic_addr.to_string(),
        tls: tls.clone(),
        stopping: stopping.clone(),
    });
    if let Some(tls) = &tls {
        tokio::spawn(Arc::clone(tls).attend(stopping.clone()));
    }
    tokio::spawn(crate::trail::keep(Arc::clone(&app.store), keys, config.audit_head_every, stopping.clone()));
    tokio::spawn(sweep(app.uploads.clone(), stopping.clone()));
    tokio::spawn(collector.attend(config.collect_every, stopping.clone()));
    let server = tokio::spawn(crate::server::serve(listener, crate::api::router(Arc::clone(&app)), tls, stopping));
    tracing::info!(http = %http_addr, quic = %quic_addr, hub_key, "the hub is ready");
    Ok(Running { http_addr, quic_addr, hub_key, api_key, app, wire, server, carrier, clerk, teller, _lock: lock })
}

/// Uploads are parsed by this very program, unless told otherwise.
fn examiner(config: &Config) -> Result<Examiner, StartError> {
    let here = |source| StartError::Io { path: PathBuf::from("this program"), source };
    let program = config.admit_program.clone().map_or_else(|| std::env::current_exe().map_err(here), Ok)?;
    Ok(Examiner::new(program, config.parse))
}

/// A file that would outgrow a limit of the process is a refused write, not the end of the hub: once somebody listens
/// to SIGXFSZ, it no longer kills.
fn outlive_file_limits() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let number = rustix::process::Signal::XFSZ.as_raw();
        if let Err(error) = signal(SignalKind::from_raw(number)) {
            tracing::warn!(%error, "SIGXFSZ keeps its default");
        }
    }
}

/// Removes abandoned uploads now and then, also of projects that send nothing any more.
async fn sweep(uploads: Uploads, stopping: CancellationToken) {
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(SWEEP_EVERY) => {}
        }
        let uploads = uploads.clone();
        if tokio::task::spawn_blocking(move || uploads.sweep()).await.is_err() {
            tracing::error!("the sweep of uploads failed");
        }
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Http { address, source })
}

/// Makes the data directory, private, and locks it: two hubs on one database would grant the same leases.
fn claim(data: &Path) -> Result<std::fs::File, StartError> {
    let io = |source| StartError::Io { path: data.to_owned(), source };
    std::fs::create_dir_all(data).map_err(io)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(data, std::fs::Permissions::from_mode(0o700)).map_err(io)?;
    }
    let lock =
        std::fs::File::options().create(true).truncate(false).write(true).open(data.join("hub.lock")).map_err(io)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(std::fs::TryLockError::WouldBlock) => Err(StartError::InUse { path: data.to_owned() }),
        Err(std::fs::TryLockError::Error(source)) => Err(io(source)),
    }
}

/// Makes the default project and sees to it that somebody can call: with the key given, or with a new one.
async fn first_key(store: &dyn Store, given: Option<String>) -> Result<Option<String>, StoreError> {
    let tenancy = |write| store.submit(Write::Tenancy(Box::new(write)));
    tenancy(TenancyWrite::Project(NewProject::plain(PROJECT, OPERATOR))).await?;
    let text = match given {
        Some(text) => text,
        None if store.has_keys().await? => return Ok(None),
        None => key::new_text(),
    };
    let scopes = Scopes::of(&[Scope::Compute, Scope::Admin]);
    let new = key::kept(&text, PROJECT, scopes);
    // The same key given at every start is made at the first.
    if store.holder(&new.hash).await?.is_none() {
        let entry = by_operator("start: make a key", PROJECT, format!("key {} ({})", new.id, new.hint));
        store.submit(Write::Tenancy(Box::new(TenancyWrite::Key(new))).audited(entry)).await?;
    }
    Ok(Some(text))
}

async fn pool_settings(
    config: &Config,
    identity: &Identity,
    store: &dyn Store,
) -> Result<forge_lifecycle::pool::Settings, StartError> {
    let Written::FirstLease(first_lease) = store.submit(Write::ReserveLeases).await? else {
        return Err(StoreError::Corrupt { what: "lease mark" }.into());
    };
    let agents = store.agents().await?;
    let out = agents.iter().filter(|row| row.quarantined.is_some() || row.removed_ms.is_some());
    let quarantined: BTreeSet<_> = out.map(|row| row.agent).collect();
    let readmitted = agents.iter().filter(|row| row.readmitted_ms.is_some()).map(|row| row.agent).collect();
    // An Ed25519 signature is a function of key and message: a secret that needs no file of its own, never sent anywhere.
    let hub_secret =
        *Digest::tagged("forgepool v1 audit secret", &identity.sign(b"forgepool v1 audit secret")).as_bytes();
    Ok(forge_lifecycle::pool::Settings { first_lease, quarantined, readmitted, hub_secret, ..config.pool.clone() })
}
