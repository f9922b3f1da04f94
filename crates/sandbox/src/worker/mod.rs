//! Worker processes: untrusted code is compiled in one kind of child and run in another.
//!
//! The parent spawns its own program again with a hidden subcommand. The child cages itself before it hears of any
//! code, says what is in force, and serves frames on its standard input until that ends.

mod asked;
mod child;
mod compiler;
mod frame;
mod runner;

pub use child::{compile_main, worker_main};
pub use compiler::{CompileLimits, Compiler};
pub use runner::Worker;

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;

use forge_contract::{Failure, FailureCode};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::cage::{CageLevel, CageReport, Guard, ProcessLimits};
use frame::{FrameError, FromChild, ToChild};

/// What a worker keeps of each large input, bytes. It asks again for what had to make room.
pub const INPUT_KEPT_BYTES_MAX: usize = 64 << 20;
/// What it asks for at once, bytes.
const WANT_BYTES_MAX: u64 = 1 << 20;
/// Reads that it may say it expects.
const WANT_STEPS_MAX: u32 = 256;

/// Why a worker process gave no answer. None of these is a verdict on a kernel.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The process could not be started.
    #[error("the worker process did not start: {0}")]
    Start(std::io::Error),
    /// The machine cannot cage it well enough for untrusted code.
    #[error("this machine cannot cage untrusted code: {report}")]
    Uncaged {
        /// What is in force and what is not.
        report: Box<CageReport>,
    },
    /// The process ended. It may have been killed, run out of memory, or crashed.
    #[error("the worker process ended ({how})")]
    Ended {
        /// Exit code or signal.
        how: String,
    },
    /// The process said something that is no frame, or not the one expected.
    #[error("the worker process broke its protocol: {what}")]
    Protocol {
        /// What was wrong.
        what: String,
    },
    /// The code could not be loaded: made by another version, or for another processor.
    #[error("the worker could not load the code: {0}")]
    Load(Failure),
    /// An input could not be had where the worker read it.
    #[error("{0}")]
    Input(Failure),
    /// Time ran out, and the process was killed.
    #[error("the worker did not answer in {0:?}")]
    Deadline(std::time::Duration),
    /// A run was broken off before, so the process is in the middle of it.
    #[error("the worker is in the middle of a run that was broken off")]
    Busy,
}

impl From<WorkerError> for Failure {
    fn from(error: WorkerError) -> Self {
        let code = match &error {
            WorkerError::Load(failure) | WorkerError::Input(failure) => return failure.clone(),
            WorkerError::Deadline(_) => FailureCode::AgentDeadline,
            WorkerError::Uncaged { .. } => FailureCode::AgentDeclined,
            _ => FailureCode::AgentWorkerLost,
        };
        Self::new(code, error.to_string())
    }
}

/// A caged child and the pipes to it. Killed when dropped.
#[derive(Debug)]
struct Caged {
    child: Child,
    /// `None` once it was told to end.
    pipes: Option<Pipes>,
    report: CageReport,
}

#[derive(Debug)]
struct Pipes {
    stdin: ChildStdin,
    stdout: ChildStdout,
}

impl Drop for Caged {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Caged {
    /// Starts `program args`, sends it its limits, and waits until it is caged.
    async fn start(
        program: &Path,
        args: &[OsString],
        level: CageLevel,
        limits: ProcessLimits,
    ) -> Result<Self, WorkerError> {
        let mut child = Command::new(program)
            .args(args)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(WorkerError::Start)?;
        let no_pipe = || WorkerError::Protocol { what: "it has no pipes".into() };
        let stdin = child.stdin.take().ok_or_else(no_pipe)?;
        let stdout = child.stdout.take().ok_or_else(no_pipe)?;
        let mut caged = Self { child, pipes: Some(Pipes { stdin, stdout }), report: CageReport::default() };
        caged.send(&ToChild::Enter { limits, level }).await?;
        match caged.receive().await? {
            FromChild::Ready { report } => caged.report = report,
            FromChild::Uncaged { report } => return Err(WorkerError::Uncaged { report: Box::new(report) }),
            other => return Err(unexpected(&other)),
        }
        Ok(caged)
    }

    async fn send(&mut self, message: &ToChild<'_>) -> Result<(), WorkerError> {
        let pipes = self.pipes.as_mut().ok_or(WorkerError::Busy)?;
        let sent = frame::send(&mut pipes.stdin, message).await;
        self.explain(sent).await
    }

    async fn receive(&mut self) -> Result<FromChild, WorkerError> {
        let pipes = self.pipes.as_mut().ok_or(WorkerError::Busy)?;
        let received = frame::receive(&mut pipes.stdout).await;
        self.explain(received).await
    }

    /// Ends the process, wherever it is.
    ///
    /// In a process namespace the child of ours is the one that watches over the worker: it kills the worker when this
    /// end of the pipe closes, and waits for it, so that nobody is left for the system to collect.
    fn kill(&mut self) {
        self.pipes = None;
        if !self.report.holds(Guard::PidNamespace) {
            let _ = self.child.start_kill();
        }
    }

    /// A pipe that broke means a process that ended: say how.
    async fn explain<T>(&mut self, done: Result<T, FrameError>) -> Result<T, WorkerError> {
        match done {
            Ok(value) => Ok(value),
            Err(FrameError::Io(_)) => {
                // Its pipes are closed, so it ends by itself or is stuck in ending; then it is killed.
                let waited = tokio::time::timeout(std::time::Duration::from_secs(2), self.child.wait()).await;
                let how = match waited {
                    Ok(Ok(status)) => status.to_string(),
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => "without an exit status".into(),
                };
                Err(WorkerError::Ended { how })
            }
            Err(error) => Err(WorkerError::Protocol { what: error.to_string() }),
        }
    }
}

fn unexpected(message: &FromChild) -> WorkerError {
    WorkerError::Protocol { what: format!("unexpected '{}'", message.name()) }
}
