//! One process of the pool: this program again, with a pipe that outlives nothing.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout, Command};

use crate::parent::DRAIN;

/// Bytes of a child's log that an error quotes.
const LOG_TAIL_BYTES: usize = 2_000;

/// A process that could not be started or did not come up.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// It could not be started at all.
    #[error("cannot start {name}: {source}")]
    Spawn {
        /// Which process.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// It ended before it was ready.
    #[error("{name} ended before it was ready ({status}){}", indented(log))]
    Died {
        /// Which process.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// It said something that is not its interface.
    #[error("{name} announced itself in a way this program does not understand: {line}")]
    Garbled {
        /// Which process.
        name: String,
        /// What it said.
        line: String,
    },
}

fn indented(log: &str) -> String {
    if log.trim().is_empty() {
        return String::new();
    }
    let lines: Vec<String> = log.trim_end().lines().map(|line| format!("\n    {line}")).collect();
    format!("; it said:{}", lines.concat())
}

/// What a process is started with.
#[derive(Debug, Clone)]
pub struct Start {
    /// Name in messages: `hub`, `agent 3`.
    pub name: String,
    /// Arguments of this program.
    pub args: Vec<OsString>,
    /// Variables added to the environment: secrets, which command lines would show to other users.
    pub env: Vec<(&'static str, String)>,
    /// Where its stderr goes; `None`: to ours.
    pub log: Option<PathBuf>,
}

/// A running process. Killed when dropped.
#[derive(Debug)]
pub struct Child {
    name: String,
    log: Option<PathBuf>,
    process: tokio::process::Child,
    stdin: Option<ChildStdin>,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Child {
    /// Starts this very program with the arguments of `start`, in a process group of its own: a Ctrl-C at the
    /// terminal reaches us alone, and we end the others in order.
    ///
    /// # Errors
    /// [`ChildError::Spawn`].
    pub fn spawn(start: &Start) -> Result<Self, ChildError> {
        let failed = |source| ChildError::Spawn { name: start.name.clone(), source };
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.args(&start.args).envs(start.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0).kill_on_drop(true);
        if let Some(log) = &start.log {
            command.stderr(append(log).map_err(failed)?);
        }
        let mut process = command.spawn().map_err(failed)?;
        let piped = || failed(std::io::Error::other("no pipe to the new process"));
        let stdout = process.stdout.take().ok_or_else(piped)?;
        Ok(Self {
            name: start.name.clone(),
            log: start.log.clone(),
            stdin: process.stdin.take(),
            stdout: BufReader::new(stdout).lines(),
            process,
        })
    }

    /// Waits for the line of JSON by which the process says that it is ready.
    ///
    /// # Errors
    /// [`ChildError::Died`], [`ChildError::Garbled`].
    pub async fn ready(&mut self) -> Result<Value, ChildError> {
        match self.stdout.next_line().await {
            Ok(Some(line)) => serde_json::from_str(&line)
                .map_err(|_| ChildError::Garbled { name: self.name.clone(), line: line.chars().take(200).collect() }),
            _ => {
                let status = self.process.wait().await;
                let status = status.map_err(|source| ChildError::Spawn { name: self.name.clone(), source })?;
                let log = self.log.as_deref().map(tail).unwrap_or_default();
                Err(ChildError::Died { name: self.name.clone(), status, log })
            }
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        self.process.wait().await
    }

    /// Asks for an orderly end, waits at most `grace`, then kills.
    pub async fn stop(mut self, grace: Duration) {
        if let Some(mut stdin) = self.stdin.take() {
            // A process that is already gone does not listen.
            stdin.write_all(DRAIN).await.ok();
        }
        if tokio::time::timeout(grace, self.process.wait()).await.is_err() {
            tracing::warn!(name = self.name, "did not end in time, killed");
            self.process.kill().await.ok();
        }
    }
}

fn append(path: &Path) -> std::io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

fn tail(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let from = text.len().saturating_sub(LOG_TAIL_BYTES);
    String::from_utf8_lossy(text.get(from..).unwrap_or_default()).into_owned()
}
