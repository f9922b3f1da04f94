//! The reading half, over a pool of read-only connections.

use std::sync::Arc;

use async_trait::async_trait;
use forge_contract::{AgentId, Digest, JobId, LeaseId};
use forge_lifecycle::event::{Membership, OwnerId, ProjectTag};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{Sqlite, books_read, digest_of, history, int, job_bytes, job_of, uint};
use crate::store::settlement::{AgentRecord, DoubtfulJob, ErratumRow, StakeRow};
use crate::store::{
    AcceptedRow, Ack, AgentRow, ArtifactRow, AttemptRow, BlobRow, ErratumOf, JobRow, KernelRow, KernelState,
    LedgerLine, Page, Phase, PlannedRow, RestoredJob, Standing, Store, StoreError, Write,
};

/// Everything [`agent`] and its neighbours read, of the rows named by the rest of the query.
macro_rules! agents {
    ($rest:literal) => {
        concat!(
            "SELECT id, project, (SELECT organisation FROM projects WHERE projects.id = agents.project) AS organisation, \
             reserved, enrolled_ms, last_seen_ms, state, capability, quarantined, verifier, provider, clean, accepted, \
             readmitted_ms, removed_ms, held_micro, payable_micro, forfeited_micro FROM agents ",
            $rest
        )
    };
}
pub(super) use agents;

#[async_trait]
impl Store for Sqlite {
    fn submit(&self, write: Write) -> Ack {
        self.queue(write)
    }

    async fn job(&self, project: &str, job: JobId) -> Result<Option<JobRow>, StoreError> {
        let query = sqlx::query(
            "SELECT id, client_job_id, trace_id, op, envelope_digest, phase, code, accepted_ms, finished_ms, document \
             FROM jobs WHERE id = ? AND project = ?",
        );
        let query = query.bind(job_bytes(job)).bind(project);
        query.fetch_optional(&self.readers).await?.as_ref().map(job_row).transpose()
    }

    async fn jobs(
        &self,
        project: &str,
        before: Option<JobId>,
        phase: Option<Phase>,
        limit: u32,
    ) -> Result<Vec<JobRow>, StoreError> {
        // A list leaves the answers out: they can be large.
        let query = sqlx::query(
            "SELECT id, client_job_id, trace_id, op, envelope_digest, phase, code, accepted_ms, finished_ms, NULL AS document \
             FROM jobs WHERE project = ?1 AND (?2 IS NULL OR id < ?2) AND (?3 IS NULL OR phase = ?3) ORDER BY id DESC LIMIT ?4",
        );
        let rows = query
            .bind(project)
            .bind(before.map(job_bytes))
            .bind(phase.map(Phase::as_str))
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(job_row).collect()
    }

    async fn unfinished(&self) -> Result<Vec<RestoredJob>, StoreError> {
        let query = sqlx::query(
            "SELECT id, j.project, client_job_id, trace_id, op, envelope, plan, j.accepted_ms, replay_of, erratum_of, erratum_after, \
             c.tariff, c.hold_micro FROM jobs j LEFT JOIN charges c ON c.job = COALESCE(j.erratum_of, j.id) \
             WHERE j.finished_ms IS NULL ORDER BY id",
        );
        let rows = query.fetch_all(&self.readers).await?;
        rows.iter().map(restored).collect()
    }

    async fn accepted(&self, job: JobId) -> Result<Vec<AcceptedRow>, StoreError> {
        let query = sqlx::query(
            "SELECT stage, shard, body, fragment, fragment_digest FROM accepted WHERE job = ? ORDER BY stage, shard",
        );
        let rows = query.bind(job_bytes(job)).fetch_all(&self.readers).await?;
        let mut given = Vec::with_capacity(rows.len());
        for row in rows {
            let fragment = match row.try_get::<Option<Vec<u8>>, _>("fragment")? {
                Some(bytes) => bytes,
                None => self.fragment(digest_of(row.try_get("fragment_digest")?)?).await?,
            };
            let (stage, shard) = (index(row.try_get("stage")?)?, index(row.try_get("shard")?)?);
            given.push(AcceptedRow { job, stage, shard, body: row.try_get("body")?, fragment });
        }
        Ok(given)
    }

    async fn accepted_bodies(&self, job: JobId, page: Page) -> Result<Vec<Vec<u8>>, StoreError> {
        let query = sqlx::query("SELECT body FROM accepted WHERE job = ? ORDER BY stage, shard LIMIT ? OFFSET ?");
        let query = query.bind(job_bytes(job)).bind(i64::from(page.limit)).bind(int(page.offset));
        let rows = query.fetch_all(&self.readers).await?;
        rows.iter().map(|row| Ok(row.try_get("body")?)).collect()
    }

