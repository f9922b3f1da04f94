//! The parent's handle on compile children: one process for each component.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use forge_contract::{Failure, FailureCode};

use super::frame::{Code, FromChild, ToChild};
use super::{Caged, WorkerError, unexpected};
use crate::cage::{CageLevel, ProcessLimits};
use crate::code::CODE_BYTES_MAX;

/// Processor time of compiling a component, seconds.
const CPU_SECONDS_MAX: u64 = 60;
/// Memory of compiling a component, bytes.
const MEMORY_BYTES_MAX: u64 = 2 << 30;
/// Wall time of compiling a component on a machine with other work.
const WALL_MAX: Duration = Duration::from_secs(300);
/// How the child ends when its processor time is up: 128 and SIGXCPU, or the SIGKILL that follows.
const CPU_SPENT: [&str; 2] = ["152", "SIGXCPU"];

/// Compiles components in caged children that are killed when they take too much.
#[derive(Clone, Debug)]
pub struct Compiler {
    program: PathBuf,
    args: Vec<OsString>,
    level: CageLevel,
}

impl Compiler {
    /// Children are started as `program args`, which must end in [`super::compile_main`].
    #[must_use]
    pub fn new(program: PathBuf, args: Vec<OsString>, level: CageLevel) -> Self {
        Self { program, args, level }
    }

    /// Compiles a component.
    ///
    /// # Errors
    /// `agent.compile` where the engine refuses it or it took more than 60 s of processor time, 2 GiB of memory or
    /// 64 MiB of code; `agent.deadline` and `agent.worker_lost` where the machine is to blame.
    pub async fn compile(&self, component: &[u8]) -> Result<Vec<u8>, Failure> {
        let timed = tokio::time::timeout(WALL_MAX, self.compile_in_child(component)).await;
        let compiled = timed.unwrap_or(Err(WorkerError::Deadline(WALL_MAX)));
        match compiled {
            Ok(Ok(code)) if code.len() > CODE_BYTES_MAX => Err(too_much("its code is too large")),
            Ok(compiled) => compiled,
            Err(WorkerError::Ended { how }) => Err(of_death(&how)),
            Err(error) => Err(error.into()),
        }
    }

    async fn compile_in_child(&self, component: &[u8]) -> Result<Result<Vec<u8>, Failure>, WorkerError> {
        let limits = ProcessLimits { memory_bytes: MEMORY_BYTES_MAX, cpu_seconds: Some(CPU_SECONDS_MAX) };
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

fn of_death(how: &str) -> Failure {
    if CPU_SPENT.iter().any(|mark| how.contains(mark)) {
        return too_much("it took more than 60 s of processor time");
    }
    if how.contains("134") || how.contains("SIGABRT") {
        return too_much("it took more than 2 GiB of memory");
    }
    Failure::new(FailureCode::AgentWorkerLost, format!("the compile process ended ({how})"))
}
