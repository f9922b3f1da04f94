//! What an agent is told: by flags, by environment, by a file, in that order of precedence.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use forge_contract::Digest;
use forge_contract::capability::{LABELS_MAX, LEASES_MAX, WORD_BYTES_MAX};
use forge_protocol::{EnrolToken, HubKey};
use forge_sandbox::CageLevel;
use serde::Deserialize;

use crate::hours::Hours;
use crate::limits::{self, DISK_BYTES_DEFAULT, Limits, MEMORY_BYTES_MIN};

/// The file in the data directory that remembers the hub's key after the first enrolment.
const HUB_KEY_FILE: &str = "hub.key";
/// Largest configuration file, bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// The command line of an agent.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    /// Hubs to dial, as host:port, tried in this order
    #[arg(long, env = "FORGEPOOL_HUB", value_delimiter = ',', value_name = "HOST:PORT,..")]
    pub hub: Vec<String>,
    /// The hub's public key; not needed with a token or after the first start. Base64url: it may begin with a dash
    #[arg(long, allow_hyphen_values = true, env = "FORGEPOOL_HUB_KEY", value_name = "KEY")]
    pub hub_key: Option<String>,
    /// Enrolment token (fpe_...), needed once
    #[arg(long, alias = "token", env = "FORGEPOOL_ENROL_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub enroll: Option<String>,
    /// Directory of the agent's key and compiled kernels [default: the platform's data directory]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Shards to run at once [default: one per core]
    #[arg(long, value_name = "N")]
    pub cores: Option<u32>,
    /// Memory for all workers together, such as 4GiB: bounds how many shards run at once and how large they may be
    #[arg(long, value_name = "BYTES")]
    pub memory: Option<String>,
    /// Disk for compiled kernels, such as 512MiB; the least recently used make room [default: 2GiB]
    #[arg(long, value_name = "BYTES")]
    pub disk: Option<String>,
    /// Hours in which to work, in UTC or with a distance from it: 22:00-06:30 or 22:00-06:30+01:00 [default: always]
    #[arg(long, value_delimiter = ',', value_name = "FROM-TO,..")]
    pub hours: Vec<String>,
    /// The only kernels to run, by name (mc@1, where it comes with this program) or digest [default: all]
    #[arg(long, value_delimiter = ',', value_name = "KERNEL,..")]
    pub kernels: Vec<String>,
    /// The only projects of the hub to work for, by id [default: all]
    #[arg(long, value_delimiter = ',', value_name = "PROJECT,..")]
    pub projects: Vec<String>,
    /// Labels for placement
    #[arg(long, value_delimiter = ',', value_name = "LABEL,..")]
    pub labels: Vec<String>,
    /// Where the machine is; the label region=REGION
    #[arg(long, value_name = "REGION")]
    pub region: Option<String>,
    /// Whether kernels run only where Landlock and seccomp hold them, or under whatever the machine has
    #[arg(long, value_enum, value_name = "LEVEL")]
    pub cage: Option<Cage>,
    /// How log lines look
    #[arg(long, value_enum, default_value_t, env = "FORGEPOOL_LOG_FORMAT")]
    pub log_format: LogFormat,
    /// A collector for traces (OTLP over HTTP), such as http://127.0.0.1:4318
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp: Option<String>,
    /// A TOML file with any of these by their names: hub, hub_key, data, cores, memory, disk, hours, kernels, projects, labels,
    /// region, cage. Flags come before it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Kernels that have a name here, for `kernels`.
    #[arg(skip)]
    pub known_kernels: BTreeMap<String, Digest>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// How much of the cage must hold, on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cage {
    /// Landlock and seccomp in force, else no work
    Required,
    /// Whatever the machine offers
    Available,
}

/// Why an agent cannot start with what it was told.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No hub to dial.
    #[error("no hub is given: use --hub HOST:PORT or FORGEPOOL_HUB")]
    NoHub,
    /// No key to know the hub by.
    #[error("the hub's key is not known: use --enroll TOKEN once, or --hub-key KEY")]
    NoHubKey,
    /// Two keys for one hub.
    #[error("the hub's key is {one} by {by}, and {other} by {and}")]
    TwoHubKeys {
        /// One key.
        one: HubKey,
        /// Where it stands.
        by: &'static str,
        /// The other.
        other: HubKey,
        /// Where it stands.
        and: &'static str,
    },
    /// A value that is none.
    #[error("{field}: {rule}")]
    Value {
        /// The flag.
        field: &'static str,
        /// The rule it breaks.
        rule: String,
    },
    /// A file that cannot be used.
    #[error("{path}: {reason}")]
    File {
        /// Its path.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// No place for the data.
    #[error("the data directory is not known: use --data DIR")]
    NoData,
}

