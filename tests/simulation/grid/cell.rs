//! One cell of the grid: who is in the pool, how it checks, and what came of it.

use forge_contract::envelope::VerifyMode;
use forge_lifecycle::verify::AuditPolicy;

use super::strategy::Strategy;

/// What is simulated.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// Another system's policy, where it is not ours.
    pub instead: Option<&'static str>,
    pub strategy: Strategy,
    pub mode: VerifyMode,
    pub policy: AuditPolicy,
    /// Bad ones among the strangers, percent.
    pub bad: u32,
    /// Agents of strangers connected at a time.
    pub strangers: usize,
    /// Agents of the operator.
    pub verifiers: usize,
    /// Whether an honest stranger's core errs now and then.
    pub faulty: bool,
    /// Whether agents come and go.
    pub churn: bool,
    /// Clean shards a fresh identity starts with: 0, but for policies of other systems.
    pub start: u64,
    /// Leases an agent holds at a time.
    pub leases: u32,
    /// Jobs under way at a time.
    pub jobs: usize,
    /// Shards of a job.
    pub job: u32,
    /// Shards to deliver.
    pub shards: u64,
    pub seed: u64,
}

impl Cell {
    /// Bad agents connected at a time.
    pub fn bad_seats(&self) -> usize {
        (self.strangers * self.bad as usize).div_ceil(100)
    }

    /// Share of the work that bad agents are asked for.
    pub fn bad_share(&self) -> f64 {
        self.bad_seats() as f64 / (self.strangers + self.verifiers) as f64
    }
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Shards accepted, also of jobs that failed, and of those accepted again.
    pub accepted: u64,
    /// Of these, first answered by bad agents.
    pub accepted_of_bad: u64,
    /// Of these, wrong when they were accepted.
    pub wrong: u64,
    /// Wrong for the sake of a faulty core.
    pub wrong_by_accident: u64,
    /// Shards of complete jobs.
    pub delivered: u64,
    /// Wrong shards in complete jobs.
    pub delivered_wrong: u64,
    /// Attempts of complete jobs.
    pub executions: u64,
    /// What the prediction says these should have been.
    pub predicted: f64,
    /// Sum over the lies told of what each could gain: see the derivation.
    pub variance: f64,
    pub lies: u64,
    pub jobs_failed: u64,
    /// Honest agents taken out.
    pub harmed: u64,
    /// Faulty ones taken out.
    pub faulty_out: u64,
    /// Bad identities taken out.
    pub burned: u64,
    /// Identities there ever were.
    pub identities: u64,
}

impl Tally {
    pub fn rate(&self) -> f64 {
        self.delivered_wrong as f64 / self.delivered.max(1) as f64
    }

    pub fn overhead(&self) -> f64 {
        self.executions as f64 / self.delivered.max(1) as f64
    }

    pub fn overhead_predicted(&self) -> f64 {
        self.predicted / self.delivered.max(1) as f64
    }
}
