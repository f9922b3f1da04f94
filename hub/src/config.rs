//! What the hub is told at its start, read once; nothing below reads the environment.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use forge_lifecycle::books::price::PriceList;
use forge_lifecycle::ledger::Tariff;
use forge_lifecycle::pool::Settings;
use forge_lifecycle::settle::SettlePolicy;
use forge_protocol::LinkSettings;

use crate::admission::ParseLimits;
use crate::prices::{self, PricesError};
use crate::registry::KernelSource;
use crate::tls::TlsFiles;

/// Largest blob that can be uploaded where nothing else is configured.
const BLOB_BYTES_MAX: u64 = 8 << 30;

/// Between two looks at what is due to settle, where nothing else is configured, milliseconds.
const SWEEP_MS: u64 = 60_000;
/// Between two looks for files that nothing names, ms.
const COLLECT_MS: u64 = 3_600_000;
/// How long nothing must have named a file, ms: a day.
const COLLECT_GRACE_MS: u64 = 24 * 3_600_000;

/// Between two signatures over the audit log, where nothing else is configured, milliseconds.
const AUDIT_HEAD_MS: u64 = 3_600_000;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The hub's command line.
#[derive(Clone, Debug, Args)]
pub struct HubArgs {
    /// Where the hub keeps its key, database and blobs [default: the platform's data directory]
    #[arg(long, env = "FORGEPOOL_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where the HTTP API listens; port 0 picks a free one
    #[arg(long, env = "FORGEPOOL_HTTP", default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    pub http: SocketAddr,
    /// The HTTP API's certificate, followed by those that lead to its authority (PEM); read again at SIGHUP or when it
    /// changes. Without it the API speaks plain HTTP
    #[arg(long, env = "FORGEPOOL_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, env = "FORGEPOOL_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Where agents dial (QUIC); port 0 picks a free one
    #[arg(long, env = "FORGEPOOL_QUIC", default_value = "127.0.0.1:4433", value_name = "ADDRESS")]
    pub quic: SocketAddr,
    /// Folders of kernels (`*.wasm`), checked against a `pins.toml` in or beside them
    #[arg(long = "kernels", value_name = "DIR")]
    pub kernels: Vec<PathBuf>,
    /// An API key of the default project; made and shown at the first start where absent
    #[arg(long, env = "FORGEPOOL_API_KEY", hide_env_values = true, value_name = "KEY")]
    pub api_key: Option<String>,
    /// A file to read that key from
    #[arg(long, value_name = "FILE", conflicts_with = "api_key")]
    pub api_key_file: Option<PathBuf>,
    /// A file to write addresses and keys to, as JSON, once the hub is ready
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// Stop when standard input ends or says `drain`: a hub started by another process does not outlive it
    #[arg(long)]
    pub parent_pipe: bool,
    /// How long a request body may take, milliseconds
    #[arg(long, default_value_t = 10_000, value_name = "MS")]
    pub body_ms: u64,
    /// Largest blob that can be uploaded, bytes
    #[arg(long, default_value_t = BLOB_BYTES_MAX, value_name = "BYTES")]
    pub blob_bytes: u64,
    /// How long a job waits while no agent could run it, milliseconds
    #[arg(long, default_value_t = 30_000, value_name = "MS")]
    pub no_agents_ms: u64,
    /// Shortest time an agent has for a shard, milliseconds
    #[arg(long, default_value_t = 60_000, value_name = "MS")]
    pub lease_ms: u64,
    /// Further accepted shards of an agent until what it did for a job counts for good
    #[arg(long, default_value_t = SettlePolicy::default().shards, value_name = "N")]
    pub settle_shards: u64,
    /// Time after which it counts for good in any case, milliseconds; never while the agent is quarantined
    #[arg(long, default_value_t = SettlePolicy::default().ms, value_name = "MS")]
    pub settle_ms: u64,
    /// The provider's share of what verified fuel costs, per million
    #[arg(long, default_value_t = Tariff::default().provider_ppm, value_name = "PPM", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub provider_share_ppm: u32,
    /// What fuel costs, by kernel: a TOML file [default: 3e9 fuel a credit, 0.12 EUR a credit]
    #[arg(long, value_name = "FILE")]
    pub prices: Option<PathBuf>,
    /// Between two looks at what is due to settle and at finished jobs to be checked again, milliseconds
    #[arg(long, default_value_t = SWEEP_MS, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    pub settle_every_ms: u64,
    /// A proxy whose X-Forwarded-For says where a request came from, for the audit log; more than once for several
    #[arg(long = "trusted-proxy", value_name = "IP")]
    pub trusted_proxies: Vec<IpAddr>,
    /// Between two signatures over the audit log, milliseconds
    #[arg(long, default_value_t = AUDIT_HEAD_MS, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    pub audit_head_ms: u64,
    /// A collector for traces (OTLP over HTTP), such as http://127.0.0.1:4318
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp: Option<String>,
    /// Answer /metrics only to the operator's key
    #[arg(long)]
    pub private_metrics: bool,
    /// Between two looks for stored files that nothing names, milliseconds
    #[arg(long, default_value_t = COLLECT_MS, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    pub collect_every_ms: u64,
    /// How long nothing must have named a file before it is removed, milliseconds
    #[arg(long, default_value_t = COLLECT_GRACE_MS, value_name = "MS")]
    pub collect_grace_ms: u64,
    /// How log lines look
    #[arg(long, value_enum, default_value_t, env = "FORGEPOOL_LOG_FORMAT")]
    pub log_format: LogFormat,
}