/// Everything an agent needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Hubs, `host:port`, in order.
    pub hubs: Vec<String>,
    /// The hub's key.
    pub hub_key: HubKey,
    /// The secret that enrols this agent, where there is one.
    pub enrol_secret: Option<[u8; 32]>,
    /// Where key and cache are.
    pub data: PathBuf,
    /// Shards at once, at least 1.
    pub cores: u32,
    /// Leases at once, at least `cores`.
    pub leases: u32,
    /// Labels, sorted, each once.
    pub labels: Vec<String>,
    /// The only projects to work for, sorted, each once; none where it works for all.
    pub projects: Vec<String>,
    /// How much of the cage must hold.
    pub cage: CageLevel,
    /// What its owner allows.
    pub limits: Limits,
    /// Where its spans go.
    pub otlp: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    hub: Vec<String>,
    hub_key: Option<String>,
    data: Option<PathBuf>,
    cores: Option<u32>,
    memory: Option<String>,
    disk: Option<String>,
    #[serde(default)]
    hours: Vec<String>,
    kernels: Option<Vec<String>>,
    #[serde(default)]
    projects: Vec<String>,
    #[serde(default)]
    labels: Vec<String>,
    region: Option<String>,
    cage: Option<Cage>,
}

impl Config {
    /// Puts flags, environment, file and what is remembered together.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn of(args: Args) -> Result<Self, ConfigError> {
        let file = args.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
        let limits = limits_of(&args, &file)?;
        let hubs = if args.hub.is_empty() { file.hub } else { args.hub };
        if hubs.is_empty() {
            return Err(ConfigError::NoHub);
        }
        let data = args.data.or(file.data).or_else(default_data).ok_or(ConfigError::NoData)?;
        // An empty variable is one that is not set.
        let token = args.enroll.filter(|text| !text.is_empty());
        let token = token.map(|text| text.parse::<EnrolToken>().map_err(|e| value("--enroll", &e))).transpose()?;
        let told = args.hub_key.filter(|text| !text.is_empty()).or(file.hub_key);
        let told = told.map(|text| text.parse::<HubKey>().map_err(|e| value("--hub-key", &e))).transpose()?;
        let hub_key = hub_key(told, token.as_ref(), remembered(&data)?)?;
        let cores = args.cores.or(file.cores).unwrap_or_else(cores);
        if !(1..=LEASES_MAX / 2).contains(&cores) {
            return Err(value("--cores", &format!("1 to {}", LEASES_MAX / 2)));
        }
        Ok(Self {
            hubs,
            hub_key,
            enrol_secret: token.map(|token| token.secret),
            data,
            cores,
            leases: cores + cores.max(2),
            labels: labels(
                if args.labels.is_empty() { file.labels } else { args.labels },
                args.region.or(file.region).as_deref(),
            )?,
            projects: words("--projects", if args.projects.is_empty() { file.projects } else { args.projects })?,
            limits,
            otlp: args.otlp,
            cage: match args.cage.or(file.cage).unwrap_or(Cage::Required) {
                Cage::Required => CageLevel::Required,
                Cage::Available => CageLevel::Available,
            },
        })
    }

    /// The agent's private key.
    #[must_use]
    pub fn key_file(&self) -> PathBuf {
        self.data.join("agent.key")
    }

    /// Remembers the hub's key, so that later starts need neither token nor key. The file is there whole or not at all.
    ///
    /// # Errors
    /// `File`.
    pub fn remember_hub(&self) -> Result<(), ConfigError> {
        let path = self.data.join(HUB_KEY_FILE);
        if remembered(&self.data).is_ok_and(|key| key == Some(self.hub_key)) {
            return Ok(());
        }
        let draft = self.data.join(format!("{HUB_KEY_FILE}.{}", std::process::id()));
        let written = std::fs::create_dir_all(&self.data)
            .and_then(|()| std::fs::write(&draft, format!("{}\n", self.hub_key)))
            .and_then(|()| std::fs::rename(&draft, &path));
        written.map_err(|error| ConfigError::File { path, reason: error.to_string() })
    }
}