    async fn planned(&self, project: &str, job: JobId) -> Result<Option<PlannedRow>, StoreError> {
        let query = sqlx::query("SELECT envelope, plan FROM jobs WHERE id = ? AND project = ? AND plan IS NOT NULL");
        let row = query.bind(job_bytes(job)).bind(project).fetch_optional(&self.readers).await?;
        let text = |row: &SqliteRow, column: &str, what: &'static str| -> Result<String, StoreError> {
            String::from_utf8(row.try_get(column)?).map_err(|_| StoreError::Corrupt { what })
        };
        let planned = |row: SqliteRow| {
            Ok(PlannedRow { envelope: text(&row, "envelope", "envelope")?, plan: text(&row, "plan", "plan")? })
        };
        row.map(planned).transpose()
    }

    async fn attempts(&self, job: JobId, page: Page) -> Result<Vec<AttemptRow>, StoreError> {
        let query = sqlx::query(
            "SELECT stage, shard, lease, agent, code, body FROM attempts WHERE job = ? ORDER BY stage, shard, lease LIMIT ? OFFSET ?",
        );
        let query = query.bind(job_bytes(job)).bind(i64::from(page.limit)).bind(int(page.offset));
        let rows = query.fetch_all(&self.readers).await?;
        rows.iter().map(|row| attempt(job, row)).collect()
    }

    async fn attempts_count(&self, job: JobId) -> Result<u64, StoreError> {
        let query = sqlx::query("SELECT COUNT(*) AS n FROM attempts WHERE job = ?").bind(job_bytes(job));
        Ok(uint(query.fetch_one(&self.readers).await?.try_get("n")?))
    }

    async fn artifacts(&self, job: JobId) -> Result<Vec<ArtifactRow>, StoreError> {
        let query = sqlx::query("SELECT name, media_type, digest, bytes FROM artifacts WHERE job = ? ORDER BY place");
        let rows = query.bind(job_bytes(job)).fetch_all(&self.readers).await?;
        let artifact = |row: &SqliteRow| {
            Ok(ArtifactRow {
                name: row.try_get("name")?,
                media_type: row.try_get("media_type")?,
                digest: digest_of(row.try_get("digest")?)?,
                bytes: uint(row.try_get("bytes")?),
            })
        };
        rows.iter().map(artifact).collect()
    }

    async fn object(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let query = sqlx::query("SELECT bytes FROM objects WHERE digest = ?").bind(digest.as_bytes().as_slice());
        let Some(row) = query.fetch_optional(&self.readers).await? else { return Ok(None) };
        let bytes: Vec<u8> = row.try_get("bytes")?;
        if Digest::of(&bytes) == *digest { Ok(Some(bytes)) } else { Err(StoreError::Corrupt { what: "object" }) }
    }

    async fn blob(&self, project: &str, digest: &Digest) -> Result<Option<BlobRow>, StoreError> {
        let query = sqlx::query("SELECT digest, bytes, created_ms FROM blobs WHERE project = ? AND digest = ?");
        let query = query.bind(project).bind(digest.as_bytes().as_slice());
        query.fetch_optional(&self.readers).await?.as_ref().map(blob_row).transpose()
    }

    async fn blobs(&self, project: &str, before: Option<&Digest>, limit: u32) -> Result<Vec<BlobRow>, StoreError> {
        // A digest that is not the project's gives no row to be older than, and hence nothing.
        let query = sqlx::query(
            "SELECT digest, bytes, created_ms FROM blobs WHERE project = ?1 AND (?2 IS NULL OR (created_ms, digest) < \
             (SELECT created_ms, digest FROM blobs WHERE project = ?1 AND digest = ?2)) \
             ORDER BY created_ms DESC, digest DESC LIMIT ?3",
        );
        let before = before.map(|digest| digest.as_bytes().to_vec());
        let rows = query.bind(project).bind(before).bind(i64::from(limit)).fetch_all(&self.readers).await?;
        rows.iter().map(blob_row).collect()
    }

    async fn agent_key(&self, agent: AgentId) -> Result<Option<[u8; 32]>, StoreError> {
        let query = sqlx::query("SELECT public_key FROM agents WHERE id = ? AND removed_ms IS NULL")
            .bind(agent.0.as_bytes().as_slice());
        let Some(row) = query.fetch_optional(&self.readers).await? else { return Ok(None) };
        let key: &[u8] = row.try_get("public_key")?;
        key.try_into().map(Some).map_err(|_| StoreError::Corrupt { what: "agent key" })
    }

    async fn membership(&self, agent: AgentId) -> Result<Membership, StoreError> {
        let query = sqlx::query(
            "SELECT COALESCE(p.organisation, a.project) AS account, a.provider, a.verifier, a.clean, a.reserved \
             FROM agents AS a LEFT JOIN projects AS p ON p.id = a.project WHERE a.id = ?",
        );
        let row = query.bind(agent.0.as_bytes().as_slice()).fetch_optional(&self.readers).await?;
        let Some(row) = row else {
            return Ok(Membership { owner: OwnerId::alone(agent), ..Membership::default() });
        };
        let (account, provider): (&str, Option<&str>) = (row.try_get("account")?, row.try_get("provider")?);
        let owner = provider.map_or(OwnerId::alone(agent), |provider| OwnerId::named(account, provider));
        let reserved = row.try_get::<Option<&str>, _>("reserved")?.map(ProjectTag::of);
        let (verifier, clean) = (row.try_get("verifier")?, uint(row.try_get("clean")?));
        Ok(Membership { owner, verifier, clean, reserved })
    }

    async fn agents(&self) -> Result<Vec<AgentRow>, StoreError> {
        let rows = sqlx::query(agents!("ORDER BY id")).fetch_all(&self.readers).await?;
        rows.iter().map(agent).collect()
    }

    async fn agent_record(&self, agent: AgentId, events: u32) -> Result<Option<AgentRecord>, StoreError> {
        history::record(&self.readers, agent, events).await
    }

    async fn stakes(&self, job: JobId) -> Result<Vec<StakeRow>, StoreError> {
        history::stakes(&self.readers, job).await
    }

    async fn errata(&self, job: JobId) -> Result<Vec<ErratumRow>, StoreError> {
        history::errata(&self.readers, job).await
    }

    async fn doubtful(&self, now_ms: u64) -> Result<Vec<DoubtfulJob>, StoreError> {
        history::doubtful(&self.readers, now_ms).await
    }

    async fn origin(&self, job: JobId) -> Result<Option<RestoredJob>, StoreError> {
        history::origin(&self.readers, job).await
    }

    async fn kernels(&self) -> Result<Vec<KernelRow>, StoreError> {
        let query = sqlx::query(
            "SELECT name, version, digest, bytes, manifest, admitted_ms, project, state, code, reason, decided_ms, checks \
             FROM kernels ORDER BY name, version",
        );
        query.fetch_all(&self.readers).await?.iter().map(kernel).collect()
    }

    async fn ledger(&self, page: Page) -> Result<Vec<LedgerLine>, StoreError> {
        let query = sqlx::query("SELECT seq, job, entry, previous, digest FROM ledger ORDER BY seq LIMIT ? OFFSET ?");
        let rows = query.bind(i64::from(page.limit)).bind(int(page.offset)).fetch_all(&self.readers).await?;
        let line = |row: &SqliteRow| {
            Ok(LedgerLine {
                seq: uint(row.try_get("seq")?),
                job: job_of(row.try_get("job")?)?,
                entry: row.try_get("entry")?,
                previous: digest_of(row.try_get("previous")?)?,
                digest: digest_of(row.try_get("digest")?)?,
            })
        };
        rows.iter().map(line).collect()
    }

    async fn ready(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.readers).await?;
        Ok(())
    }

    async fn close(&self) {
        self.stop().await;
    }
}

