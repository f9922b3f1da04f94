//! `forgepool replay`: a job again, on this machine from its bundle, or on the pool.

mod bench;
mod local;
mod pool;
mod units;

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;
use forge_sandbox::CageLevel;
use forge_sandbox::engine::Backend;

use crate::exit::Outcome;
use crate::target::TargetArgs;

/// Executes a job again and says whether every unit gives the same bits and burns the same fuel, or which first does not.
///
/// With a BUNDLE it runs here, on all cores, without a hub: trust in whoever made the bundle is not needed. With --job
/// it runs on the pool, under the pinned plan and component, as a new job.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["bundle", "job"])))]
pub struct Args {
    /// The bundle, as `forgepool evidence` wrote it
    #[arg(value_name = "BUNDLE")]
    bundle: Option<PathBuf>,
    /// Repeat this job on the pool instead
    #[arg(long, value_name = "ID")]
    job: Option<String>,
    /// Only these units, both ends included: 17, 17..19 or 3,17..19
    #[arg(long, value_name = "UNITS", conflicts_with = "job")]
    units: Option<units::Wanted>,
    /// The stage the units are of; where not given, the first
    #[arg(long, value_name = "STAGE", requires = "units")]
    stage: Option<String>,
    /// The kernel's component, where the bundle is slim
    #[arg(long, value_name = "FILE", conflicts_with = "job")]
    component: Option<PathBuf>,
    /// What runs the kernel; all give the same bits
    #[arg(long, value_enum, default_value_t = Engine::Cranelift, conflicts_with = "job")]
    backend: Engine,
    /// How the worker processes must be caged
    #[arg(long, value_enum, default_value_t = Cage::Required, conflicts_with = "job")]
    cage: Cage,
    /// Worker processes; where not given, one for each core
    #[arg(long, value_name = "N", conflicts_with = "job")]
    cores: Option<std::num::NonZeroU16>,
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
    /// No progress
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// What runs a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// Cranelift, optimising, in caged worker processes, as agents run it
    Cranelift,
    /// Cranelift, not optimising, in this very process: only for components you trust
    CraneliftPlain,
    /// The Pulley interpreter, in this very process, slow: only for components you trust
    Pulley,
}

impl Engine {
    /// The backend to run in this process; `None` for caged workers.
    fn in_process(self) -> Option<Backend> {
        match self {
            Self::Cranelift => None,
            Self::CraneliftPlain => Some(Backend::CraneliftNone),
            Self::Pulley => Some(Backend::Pulley),
        }
    }
}

/// What a cage must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Cage {
    /// Landlock and the system call filter, or nothing runs
    Required,
    /// Whatever this machine offers: only for components you trust
    Available,
}

impl From<Cage> for CageLevel {
    fn from(cage: Cage) -> Self {
        match cage {
            Cage::Required => Self::Required,
            Cage::Available => Self::Available,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// What keeps the job from being repeated at all.
pub async fn run(args: Args) -> Result<Outcome> {
    match (&args.bundle, &args.job) {
        (Some(bundle), _) => local::run(&args, bundle).await,
        (None, Some(job)) => pool::run(&args, job).await,
        (None, None) => Ok(Outcome::Done),
    }
}
