//! How sure a job's result is: what rests on whom, until when, and what was checked again since.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use forge_contract::{FailureCode, JobId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::App;
use super::auth::{Caller, Scope};
use super::jobs::job_id;
use super::problem::{Problem, ProblemBody};
use crate::document::Links;
use crate::store::Phase;
use crate::store::settlement::{ErratumRow, ErratumState, StakeRow, StakeState};

/// How sure a job's result is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Sureness {
    /// Shards rest on agents alone that can still be refuted.
    Provisional,
    /// Nothing of it rests on one agent alone that could still be refuted.
    Settled,
    /// An agent it rested on was refuted: those shards run again.
    Rechecking,
    /// They ran again and gave the same bits.
    Upheld,
    /// They gave another result: that of the newest erratum's run.
    Corrected,
    /// It ended before such things were recorded.
    Unrecorded,
}

/// How sure a job's result is, and why.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct JobStanding {
    /// The job.
    pub job_id: String,
    /// How sure.
    pub standing: Sureness,
    /// Whether every stake in it, and in its erratum runs, has settled.
    pub settled: bool,
    /// Shards that rest on one agent alone which can still be refuted.
    pub shards_alone: u64,
    /// The job whose result holds now: this one, or the run of the newest erratum that corrected it.
    pub result_of: String,
    /// Its document.
    pub result_url: String,
    /// What rests on whom, by agent.
    pub agents: Vec<AgentShare>,
    /// What was checked again, oldest first.
    pub errata: Vec<ErratumItem>,
}

/// What of a job rests on one agent.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AgentShare {
    /// Who.
    pub agent_id: String,
    /// Shards of it that nobody else gave the same bits of.
    pub shards_alone: u64,
    /// Fuel of these.
    pub fuel_alone: u64,
    /// Shards of which it and others gave the same bits.
    pub shards_confirmed: u64,
    /// Fuel of these.
    pub fuel_confirmed: u64,
    /// Where it stands.
    pub state: StakeState,
    /// When it settled or was lost, ms since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<u64>,
}

/// A doubt about a job and what came of it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ErratumItem {
    /// The agent whose answers were doubted.
    pub agent_id: String,
    /// Why: a failure code, or `removed`.
    pub reason: String,
    /// Where it stands.
    pub state: ErratumState,
    /// When it was noted, ms since 1970.
    pub noted_at_ms: u64,
    /// Runs that failed so far; another one follows.
    pub failed_runs: u32,
    /// The job in which the doubtful shards run again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
    /// Its document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Shards of the first stage concerned that run again; later stages run again whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shards: Option<u64>,
    /// Digest of this job's result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result_before: Option<String>,
    /// Digest of the run's result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result_after: Option<String>,
    /// Digest of the record that the hub signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
    /// That record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record_url: Option<String>,
    /// When it ended, ms since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<u64>,
}

/// Whether a job's result is settled, and what was found where it was checked again. The job's own document never
/// changes: a corrected job's result is that of the run named by `result_of`.
#[utoipa::path(
    get, path = "/api/v0/jobs/{id}/standing", tag = "jobs", security(("bearer" = []), ("key" = [])),
    params(("id" = String, Path, description = "The hub's job id")),
    responses(
        (status = 200, body = JobStanding), (status = 401, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 409, description = "The job has no result", body = ProblemBody)
    )
)]
pub async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<JobStanding>, Problem> {
    caller.require(Scope::Read)?;
    let job = job_id(&id)?;
    let row = app.store.job(&caller.project, job).await?.ok_or_else(|| Problem::not_found("job"))?;
    if row.phase != Phase::Completed {
        let detail = match row.phase {
            Phase::Running => {
                "the job is not over yet: its result has a standing once `status` is COMPLETED".to_owned()
            }
            other => format!("the job is {} and has no result that could be settled", other.as_str()),
        };
        return Err(Problem::of(FailureCode::RequestState, detail).about(job));
    }
    let own = app.store.stakes(job).await?;
    let errata = app.store.errata(job).await?;
    let mut later = BTreeMap::new();
    for run in errata.iter().filter_map(|row| row.run) {
        later.insert(run, app.store.stakes(run).await?);
    }
    Ok(Json(standing(job, &own, &later, &errata)))
}

fn standing(
    job: JobId,
    own: &[StakeRow],
    later: &BTreeMap<JobId, Vec<StakeRow>>,
    errata: &[ErratumRow],
) -> JobStanding {
    let alone = |stakes: &[StakeRow]| {
        let held = stakes.iter().filter(|stake| stake.state == StakeState::Held);
        held.fold(0u64, |sum, stake| sum.saturating_add(stake.share.shards_alone))
    };
    let shards_alone = later.values().fold(alone(own), |sum, stakes| sum.saturating_add(alone(stakes)));
    let open = errata.iter().any(|row| matches!(row.state, ErratumState::Pending | ErratumState::Running));
    // The newest run decides: it ran every shard again that was ever doubted.
    let ended = errata.iter().filter(|row| matches!(row.state, ErratumState::Upheld | ErratumState::Corrected));
    let newest = ended.max_by_key(|row| (row.ended_ms, row.run));
    let sureness = match newest.map(|row| row.state) {
        _ if open => Sureness::Rechecking,
        Some(ErratumState::Corrected) => Sureness::Corrected,
        Some(_) => Sureness::Upheld,
        None if own.is_empty() => Sureness::Unrecorded,
        None if shards_alone > 0 => Sureness::Provisional,
        None => Sureness::Settled,
    };
    let corrected = newest.filter(|row| row.state == ErratumState::Corrected).and_then(|row| row.run);
    let result_of = corrected.unwrap_or(job);
    JobStanding {
        job_id: job.to_string(),
        standing: sureness,
        settled: !own.is_empty() && shards_alone == 0 && !open,
        shards_alone,
        result_of: result_of.to_string(),
        result_url: Links::of(result_of).this,
        agents: own.iter().map(share).collect(),
        errata: errata.iter().filter(|row| row.state != ErratumState::Void).map(item).collect(),
    }
}