impl Sqlite {
    async fn fragment(&self, digest: Digest) -> Result<Vec<u8>, StoreError> {
        let blobs = Arc::clone(&self.blobs);
        let read = tokio::task::spawn_blocking(move || blobs.get(&digest)).await.map_err(|_| StoreError::Closed)??;
        read.ok_or(StoreError::Corrupt { what: "fragment blob" })
    }
}

pub(super) fn index(value: i64) -> Result<u32, StoreError> {
    u32::try_from(value).map_err(|_| StoreError::Corrupt { what: "index" })
}

fn code_of(row: &SqliteRow, column: &str) -> Result<Option<forge_contract::FailureCode>, StoreError> {
    let text: Option<String> = row.try_get(column)?;
    text.map(|text| text.parse().map_err(|_| StoreError::Corrupt { what: "failure code" })).transpose()
}

fn job_row(row: &SqliteRow) -> Result<JobRow, StoreError> {
    Ok(JobRow {
        job: job_of(row.try_get("id")?)?,
        client_job_id: row.try_get("client_job_id")?,
        trace_id: row.try_get("trace_id")?,
        op: row.try_get("op")?,
        envelope_digest: digest_of(row.try_get("envelope_digest")?)?,
        phase: Phase::parse(row.try_get("phase")?).ok_or(StoreError::Corrupt { what: "phase" })?,
        code: code_of(row, "code")?,
        accepted_ms: uint(row.try_get("accepted_ms")?),
        finished_ms: row.try_get::<Option<i64>, _>("finished_ms")?.map(uint),
        document: row.try_get("document")?,
    })
}

