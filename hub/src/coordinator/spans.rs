//! The spans of jobs and of their shards, for a collector of traces.

use forge_contract::LeaseId;
use forge_contract::trace::TraceContext;
use forge_lifecycle::action::Attempt;
use forge_telemetry::{Kind, Span, moment};

use super::board::{Ended, JobInfo};
use super::execution::ending_word;

/// The span a shard is run in, as its agent is told.
pub(super) fn of_shard(info: &JobInfo, lease: LeaseId) -> TraceContext {
    info.span().child("shard", lease.0.into())
}

/// An attempt at a shard, from its dispatch to its end.
pub(super) fn shard(info: &JobInfo, attempt: &Attempt) -> Span {
    Span {
        name: "shard".to_owned(),
        kind: Kind::Client,
        context: of_shard(info, attempt.lease),
        parent: info.span().span,
        from: moment(attempt.started_at),
        until: moment(attempt.ended_at),
        attributes: vec![
            ("forgepool.job", info.job.to_string().into()),
            ("forgepool.stage", u64::from(attempt.stage).into()),
            ("forgepool.shard", u64::from(attempt.shard).into()),
            ("forgepool.agent", attempt.agent.to_string().into()),
            ("forgepool.lease", attempt.lease.0.into()),
            ("forgepool.ending", ending_word(attempt.ending).into()),
        ],
        failed: attempt.code.map(|code| code.as_str().to_owned()),
    }
}

/// A job, from its acceptance to its end.
pub(super) fn job(info: &JobInfo, ended: &Ended) -> Span {
    Span {
        name: format!("job {}", info.plan.op),
        kind: Kind::Internal,
        context: info.span(),
        parent: info.trace.span,
        from: moment(info.accepted_ms),
        until: moment(crate::clock::unix_ms()),
        attributes: vec![
            ("forgepool.job", info.job.to_string().into()),
            ("forgepool.project", (&*info.project).into()),
            ("forgepool.op", info.plan.op.as_str().into()),
            ("forgepool.profile", info.plan.profile.as_str().into()),
            ("forgepool.status", ended.phase.as_str().into()),
        ],
        failed: ended.code.map(|code| code.as_str().to_owned()),
    }
}
