//! The agent's process.

use std::path::Path;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::hub::{Hub, soon};

pub struct Agent {
    pub child: Child,
    /// Outlives the process.
    _data: Option<TempDir>,
}

impl Agent {
    /// An agent of one seat with the hub's token and an empty directory.
    pub fn start(hub: &Hub) -> Self {
        let data = tempfile::tempdir().unwrap();
        let token = hub.token.to_string();
        let child = Self::spawn(hub, data.path(), &["--enroll", &token]);
        Self { child, _data: Some(data) }
    }

    pub fn start_in(hub: &Hub, data: &Path, more: &[&str]) -> Self {
        Self { child: Self::spawn(hub, data, more), _data: None }
    }

    fn spawn(hub: &Hub, data: &Path, more: &[&str]) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forge-agent"));
        command.args(["--hub", &hub.address.to_string(), "--cage", "available", "--parent-pipe"]);
        if !more.contains(&"--cores") {
            command.args(["--cores", "1"]);
        }
        command.arg("--data").arg(data).args(more);
        command.stdin(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
        command.spawn().unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    }

    pub async fn ended(&mut self) -> ExitStatus {
        // Waiting closes standard input by itself, which would end the agent.
        let stdin = self.child.stdin.take();
        let status = soon(self.child.wait()).await.unwrap();
        drop(stdin);
        status
    }

    /// The worker processes below this one, those of workers' workers included.
    #[cfg(target_os = "linux")]
    pub fn workers(&self) -> Vec<i32> {
        let mut family = vec![i32::try_from(self.child.id().unwrap()).unwrap()];
        let mut next = 0;
        while let Some(parent) = family.get(next).copied() {
            next += 1;
            family.extend(processes().filter(|(_, of)| *of == parent).map(|(process, _)| process));
        }
        family.split_off(1)
    }
}

/// Every process with its parent.
#[cfg(target_os = "linux")]
fn processes() -> impl Iterator<Item = (i32, i32)> {
    std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let process: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // The name is in parentheses and may hold anything; state and parent follow the last one.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let state = fields.next()?;
        (state != "Z").then_some((process, fields.next()?.parse().ok()?))
    })
}

#[cfg(target_os = "linux")]
pub fn lives(process: i32) -> bool {
    processes().any(|(found, _)| found == process)
}