fn share(stake: &StakeRow) -> AgentShare {
    AgentShare {
        agent_id: stake.agent.to_string(),
        shards_alone: stake.share.shards_alone,
        fuel_alone: stake.share.fuel_alone,
        shards_confirmed: stake.share.shards_confirmed,
        fuel_confirmed: stake.share.fuel_confirmed,
        state: stake.state,
        ended_at_ms: stake.ended_ms,
    }
}

fn item(row: &ErratumRow) -> ErratumItem {
    let links = row.run.map(Links::of);
    let record_url =
        links.as_ref().filter(|_| row.record.is_some()).map(|links| format!("{}/erratum_json", links.artifacts));
    ErratumItem {
        agent_id: row.agent.to_string(),
        reason: row.reason.clone(),
        state: row.state,
        noted_at_ms: row.noted_ms,
        failed_runs: row.failed,
        job_id: row.run.map(|run| run.to_string()),
        url: links.map(|links| links.this),
        shards: row.shards,
        result_before: row.before.map(|digest| digest.to_string()),
        result_after: row.after.map(|digest| digest.to_string()),
        record: row.record.map(|digest| digest.to_string()),
        record_url,
        ended_at_ms: row.ended_ms,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use forge_contract::{AgentId, Digest};
    use forge_lifecycle::settle::Share;

    fn stake(job: JobId, shards_alone: u64, state: StakeState) -> StakeRow {
        StakeRow {
            job,
            agent: AgentId(Digest::of(b"a")),
            share: Share { shards_alone, shards_confirmed: 3, ..Share::default() },
            credits_micro: 1,
            accepted: 2,
            taken_ms: 3,
            state,
            ended_ms: None,
        }
    }

    fn doubt(job: JobId, state: ErratumState, run: Option<JobId>, ended_ms: Option<u64>) -> ErratumRow {
        ErratumRow {
            job,
            agent: AgentId(Digest::of(b"a")),
            reason: "verification.mismatch".into(),
            state,
            noted_ms: 1,
            failed: 0,
            run,
            shards: None,
            before: None,
            after: None,
            record: None,
            ended_ms,
        }
    }

    #[test]
    fn what_is_held_alone_and_the_newest_run_decide() {
        use ErratumState::{Corrected, Pending, Running, Upheld, Void};
        use StakeState::{Forfeited, Held, Payable};
        let (job, first, second) = (JobId::new(1, 1), JobId::new(2, 2), JobId::new(3, 3));
        let of = |own: &[StakeRow], later: &[StakeRow], errata: &[ErratumRow]| {
            let later = [(first, later.to_vec())].into_iter().collect();
            let found = standing(job, own, &later, errata);
            (found.standing, found.settled, found.result_of)
        };
        let this = job.to_string();
        assert_eq!(of(&[], &[], &[]), (Sureness::Unrecorded, false, this.clone()));
        let held = [stake(job, 2, Held), stake(job, 9, Payable)];
        assert_eq!(of(&held, &[], &[]), (Sureness::Provisional, false, this.clone()));
        assert_eq!(of(&[stake(job, 0, Held)], &[], &[]), (Sureness::Settled, true, this.clone()));
        let settled = [stake(job, 9, Payable)];
        assert_eq!(of(&settled, &[], &[doubt(job, Void, None, Some(4))]), (Sureness::Settled, true, this.clone()));
        let lost = [stake(job, 9, Forfeited)];
        for open in [Pending, Running] {
            let errata = [doubt(job, Corrected, Some(first), Some(5)), doubt(job, open, None, None)];
            assert_eq!(of(&lost, &[], &errata).0, Sureness::Rechecking);
        }
        let upheld = [doubt(job, Upheld, Some(first), Some(5))];
        assert_eq!(of(&lost, &[], &upheld), (Sureness::Upheld, true, this.clone()));
        // What the run itself left with one agent alone can still be refuted.
        assert_eq!(of(&lost, &[stake(first, 1, Held)], &upheld), (Sureness::Upheld, false, this.clone()));
        let both = [doubt(job, Corrected, Some(second), Some(9)), doubt(job, Upheld, Some(first), Some(5))];
        assert_eq!(of(&lost, &[], &both), (Sureness::Corrected, true, second.to_string()));
        let both = [doubt(job, Upheld, Some(second), Some(9)), doubt(job, Corrected, Some(first), Some(5))];
        assert_eq!(of(&lost, &[], &both), (Sureness::Upheld, true, this));
    }
}
