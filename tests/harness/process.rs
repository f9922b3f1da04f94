//! One process under test.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::{binary, until, within};

/// A running `forgepool` or other program, killed when dropped. Its stderr goes to a file.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts `forgepool` with `args` and the variables of `env`.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn start(name: &str, args: &[OsString], env: &[(&str, String)], logs: &Path) -> Self {
        Self::of(binary::forgepool(), name, args, env, logs)
    }

    /// The same of any program.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn of(program: &Path, name: &str, args: &[OsString], env: &[(&str, String)], logs: &Path) -> Self {
        std::fs::create_dir_all(logs).expect("the test's directory is writable");
        let log = logs.join(format!("{name}.log"));
        let stderr = std::fs::OpenOptions::new().create(true).append(true).open(&log).expect("the log can be opened");
        let mut command = Command::new(program);
        command.args(args).env_remove("FORGEPOOL_URL").env_remove("FORGEPOOL_API_KEY");
        command.envs(env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr).kill_on_drop(true);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Self {
            name: name.to_owned(),
            log,
            stdin: child.stdin.take(),
            stdout: BufReader::new(child.stdout.take().expect("stdout is piped")).lines(),
            child,
        }
    }

    /// Waits for the line of JSON that says the process is ready.
    ///
    /// # Panics
    /// It ended before, or said something else; shows its log.
    pub async fn ready(&mut self) -> Value {
        let line = within(&format!("announcement of {}", self.name), self.stdout.next_line()).await;
        let Ok(Some(line)) = line else { panic!("{} ended before it was ready:\n{}", self.name, self.log()) };
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{} announced {line:?}: {error}", self.name))
    }

    /// The next line of stdout; `None` at its end.
    ///
    /// # Panics
    /// Nothing came.
    pub async fn line(&mut self) -> Option<String> {
        within(&format!("line of {}", self.name), self.stdout.next_line()).await.ok().flatten()
    }

    /// Process id.
    ///
    /// # Panics
    /// It has been waited for.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id().expect("the process has not been waited for")
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// The process is gone.
    pub fn signal(&self, signal: Signal) {
        kill_process(pid(self.id()), signal).unwrap_or_else(|error| panic!("{}: {error}", self.name));
    }

    /// Kills it as `kill -9` does and waits for its end.
    ///
    /// # Panics
    /// It was gone already.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait().await;
    }

    /// Closes its stdin: what a process sees when its parent is gone.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// It does not end.
    pub async fn wait(&mut self) -> ExitStatus {
        within(&format!("end of {}", self.name), self.child.wait()).await.expect("our own child can be waited for")
    }

    /// What it wrote to stderr.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

fn pid(id: u32) -> Pid {
    i32::try_from(id).ok().and_then(Pid::from_raw).expect("a process id is positive")
}

/// Whether a process exists and is no zombie.
#[must_use]
pub fn is_alive(id: u32) -> bool {
    if let Ok(stat) = std::fs::read_to_string(format!("/proc/{id}/stat")) {
        // The state follows the name, which stands in parentheses and may hold anything.
        return !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X']));
    }
    !cfg!(target_os = "linux") && rustix::process::test_kill_process(pid(id)).is_ok()
}

/// A line of a process's memory as Linux counts it, KiB: `VmHWM` is the most it ever had, `VmRSS` what it has.
///
/// # Panics
/// The process is gone, or the system does not tell.
#[must_use]
pub fn memory_kib(id: u32, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.unwrap_or_else(|| panic!("no {what} of process {id}"))
}

/// Every process below `id`, however deep. Linux only: elsewhere nothing is found.
#[must_use]
pub fn descendants(id: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let after = stat.rsplit(')').next().unwrap_or("");
        if let Some(parent) = after.split_whitespace().nth(1).and_then(|text| text.parse::<u32>().ok()) {
            parents.push((child, parent));
        }
    }
    let mut found = Vec::new();
    let mut queue = vec![id];
    while let Some(parent) = queue.pop() {
        for (child, _) in parents.iter().filter(|(_, of)| *of == parent) {
            found.push(*child);
            queue.push(*child);
        }
    }
    found
}

/// Waits until none of the processes is left.
///
/// # Panics
/// One stays.
pub async fn gone(ids: &[u32]) {
    until("end of all processes", || async { (!ids.iter().any(|id| is_alive(*id))).then_some(()) }).await;
}
