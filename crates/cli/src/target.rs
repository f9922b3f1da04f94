//! Which hub a command talks to, and with which key.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// Name of the file that `up` leaves for its clients in the data directory.
pub const DEV_ENV: &str = "dev.env";

/// Options of every command that speaks to a hub.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Which hub")]
pub struct TargetArgs {
    /// The hub's address, such as http://127.0.0.1:8080
    #[arg(long, env = "FORGEPOOL_URL", value_name = "URL")]
    pub url: Option<String>,
    /// A project's API key
    #[arg(long, env = "FORGEPOOL_API_KEY", value_name = "KEY", hide_env_values = true)]
    pub key: Option<String>,
    /// Certificates (PEM) that the hub's must come from, in place of those this machine trusts
    #[arg(long, env = "FORGEPOOL_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Data directory of a running `forgepool up`: its dev.env names the hub and the key where neither is given
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// A hub and a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Base address, without a slash at its end.
    pub url: String,
    /// The key, where there is one.
    pub key: Option<String>,
    /// Certificates that the hub's must come from, where not those this machine trusts.
    pub ca: Option<PathBuf>,
}

impl TargetArgs {
    /// What was given, filled up from the data directory's `dev.env`.
    ///
    /// # Errors
    /// No hub is known, or `dev.env` cannot be read.
    pub fn resolve(&self) -> Result<Target> {
        let mut target =
            Target { url: self.url.clone().unwrap_or_default(), key: self.key.clone(), ca: self.ca.clone() };
        if target.url.is_empty() || target.key.is_none() {
            let data = self.data.clone().map_or_else(data_dir_default, Ok)?;
            let path = data.join(DEV_ENV);
            match std::fs::read_to_string(&path) {
                Ok(text) => fill(&mut target, &text),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
            }
            if target.url.is_empty() {
                bail!(
                    "no hub is known: start one with `forgepool up`, or give --url (FORGEPOOL_URL); {} is not there",
                    path.display()
                );
            }
        }
        while target.url.ends_with('/') {
            target.url.pop();
        }
        if !["http://", "https://"].iter().any(|scheme| target.url.starts_with(scheme)) {
            target.url.insert_str(0, if target.ca.is_some() { "https://" } else { "http://" });
        }
        Ok(target)
    }
}

fn fill(target: &mut Target, dev_env: &str) {
    let url_here = variable(dev_env, "FORGEPOOL_URL");
    // A key of one hub is never sent to another.
    let same_hub = target.url.is_empty() || url_here.as_deref() == Some(target.url.trim_end_matches('/'));
    if target.url.is_empty() {
        target.url = url_here.unwrap_or_default();
    }
    if target.key.is_none() && same_hub {
        target.key = variable(dev_env, "FORGEPOOL_API_KEY");
    }
}

/// The value of `name` in a file of `NAME=value` lines.
#[must_use]
pub fn variable(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (found, value) = line.trim().split_once('=')?;
        (found == name).then(|| value.trim().to_owned())
    })
}

/// Where `up` keeps its data when nothing is said: the platform's place for it.
///
/// # Errors
/// Neither `XDG_DATA_HOME` nor `HOME` is set.
pub fn data_dir_default() -> Result<PathBuf> {
    if let Some(xdg) = std::env::var_os("XDG_DATA_HOME").filter(|value| Path::new(value).is_absolute()) {
        return Ok(PathBuf::from(xdg).join("forgepool"));
    }
    let Some(home) = std::env::var_os("HOME").filter(|value| !value.is_empty()) else {
        bail!("neither XDG_DATA_HOME nor HOME is set: say where the data goes with --data DIR");
    };
    let below = if cfg!(target_os = "macos") { "Library/Application Support" } else { ".local/share" };
    Ok(PathBuf::from(home).join(below).join("forgepool"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn args(url: Option<&str>, key: Option<&str>, data: &Path) -> TargetArgs {
        TargetArgs { url: url.map(str::to_owned), key: key.map(str::to_owned), ca: None, data: Some(data.to_owned()) }
    }

    #[test]
    fn the_key_of_one_hub_is_not_sent_to_another() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(DEV_ENV), "FORGEPOOL_URL=http://127.0.0.1:9\nFORGEPOOL_API_KEY=fpk_a\n")
            .unwrap();
        let key = |url| args(url, None, dir.path()).resolve().unwrap().key;
        assert_eq!(key(None).as_deref(), Some("fpk_a"));
        assert_eq!(key(Some("http://127.0.0.1:9/")).as_deref(), Some("fpk_a"));
        assert_eq!(key(Some("http://elsewhere:9")), None);
        let given = args(Some("localhost:1/"), Some("fpk_b"), dir.path()).resolve().unwrap();
        assert_eq!(given, Target { url: "http://localhost:1".into(), key: Some("fpk_b".into()), ca: None });
    }

    #[test]
    fn an_address_without_a_scheme_gets_one() {
        let dir = tempfile::tempdir().unwrap();
        let url = |url, ca: Option<&str>| {
            let args = TargetArgs { ca: ca.map(PathBuf::from), ..args(Some(url), Some("k"), dir.path()) };
            args.resolve().unwrap().url
        };
        assert_eq!(url("https://h:1/", None), "https://h:1");
        assert_eq!(url("h:1", None), "http://h:1");
        assert_eq!(url("h:1", Some("ca.pem")), "https://h:1");
    }

    #[test]
    fn no_hub_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let error = args(None, None, dir.path()).resolve().unwrap_err().to_string();
        assert!(error.contains("forgepool up"), "{error}");
    }
}
