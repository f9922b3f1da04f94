//! The parent's handle on compile children: one process for each component.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use forge_contract::{Failure, FailureCode};

use super::frame::{Code, FromChild, ToChild};
use super::{Caged, WorkerError, unexpected};
use crate::cage::{self, CageLevel, ProcessLimits};
use crate::code::CODE_BYTES_MAX;

/// Wall time of compiling a component on a machine with other work.
const WALL_MAX: Duration = Duration::from_secs(300);

/// What compiling one component may take. Beyond it the component is refused, not the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompileLimits {
    /// Processor time, seconds.
    pub cpu_seconds: u64,
    /// Memory, bytes.
    pub memory_bytes: u64,
}

impl Default for CompileLimits {
    /// 60 s and 2 GiB: an honest component of 16 MiB takes a tenth of either.
    fn default() -> Self {
        Self { cpu_seconds: 60, memory_bytes: 2 << 30 }
    }
}

/// Compiles components in caged children that are killed when they take too much.
#[derive(Clone, Debug)]
pub struct Compiler {
    program: PathBuf,
    args: Vec<OsString>,
    level: CageLevel,
    limits: CompileLimits,
}

impl Compiler {
    /// Children are started as `program args`, which must end in [`super::compile_main`].
    #[must_use]
    pub fn new(program: PathBuf, args: Vec<OsString>, level: CageLevel) -> Self {
        Self { program, args, level, limits: CompileLimits::default() }
    }

    /// The same, with other limits.
    #[must_use]
    pub fn with_limits(mut self, limits: CompileLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Compiles a component.
    ///
    /// # Errors
    /// `agent.compile` where the engine refuses it, it took more than its limits or gives more than 64 MiB of code; `agent.deadline` and `agent.worker_lost` where the machine is to blame.
    pub async fn compile(&self, component: &[u8]) -> Result<Vec<u8>, Failure> {
        let timed = tokio::time::timeout(WALL_MAX, self.compile_in_child(component)).await;
        let compiled = timed.unwrap_or(Err(WorkerError::Deadline(WALL_MAX)));
        match compiled {
            Ok(Ok(code)) if code.len() > CODE_BYTES_MAX => Err(too_much("its code is too large")),
            Ok(compiled) => compiled,
            Err(WorkerError::Ended { how }) => Err(self.of_death(&how)),
            Err(error) => Err(error.into()),
        }
    }

    /// What the end of a child says. Its own code is safe Rust, so it breaks for want of memory or stack alone.
    fn of_death(&self, how: &str) -> Failure {
        let ended_by = |marks: &[&str]| marks.iter().any(|mark| how.contains(mark));
        if ended_by(&[&cage::CPU_SPENT.to_string()]) {
            return too_much(&format!("it took more than {} s of processor time", self.limits.cpu_seconds));
        }
        // Aborts and faults, as a signal or as the shell writes it.
        if ended_by(&["SIGABRT", "SIGSEGV", "134", "139"]) {
            return too_much(&format!("it took more than {} bytes of memory", self.limits.memory_bytes));
        }
        Failure::new(FailureCode::AgentWorkerLost, format!("the compile process ended ({how})"))
    }

    async fn compile_in_child(&self, component: &[u8]) -> Result<Result<Vec<u8>, Failure>, WorkerError> {
        let limits =
            ProcessLimits { memory_bytes: self.limits.memory_bytes, cpu_seconds: Some(self.limits.cpu_seconds) };
        let mut caged = Caged::start(&self.program, &self.args, self.level, limits).await?;
        caged.send(&ToChild::Compile { component }).await?;
        match caged.receive().await? {
            FromChild::Compiled(compiled) => Ok(compiled.map(|Code(code)| code)),
            other => Err(unexpected(&other)),
        }
    }
}

fn too_much(what: &str) -> Failure {
    Failure::new(FailureCode::AgentCompile, format!("the component cannot be compiled within its limits: {what}"))
}