pub(super) fn agent(row: &SqliteRow) -> Result<AgentRow, StoreError> {
    Ok(AgentRow {
        agent: AgentId(digest_of(row.try_get("id")?)?),
        project: row.try_get("project")?,
        organisation: row.try_get::<Option<String>, _>("organisation")?.unwrap_or_default(),
        reserved: row.try_get("reserved")?,
        enrolled_ms: uint(row.try_get("enrolled_ms")?),
        last_seen_ms: uint(row.try_get("last_seen_ms")?),
        state: row.try_get("state")?,
        capability: row.try_get("capability")?,
        quarantined: code_of(row, "quarantined")?,
        verifier: row.try_get("verifier")?,
        provider: row.try_get("provider")?,
        clean: uint(row.try_get("clean")?),
        accepted: uint(row.try_get("accepted")?),
        readmitted_ms: row.try_get::<Option<i64>, _>("readmitted_ms")?.map(uint),
        removed_ms: row.try_get::<Option<i64>, _>("removed_ms")?.map(uint),
    })
}

fn erratum_of(row: &SqliteRow) -> Result<Option<ErratumOf>, StoreError> {
    let Some(of) = row.try_get::<Option<Vec<u8>>, _>("erratum_of")? else { return Ok(None) };
    let after = row.try_get::<Option<i64>, _>("erratum_after")?.map_or(0, uint);
    Ok(Some(ErratumOf { of: job_of(&of)?, after: LeaseId(after) }))
}

pub(super) fn restored(row: &SqliteRow) -> Result<RestoredJob, StoreError> {
    let text = |column: &str, what: &'static str| -> Result<String, StoreError> {
        String::from_utf8(row.try_get(column)?).map_err(|_| StoreError::Corrupt { what })
    };
    Ok(RestoredJob {
        job: job_of(row.try_get("id")?)?,
        project: row.try_get("project")?,
        client_job_id: row.try_get("client_job_id")?,
        trace_id: row.try_get("trace_id")?,
        op: row.try_get("op")?,
        envelope: text("envelope", "envelope")?,
        plan: text("plan", "plan")?,
        accepted_ms: uint(row.try_get("accepted_ms")?),
        replay_of: row.try_get::<Option<Vec<u8>>, _>("replay_of")?.as_deref().map(job_of).transpose()?,
        erratum: erratum_of(row)?,
        terms: books_read::terms_of(row)?,
    })
}

fn blob_row(row: &SqliteRow) -> Result<BlobRow, StoreError> {
    Ok(BlobRow {
        digest: digest_of(row.try_get("digest")?)?,
        bytes: uint(row.try_get("bytes")?),
        created_ms: uint(row.try_get("created_ms")?),
    })
}

fn kernel(row: &SqliteRow) -> Result<KernelRow, StoreError> {
    let state = KernelState::parse(row.try_get("state")?).ok_or(StoreError::Corrupt { what: "kernel state" })?;
    Ok(KernelRow {
        name: row.try_get("name")?,
        version: index(row.try_get("version")?)?,
        digest: digest_of(row.try_get("digest")?)?,
        bytes: uint(row.try_get("bytes")?),
        manifest: row.try_get("manifest")?,
        project: row.try_get("project")?,
        recorded_ms: uint(row.try_get("admitted_ms")?),
        standing: Standing {
            state,
            code: code_of(row, "code")?,
            reason: row.try_get("reason")?,
            decided_ms: row.try_get::<Option<i64>, _>("decided_ms")?.map(uint),
            checks: row.try_get("checks")?,
        },
    })
}

fn attempt(job: JobId, row: &SqliteRow) -> Result<AttemptRow, StoreError> {
    Ok(AttemptRow {
        job,
        stage: index(row.try_get("stage")?)?,
        shard: index(row.try_get("shard")?)?,
        lease: LeaseId(uint(row.try_get("lease")?)),
        agent: AgentId(digest_of(row.try_get("agent")?)?),
        code: code_of(row, "code")?,
        body: row.try_get("body")?,
    })
}