/// Why the command line cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The platform names no data directory.
    #[error("no data directory is known here; give one with --data")]
    NoData,
    /// The key file cannot be read.
    #[error("{path}: {source}")]
    KeyFile {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The price list.
    #[error(transparent)]
    Prices(#[from] PricesError),
    /// The key is too short to be secret.
    #[error("an API key has 16 to 256 printable characters without spaces")]
    WeakKey,
}

/// What the hub runs with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it keeps everything.
    pub data: PathBuf,
    /// Where the HTTP API listens.
    pub http: SocketAddr,
    /// Certificate and key of the HTTP API, where it speaks TLS.
    pub tls: Option<TlsFiles>,
    /// Where spans go.
    pub otlp: Option<String>,
    /// Where agents dial.
    pub quic: SocketAddr,
    /// Where kernels come from.
    pub kernels: Vec<KernelSource>,
    /// An API key of the default project.
    pub api_key: Option<String>,
    /// How long a request body may take; of an upload, each stretch of it.
    pub body_time: Duration,
    /// Largest blob that can be uploaded, bytes.
    pub blob_bytes: u64,
    /// The program whose `__admit` parses uploaded kernels; this very one where absent.
    pub admit_program: Option<PathBuf>,
    /// What parsing an uploaded kernel may take.
    pub parse: ParseLimits,
    /// The pool's settings; lease numbers, secret and quarantine are filled in from the store.
    pub pool: Settings,
    /// The links' settings.
    pub link: LinkSettings,
    /// When what agents did counts for good.
    pub settle: SettlePolicy,
    /// What fuel costs.
    pub prices: PriceList,
    /// Between two looks at what is due.
    pub settle_every: Duration,
    /// Proxies whose word on where a request came from counts.
    pub trusted_proxies: Vec<IpAddr>,
    /// Between two signatures over the audit log.
    pub audit_head_every: Duration,
    /// Whether metrics are for the operator's key alone.
    pub private_metrics: bool,
    /// Between two looks for files that nothing names.
    pub collect_every: Duration,
    /// How long nothing must have named a file before it is removed.
    pub collect_grace: Duration,
}

impl Config {
    /// A hub that keeps everything in `data` and listens on free ports of the loopback.
    #[must_use]
    pub fn local(data: PathBuf) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            data,
            http: any,
            tls: None,
            otlp: None,
            quic: any,
            kernels: Vec::new(),
            api_key: None,
            body_time: Duration::from_secs(10),
            blob_bytes: BLOB_BYTES_MAX,
            admit_program: None,
            parse: ParseLimits::default(),
            pool: Settings::default(),
            link: LinkSettings::default(),
            settle: SettlePolicy::default(),
            prices: PriceList::default(),
            settle_every: Duration::from_millis(SWEEP_MS),
            trusted_proxies: Vec::new(),
            audit_head_every: Duration::from_millis(AUDIT_HEAD_MS),
            private_metrics: false,
            collect_every: Duration::from_millis(COLLECT_MS),
            collect_grace: Duration::from_millis(COLLECT_GRACE_MS),
        }
    }
}

