//! Exit codes: stable, so that scripts can tell what happened.

use std::process::ExitCode;

use crate::client::ClientError;
use crate::pool::PoolError;

/// How a command ended, where not with an error that speaks for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As asked.
    Done,
    /// The job ended, but not with a result.
    JobFailed,
    /// Two runs of one contract gave different bits. Must never happen.
    Differs,
    /// `doctor` found something that keeps the pool from working.
    Unfit,
    /// An evidence bundle, an audit log or a backup does not hold.
    Unsound,
    /// A kernel breaks a rule: `kernel check` found it, or the hub refused it.
    KernelUnfit,
}

/// Shown by `--help`.
pub const HELP: &str = "Exit codes:
  0  done
  1  something on this machine failed
  2  the command line is wrong
  3  the hub refused the request
  4  the job failed or was cancelled
  5  the hub cannot be reached
  6  two runs of one contract differ
  7  doctor found something missing
  8  an evidence bundle, an audit log or a backup does not hold
  9  a kernel breaks a rule: kernel check found it, or the hub refused it";

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(match outcome {
            Outcome::Done => 0,
            Outcome::JobFailed => 4,
            Outcome::Differs => 6,
            Outcome::Unfit => 7,
            Outcome::Unsound => 8,
            Outcome::KernelUnfit => 9,
        })
    }
}

/// The code of an error.
#[must_use]
pub fn code(error: &anyhow::Error) -> ExitCode {
    ExitCode::from(match error.downcast_ref::<ClientError>() {
        Some(ClientError::Refused(_)) => 3,
        Some(ClientError::Unreachable { .. } | ClientError::Unexpected { .. }) => 5,
        Some(ClientError::Trust(_)) | None => 1,
    })
}

/// The sentence that is printed for an error, with what helps where that is known.
#[must_use]
pub fn explain(error: &anyhow::Error) -> String {
    let mut text = format!("error: {error:#}\n");
    if let Some(ClientError::Unreachable { .. }) = error.downcast_ref() {
        text.push_str(
            "  Is the pool running? `forgepool up` starts one; `forgepool doctor` looks for what is wrong.\n",
        );
    }
    if let Some(ClientError::Refused(problem)) = error.downcast_ref()
        && problem.status == 401
    {
        text.push_str(
            "  Give a key with --key or FORGEPOOL_API_KEY; `forgepool up` prints one and writes it to dev.env.\n",
        );
    }
    if let Some(PoolError::HubEnded { .. }) = error.downcast_ref() {
        text.push_str(
            "  The agents were stopped. What the hub had accepted is kept and goes on with the next start.\n",
        );
    }
    text
}
