//! The hub's side of the child that parses an upload.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use forge_contract::{Digest, Failure, FailureCode};
use forge_lifecycle::plan::Kernel;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::sync::Semaphore;

use super::child::{ADMIT, Judged};

/// Children at the same time.
const CHILDREN_MAX: usize = 2;
/// What a child may say, bytes: a manifest of 1 MiB, however its text is escaped.
const ANSWER_BYTES_MAX: u64 = 8 << 20;

/// What parsing one component may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseLimits {
    /// Processor time, seconds.
    pub cpu_seconds: u64,
    /// Address space, bytes.
    pub memory_bytes: u64,
    /// Time on the clock.
    pub wall: Duration,
}

impl Default for ParseLimits {
    /// 20 s of processor time and 1 GiB; 60 s on the clock, for a machine with other work.
    fn default() -> Self {
        Self { cpu_seconds: 20, memory_bytes: 1 << 30, wall: Duration::from_secs(60) }
    }
}

/// Why a component was not judged, which is the hub's fault and not the component's.
#[derive(Debug, thiserror::Error)]
pub enum ExamineError {
    /// The child cannot be started.
    #[error("the process that parses uploads, {program}, cannot be started: {source}")]
    Start {
        /// Its program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The child's answer is none.
    #[error("the process that parses uploads gave no answer ({status})")]
    Garbled {
        /// How it ended.
        status: ExitStatus,
    },
}

/// Judges components in children that are killed when they take too much.
#[derive(Debug)]
pub struct Examiner {
    program: PathBuf,
    limits: ParseLimits,
    turns: Semaphore,
}

impl Examiner {
    /// Children are started as `program __admit`, which must end in [`super::admit_main`].
    #[must_use]
    pub fn new(program: PathBuf, limits: ParseLimits) -> Self {
        Self { program, limits, turns: Semaphore::new(CHILDREN_MAX) }
    }

    /// Parses the component in a file, without running any of it. The inner failure is the component's.
    ///
    /// # Errors
    /// `Start`, `Garbled`.
    pub async fn examine(&self, file: &Path, declared: &Digest) -> Result<Result<Kernel, Failure>, ExamineError> {
        let _turn = self.turns.acquire().await;
        let start = |source| ExamineError::Start { program: self.program.clone(), source };
        let component = std::fs::File::open(file).map_err(start)?;
        let mut child = Command::new(&self.program)
            .arg(ADMIT)
            .arg(self.limits.cpu_seconds.to_string())
            .arg(self.limits.memory_bytes.to_string())
            .env_clear()
            .current_dir("/")
            .stdin(component)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(start)?;
        let stdout = child.stdout.take();
        let work = async {
            let mut answer = Vec::new();
            if let Some(stdout) = stdout {
                stdout.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
            }
            Ok((answer, child.wait().await?))
        };
        let (answer, status) = match tokio::time::timeout(self.limits.wall, work).await {
            Ok(ended) => ended.map_err(start)?,
            // Dropping the child kills it.
            Err(_) => return Ok(Err(too_much(&format!("{} s of time", self.limits.wall.as_secs())))),
        };
        if let Some(what) = self.limit_passed(status) {
            return Ok(Err(too_much(&what)));
        }
        match serde_json::from_slice(&answer) {
            Ok(Judged::Sound { digest, bytes, manifest }) if digest == *declared => {
                Ok(Ok(Kernel { digest, bytes, manifest: *manifest }))
            }
            Ok(Judged::Refused { code, detail }) => Ok(Err(Failure::new(code, detail))),
            Ok(Judged::Sound { .. }) | Err(_) => Err(ExamineError::Garbled { status }),
        }
    }

    /// The limit that a child's end shows. Its own code is safe Rust, so it breaks for want of memory or stack alone.
    fn limit_passed(&self, status: ExitStatus) -> Option<String> {
        #[cfg(unix)]
        {
            use std::os::unix::process::ExitStatusExt as _;
            let signal = status.signal()?;
            // XCPU and KILL follow the processor's limit; ABRT and SEGV what cannot be allocated.
            Some(match signal {
                24 | 9 => format!("{} s of processor time", self.limits.cpu_seconds),
                _ => format!("{} bytes of memory", self.limits.memory_bytes),
            })
        }
        #[cfg(not(unix))]
        {
            let _ = status;
            None
        }
    }
}

fn too_much(limit: &str) -> Failure {
    let detail = format!(
        "parsing the component was ended by the limit of {limit}; build for size, and with fewer and simpler types"
    );
    Failure::new(FailureCode::RequestComponentLimit, detail)
}
