//! The parent's handle on a worker process that runs shards.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use forge_contract::Digest;
use forge_contract::duty::Duty;
use forge_contract::report::Outcome;
use forge_contract::task::Task;
use tokio::sync::watch;

use super::frame::{FromChild, ToChild};
use super::{Caged, WANT_BYTES_MAX, WANT_STEPS_MAX, WorkerError, unexpected};
use crate::cage::{CageLevel, CageReport, ProcessLimits};
use crate::execute::ShardResult;
use crate::inputs::{Inputs, Piece, Want};

/// What a worker may write, bytes: a unit's memory at its largest, its inputs, its fragments several times over.
const MEMORY_BYTES_MAX: u64 = 4 << 30;

/// A caged process that runs the shards of one job: spawned and caged before its code is known, given the code once,
/// thrown away after. Killed when dropped, which is how a lease is revoked.
///
/// On Linux the process dies with the thread that spawned it, so spawn from a thread that lasts: a runtime's own, not
/// one for blocking calls.
#[derive(Debug)]
pub struct Worker {
    caged: Caged,
    sent: BTreeSet<Digest>,
    busy: bool,
}

impl Worker {
    /// Starts `program args` (which must end in [`super::worker_main`]) and waits until it is caged.
    ///
    /// # Errors
    /// `Start`, `Uncaged`, `Ended`, `Protocol`.
    pub async fn spawn(program: &Path, args: &[OsString], level: CageLevel) -> Result<Self, WorkerError> {
        let limits = ProcessLimits { memory_bytes: MEMORY_BYTES_MAX, cpu_seconds: None };
        let caged = Caged::start(program, args, level, limits).await?;
        Ok(Self { caged, sent: BTreeSet::new(), busy: false })
    }

    /// What is in force in the process, as it says itself.
    #[must_use]
    pub fn cage(&self) -> &CageReport {
        &self.caged.report
    }

    /// Operating system's id of the process; `None` once it has ended.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        self.caged.child.id()
    }

    /// Gives the worker its code. Once.
    ///
    /// # Errors
    /// `Load` where the engine refuses the code (a cached entry should then be dropped and compiled anew), and those
    /// of a lost process.
    pub async fn load(&mut self, code: &[u8]) -> Result<(), WorkerError> {
        self.begin()?;
        self.caged.send(&ToChild::Load { code }).await?;
        let loaded = match self.caged.receive().await? {
            FromChild::Loaded(loaded) => loaded.map_err(WorkerError::Load),
            other => Err(unexpected(&other)),
        };
        self.busy = false;
        loaded
    }

    /// Runs a shard. Inputs that the worker already has are not sent again; of those that are supplied it is given what
    /// its units read.
    ///
    /// `progress` receives the number of units done, at most some fifty times a second.
    /// Order: dropping the future breaks the run off; the worker is then good for nothing but dropping.
    ///
    /// # Errors
    /// `Deadline` after `deadline`, `Input` where one could not be had: no verdict. Those of a lost process.
    pub async fn run(
        &mut self,
        task: &Task,
        inputs: &Inputs,
        deadline: Duration,
        progress: &watch::Sender<u64>,
    ) -> Result<ShardResult, WorkerError> {
        self.begin()?;
        let ran = tokio::time::timeout(deadline, self.exchange(task, inputs, progress)).await;
        match ran {
            Ok(result) => {
                self.busy = result.is_err();
                result
            }
            Err(_) => {
                // Stays busy: the process is still computing, and dies here rather than when it is dropped.
                self.caged.kill();
                Err(WorkerError::Deadline(deadline))
            }
        }
    }

    /// Closes the worker's input, upon which it ends wherever it is, and waits for that.
    ///
    /// # Errors
    /// The operating system's, where the process cannot be waited for.
    pub async fn end(mut self) -> std::io::Result<ExitStatus> {
        self.caged.pipes = None;
        self.caged.child.wait().await
    }

    async fn exchange(
        &mut self,
        task: &Task,
        inputs: &Inputs,
        progress: &watch::Sender<u64>,
    ) -> Result<ShardResult, WorkerError> {
        for (digest, bytes) in inputs.contents() {
            if self.sent.insert(*digest) {
                self.caged.send(&ToChild::Input { digest: *digest, bytes }).await?;
            }
        }
        let asked = inputs.supplied().map(|(digest, ..)| *digest).collect();
        self.caged.send(&ToChild::Run { task: Box::new(task.clone()), asked }).await?;
        loop {
            match self.caged.receive().await? {
                FromChild::Progress { units } => {
                    // Bounded by what was asked: the number goes to the hub.
                    progress.send_replace(units.min(task.unit_count));
                }
                FromChild::Want { digest, want } => {
                    let found = pieces(inputs, &digest, want).await?;
                    let pieces = found.iter().map(|piece| (piece.offset, serde_bytes::Bytes::new(&piece.bytes)));
                    self.caged.send(&ToChild::Pieces { pieces: pieces.collect() }).await?;
                }
                FromChild::Done(result) if answers(task, &result.outcome) => return Ok(*result),
                other => return Err(unexpected(&other)),
            }
        }
    }

    fn begin(&mut self) -> Result<(), WorkerError> {
        match core::mem::replace(&mut self.busy, true) {
            true => Err(WorkerError::Busy),
            false => Ok(()),
        }
    }
}

/// What a child asks for: of an input of its task, within it, and not too much. It may be hostile.
async fn pieces(inputs: &Inputs, digest: &Digest, want: Want) -> Result<Vec<Piece>, WorkerError> {
    let found = inputs.supplied().find(|(supplied, size, _)| *supplied == digest && want.offset < *size);
    let Some((_, size, supply)) = found else {
        return Err(WorkerError::Protocol { what: "it reads what its task does not".into() });
    };
    let bytes = want.bytes.clamp(1, WANT_BYTES_MAX).min(size - want.offset);
    let want = Want { bytes, steps: want.steps.min(WANT_STEPS_MAX), ..want };
    supply.pieces(want).await.map_err(WorkerError::Input)
}

/// Whether an outcome is of the kind that the task asks for: a child that met hostile code may say anything.
fn answers(task: &Task, outcome: &Outcome) -> bool {
    match (&task.duty, outcome) {
        (Duty::Compute, Outcome::Completed(_)) | (_, Outcome::Failed(_)) => true,
        (Duty::Check(_), Outcome::Checked(checked)) => {
            checked.units.len() as u64 == task.unit_count && checked.units.iter().all(|unit| unit.finding.is_legal())
        }
        _ => false,
    }
}