/// The data directory that an agent with these arguments would have.
///
/// # Errors
/// `File`, `NoData`.
pub fn data_directory(data: Option<PathBuf>, config: Option<&Path>) -> Result<PathBuf, ConfigError> {
    let file = config.map(read_file).transpose()?.unwrap_or_default();
    data.or(file.data).or_else(default_data).ok_or(ConfigError::NoData)
}

fn limits_of(args: &Args, file: &File) -> Result<Limits, ConfigError> {
    let bytes = |field, flag: &Option<String>, file: &Option<String>| {
        let rule = "a number of bytes, or of KiB, MiB, GiB or TiB as in 4GiB";
        let text = flag.as_ref().or(file.as_ref());
        text.map(|text| limits::parse_bytes(text).ok_or_else(|| value(field, &format!("{rule}; found {text:?}"))))
            .transpose()
    };
    let memory_bytes = bytes("--memory", &args.memory, &file.memory)?;
    if memory_bytes.is_some_and(|bytes| bytes < MEMORY_BYTES_MIN) {
        return Err(value("--memory", &format!("at least {}MiB", MEMORY_BYTES_MIN >> 20)));
    }
    let hours = if args.hours.is_empty() { &file.hours } else { &args.hours };
    let hours = Hours::parse(hours).map_err(|error| value("--hours", &error))?;
    let words = if args.kernels.is_empty() { file.kernels.as_ref() } else { Some(&args.kernels) };
    let digest = |word: &String| {
        let unknown = || {
            let known: Vec<&str> = args.known_kernels.keys().map(String::as_str).collect();
            value("--kernels", &format!("{word:?} is neither a digest nor one of: {}", known.join(", ")))
        };
        limits::kernel(word, &args.known_kernels).ok_or_else(unknown)
    };
    Ok(Limits {
        memory_bytes,
        disk_bytes: bytes("--disk", &args.disk, &file.disk)?.unwrap_or(DISK_BYTES_DEFAULT),
        hours,
        kernels: words.map(|words| words.iter().map(digest).collect()).transpose()?,
    })
}

fn value(field: &'static str, rule: &impl ToString) -> ConfigError {
    ConfigError::Value { field, rule: rule.to_string() }
}

fn read_file(path: &Path) -> Result<File, ConfigError> {
    let failed = |reason: String| ConfigError::File { path: path.into(), reason };
    let bytes = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(failed(format!("{bytes} bytes are more than {FILE_BYTES_MAX}")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    toml::from_str(&text).map_err(|error| failed(error.to_string()))
}

fn remembered(data: &Path) -> Result<Option<HubKey>, ConfigError> {
    let path = data.join(HUB_KEY_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let damaged = |_| ConfigError::File { path: path.clone(), reason: "this is no hub key".into() };
            text.trim_end().parse().map(Some).map_err(damaged)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ConfigError::File { path, reason: error.to_string() }),
    }
}

/// What the operator says now counts before what is remembered; two things said now must agree.
fn hub_key(
    told: Option<HubKey>,
    token: Option<&EnrolToken>,
    remembered: Option<HubKey>,
) -> Result<HubKey, ConfigError> {
    match (told, token.map(|token| token.hub_key)) {
        (Some(one), Some(other)) if one != other => {
            Err(ConfigError::TwoHubKeys { one, by: "--hub-key", other, and: "the token" })
        }
        (Some(key), _) | (None, Some(key)) => Ok(key),
        (None, None) => remembered.ok_or(ConfigError::NoHubKey),
    }
}

fn labels(mut labels: Vec<String>, region: Option<&str>) -> Result<Vec<String>, ConfigError> {
    labels.extend(region.map(|region| format!("region={}", region.trim())));
    words("--labels", labels)
}

/// Words as the hub takes them: trimmed, sorted, each once.
fn words(flag: &'static str, mut words: Vec<String>) -> Result<Vec<String>, ConfigError> {
    words.iter_mut().for_each(|word| *word = word.trim().to_owned());
    words.retain(|word| !word.is_empty());
    words.sort();
    words.dedup();
    let printable = |word: &String| word.len() <= WORD_BYTES_MAX && word.bytes().all(|b| (b' '..=b'~').contains(&b));
    if words.len() > LABELS_MAX || !words.iter().all(printable) {
        return Err(value(flag, &"at most 64, each at most 128 printable ASCII bytes"));
    }
    Ok(words)
}

/// Cores this process may use.
fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX))
}