impl HubArgs {
    /// The configuration; `built_in` are kernels that come with the program.
    ///
    /// # Errors
    /// `NoData`, `KeyFile`, `WeakKey`, `Prices`.
    pub fn config(&self, built_in: Vec<KernelSource>) -> Result<Config, ConfigError> {
        let data = self.data.clone().or_else(data_directory).ok_or(ConfigError::NoData)?;
        let mut kernels = built_in;
        kernels.extend(self.kernels.iter().cloned().map(KernelSource::Folder));
        Ok(Config {
            http: self.http,
            tls: self
                .tls_cert
                .clone()
                .zip(self.tls_key.clone())
                .map(|(certificate, key)| TlsFiles { certificate, key }),
            quic: self.quic,
            otlp: self.otlp.clone(),
            kernels,
            api_key: self.key()?,
            body_time: Duration::from_millis(self.body_ms),
            blob_bytes: self.blob_bytes,
            pool: Settings { no_agents_ms: self.no_agents_ms, lease_ms_min: self.lease_ms, ..Settings::default() },
            settle: SettlePolicy { shards: self.settle_shards, ms: self.settle_ms },
            prices: self.prices()?,
            settle_every: Duration::from_millis(self.settle_every_ms),
            trusted_proxies: self.trusted_proxies.clone(),
            audit_head_every: Duration::from_millis(self.audit_head_ms),
            private_metrics: self.private_metrics,
            collect_every: Duration::from_millis(self.collect_every_ms),
            collect_grace: Duration::from_millis(self.collect_grace_ms),
            ..Config::local(data)
        })
    }

    fn prices(&self) -> Result<PriceList, ConfigError> {
        let mut list = self.prices.as_deref().map_or_else(|| Ok(PriceList::default()), prices::read)?;
        list.usual.provider_ppm = self.provider_share_ppm;
        Ok(list)
    }

    fn key(&self) -> Result<Option<String>, ConfigError> {
        let key = match (&self.api_key, &self.api_key_file) {
            (Some(key), _) => key.clone(),
            (None, Some(path)) => {
                std::fs::read_to_string(path).map_err(|source| ConfigError::KeyFile { path: path.clone(), source })?
            }
            (None, None) => return Ok(None),
        };
        let key = key.trim();
        let usable = (16..=256).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
        if usable { Ok(Some(key.to_owned())) } else { Err(ConfigError::WeakKey) }
    }
}

/// The platform's directory for what a program keeps.
#[must_use]
pub fn data_directory() -> Option<PathBuf> {
    let given = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = given("HOME");
    let base = if cfg!(target_os = "macos") {
        home.map(|home| home.join("Library/Application Support"))
    } else {
        given("XDG_DATA_HOME").or_else(|| home.map(|home| home.join(".local/share")))
    };
    base.map(|base| base.join("forgepool").join("hub"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        hub: HubArgs,
    }

    #[test]
    fn the_command_line_becomes_a_configuration() {
        let line = Line::try_parse_from([
            "x",
            "--data",
            "/d",
            "--http",
            "127.0.0.1:0",
            "--kernels",
            "/k",
            "--api-key",
            "fpk_0123456789abcdef",
        ]);
        let config = line.unwrap().hub.config(vec![]).unwrap();
        assert_eq!((config.data.to_str(), config.http.port(), config.kernels.len()), (Some("/d"), 0, 1));
        assert_eq!(config.api_key.as_deref(), Some("fpk_0123456789abcdef"));
        let weak = Line::try_parse_from(["x", "--data", "/d", "--api-key", "short"]).unwrap().hub.config(vec![]);
        assert!(matches!(weak, Err(ConfigError::WeakKey)));
    }
}