fn default_data() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = if cfg!(target_os = "macos") {
        variable("HOME")?.join("Library/Application Support")
    } else {
        variable("XDG_DATA_HOME").or_else(|| Some(variable("HOME")?.join(".local/share")))?
    };
    Some(base.join("forgepool/agent"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn args(data: &Path) -> Args {
        Args { hub: vec!["127.0.0.1:1".into()], data: Some(data.into()), cores: Some(3), ..Args::default() }
    }

    #[test]
    fn the_hub_key_comes_from_token_flag_or_memory_and_must_agree() {
        let data = tempfile::tempdir().unwrap();
        assert!(matches!(Config::of(args(data.path())), Err(ConfigError::NoHubKey)));
        let token = EnrolToken { hub_key: HubKey([1; 32]), secret: [2; 32] };
        let enrolling = Args { enroll: Some(token.to_string()), ..args(data.path()) };
        let config = Config::of(enrolling.clone()).unwrap();
        assert_eq!((config.hub_key, config.enrol_secret), (token.hub_key, Some([2; 32])));
        assert_eq!((config.cores, config.leases), (3, 6));
        config.remember_hub().unwrap();
        let later = Config::of(args(data.path())).unwrap();
        assert_eq!((later.hub_key, later.enrol_secret), (token.hub_key, None));
        let clash = Args { hub_key: Some(HubKey([9; 32]).to_string()), ..enrolling };
        assert!(matches!(Config::of(clash), Err(ConfigError::TwoHubKeys { .. })));
    }

    #[test]
    fn flags_come_before_the_file_and_the_file_is_strict() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join("agent.toml");
        let key = HubKey([1; 32]);
        std::fs::write(
            &path,
            format!(
                "hub = ['a:1']\nhub_key = '{key}'\ncores = 7\nlabels = ['b', 'a', 'b']\ncage = 'available'\n\
                 memory = '4GiB'\ndisk = '1MiB'\nhours = ['22:00-06:00']\nkernels = ['mc@1']\nregion = 'eu'\nprojects = ['two', 'one', 'one']"
            ),
        )
        .unwrap();
        let known_kernels = BTreeMap::from([("mc@1".to_owned(), Digest::of(b"mc"))]);
        let args_of_file = Args { config: Some(path.clone()), known_kernels, ..args(data.path()) };
        let config = Config::of(Args { disk: Some("3MiB".into()), ..args_of_file }).unwrap();
        assert_eq!((config.cores, config.hubs), (3, vec!["127.0.0.1:1".to_owned()]));
        assert_eq!((config.labels.join(" "), config.cage), ("a b region=eu".to_owned(), CageLevel::Available));
        assert_eq!(config.projects, ["one", "two"]);
        let limits = config.limits;
        assert_eq!((limits.memory_bytes, limits.disk_bytes), (Some(4 << 30), 3 << 20));
        assert_eq!(
            (limits.hours.texts().join(" "), limits.kernels.map(|kernels| kernels.len())),
            ("22:00-06:00".to_owned(), Some(1))
        );
        std::fs::write(&path, "core = 7").unwrap();
        assert!(matches!(Config::of(Args { config: Some(path), ..args(data.path()) }), Err(ConfigError::File { .. })));
    }

    #[test]
    fn values_out_of_range_name_their_flag() {
        let data = tempfile::tempdir().unwrap();
        let base = Args { hub_key: Some(HubKey([1; 32]).to_string()), ..args(data.path()) };
        let cases = [
            (Args { cores: Some(0), ..base.clone() }, "--cores"),
            (Args { memory: Some("1MiB".into()), ..base.clone() }, "--memory"),
            (Args { disk: Some("a lot".into()), ..base.clone() }, "--disk"),
            (Args { hours: vec!["at night".into()], ..base.clone() }, "--hours"),
            (Args { kernels: vec!["mc@1".into()], ..base.clone() }, "--kernels"),
            (Args { labels: vec!["ä".into()], ..base.clone() }, "--labels"),
            (Args { projects: vec!["x".repeat(129)], ..base.clone() }, "--projects"),
            (Args { enroll: Some("fpe_x".into()), ..base.clone() }, "--enroll"),
            (Args { hub_key: Some("x".into()), ..base }, "--hub-key"),
        ];
        for (args, flag) in cases {
            match Config::of(args) {
                Err(ConfigError::Value { field, .. }) => assert_eq!(field, flag),
                other => panic!("{flag}: {other:?}"),
            }
        }
    }
}
