//! Databases of every earlier schema, made by the migrations themselves and filled as programs of that time did, go on.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;

use forge_contract::{AgentId, Digest, FailureCode, JobId};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Row as _, SqliteConnection};

use super::Sqlite;
use crate::store::blobs::Blobs;
use crate::store::{Store, StoreError, Write};

/// What a schema brought: rows as a program of that time wrote them, and what is read of them ever after.
struct Step {
    version: i64,
    /// Run right after its migration, against the schema as it was then.
    rows: &'static str,
    /// Queries of one text each and their answers, against the newest schema.
    holds: &'static [(&'static str, &'static str)],
}

const STEPS: &[Step] = &[
    Step {
        version: 1,
        rows: r#"INSERT INTO projects VALUES ('a', 'first', 1);
               INSERT INTO api_keys VALUES (x'aa', 'a', 'fpk_abcd', 'compute admin', 1, NULL);
               INSERT INTO jobs (id, project, trace_id, op, envelope, envelope_digest, plan, phase, accepted_ms, finished_ms,
                   document) VALUES (x'000003e9000000000000000000000001', 'a', 't', 'op', x'7b7d', zeroblob(32), x'7b7d',
                   'COMPLETED', 7, 9, 'answer');
               INSERT INTO jobs (id, project, trace_id, op, envelope, envelope_digest, plan, phase, accepted_ms) VALUES
                   (x'000003e9000000000000000000000002', 'a', 't', 'op', x'7b7d', zeroblob(32), x'7b7d', 'RUNNING', 8);
               INSERT INTO idempotency VALUES ('a', 'key', zeroblob(32), x'000003e9000000000000000000000001', 7);
               INSERT INTO accepted VALUES (x'000003e9000000000000000000000002', 0, 0, x'01', x'02', NULL);
               INSERT INTO attempts VALUES (x'000003e9000000000000000000000001', 0, 0, 1, zeroblob(32), NULL, '{}');
               INSERT INTO artifacts VALUES (x'000003e9000000000000000000000001', 0, 'n', 'm', zeroblob(32), 3);
               INSERT INTO objects VALUES (zeroblob(32), x'03');
               INSERT INTO agents (id, public_key, project, enrolled_ms, last_seen_ms, state) VALUES
                   (zeroblob(32), zeroblob(32), 'a', 1, 1, 'gone');
               INSERT INTO enrol_tokens (hash, project, created_ms, expires_ms) VALUES (x'bb', 'a', 1, 2);
               INSERT INTO kernels (name, version, digest, bytes, manifest, admitted_ms) VALUES
                   ('mc', 1, zeroblob(32), 5, '{}', 1);
               INSERT INTO ledger VALUES (1, x'000003e9000000000000000000000001', 'a',
                   '{"at_ms":9,"mode":"billable","fuel":"5","credits_micro":"2","eur_micro":"1","charged":true}',
                   zeroblob(32), zeroblob(32));
               INSERT INTO meta VALUES ('leases', x'0000000000000007');"#,
        holds: &[
            ("SELECT name FROM projects WHERE id = 'a'", "first"),
            ("SELECT document FROM jobs WHERE id = x'000003e9000000000000000000000001'", "answer"),
            ("SELECT scopes FROM api_keys WHERE hash = x'aa'", "compute admin"),
            ("SELECT hex(job) FROM idempotency WHERE key = 'key'", "000003E9000000000000000000000001"),
            ("SELECT hex(fragment) FROM accepted", "02"),
            ("SELECT body FROM attempts", "{}"),
            ("SELECT name FROM artifacts", "n"),
            ("SELECT hex(bytes) FROM objects WHERE digest = zeroblob(32)", "03"),
            ("SELECT state FROM agents WHERE id = zeroblob(32)", "gone"),
            ("SELECT hex(hash) FROM enrol_tokens", "BB"),
            ("SELECT state FROM kernels WHERE name = 'mc'", "admitted"),
            ("SELECT json_extract(entry, '$.mode') FROM ledger WHERE seq = 1", "billable"),
        ],
    },
    Step {
        version: 2,
        rows: "INSERT INTO blobs VALUES ('a', zeroblob(32), 6, 3);",
        holds: &[("SELECT hex(digest) FROM blobs WHERE project = 'a' AND bytes = 6", ZEROS)],
    },
    Step {
        version: 3,
        rows: "INSERT INTO kernels (name, version, digest, bytes, manifest, admitted_ms, project, state, code, reason) VALUES
                   ('a/k', 1, x'cc', 5, '{}', 1, 'a', 'refused', 'request.component_golden', 'why');
               UPDATE agents SET verifier = 1;",
        holds: &[
            ("SELECT reason FROM kernels WHERE name = 'a/k' AND state = 'refused'", "why"),
            ("SELECT state FROM agents WHERE verifier = 1", "gone"),
        ],
    },
    Step {
        version: 4,
        rows: "UPDATE jobs SET replay_of = x'000003e9000000000000000000000001' WHERE phase = 'RUNNING';",
        holds: &[("SELECT hex(replay_of) FROM jobs WHERE phase = 'RUNNING'", "000003E9000000000000000000000001")],
    },
    Step {
        version: 5,
        rows: "UPDATE agents SET provider = 'p', clean = 70;",
        holds: &[("SELECT provider || clean || accepted FROM agents", "p7070")],
    },
    Step {
        version: 6,
        rows: "UPDATE agents SET accepted = 70, held_micro = 4;
               INSERT INTO stakes (job, agent, shards_alone, fuel_alone, shards_confirmed, fuel_confirmed, credits_micro,
                   accepted, taken_ms, state) VALUES (x'000003e9000000000000000000000001', zeroblob(32), 1, 2, 0, 0, 4, 70,
                   9, 'held');
               INSERT INTO errata (job, agent, reason, state, noted_ms, due_ms) VALUES
                   (x'000003e9000000000000000000000001', zeroblob(32), 'r', 'void', 1, 1);
               INSERT INTO agent_events (agent, at_ms, kind) VALUES (zeroblob(32), 1, 'enrolled');",
        holds: &[
            ("SELECT state FROM stakes", "held"),
            ("SELECT reason FROM errata", "r"),
            ("SELECT kind FROM agent_events", "enrolled"),
        ],
    },
    Step {
        version: 7,
        rows: "INSERT INTO organisations (id, name, created_ms) VALUES ('o', 'Org', 2);
               INSERT INTO members (id, organisation, name, role, created_ms) VALUES ('m', 'o', 'n', 'viewer', 2);
               UPDATE api_keys SET name = 'k';",
        holds: &[
            ("SELECT organisation FROM projects WHERE id = 'a'", "default"),
            ("SELECT role FROM members WHERE organisation = 'o'", "viewer"),
            ("SELECT name FROM api_keys WHERE substr(id, 1, 4) = 'key_'", "k"),
        ],
    },
    Step {
        version: 8,
        rows: "INSERT INTO kv (project, namespace, key, value, digest, bytes, media_type, created_ms, updated_ms) VALUES
                   ('a', 'n', 'k', x'01', zeroblob(32), 1, 'text/plain', 1, 1);
               INSERT INTO vmem (project, name, version, digest, bytes, dtype, shape, data_at, created_ms) VALUES
                   ('a', 'v', 1, zeroblob(32), 8, 'f64', '[1]', 0, 1);",
        holds: &[
            ("SELECT hex(value) FROM kv WHERE namespace = 'n' AND key = 'k'", "01"),
            ("SELECT dtype FROM vmem WHERE name = 'v' AND version = 1", "f64"),
        ],
    },
    Step {
        version: 9,
        rows: r#"INSERT INTO charges (job, project, kernel, mode, tariff, hold_micro, accepted_ms) VALUES
                   (x'000003e9000000000000000000000002', 'a', 'mc@1', 'test', '{"rates":{"price_micro":1000000,"per_fuel":3000000000,"eur_micro_per_credit":120000},
                    "provider_ppm":800000,"verification_ppm":0,"hold_ppm":1250000}', 0, 8);
               INSERT INTO budgets VALUES ('a', 7, 'month');"#,
        holds: &[
            ("SELECT kernel FROM charges", "mc@1"),
            ("SELECT period FROM budgets WHERE project = 'a'", "month"),
            ("SELECT kernel || charged_micro FROM usage_days", "op2"),
        ],
    },
    Step {
        version: 10,
        rows: "INSERT INTO audit VALUES (1, 5, '', 'a', 'k', 'POST /x', '/x', 200, '', 'n', NULL, '', 't', zeroblob(16),
                   zeroblob(32), zeroblob(32));
               INSERT INTO audit_heads VALUES (1, zeroblob(32), 6, 'periodic', zeroblob(32), zeroblob(64));",
        holds: &[("SELECT note FROM audit", "n"), ("SELECT purpose FROM audit_heads", "periodic")],
    },
];

const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

async fn connect(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).create_if_missing(true).connect().await.unwrap()
}

/// A database of this schema, as its time left it.
async fn database_of(version: i64, path: &Path) {
    let mut connection = connect(path).await;
    for step in STEPS.iter().filter(|step| step.version <= version) {
        let mut migrations = sqlx::migrate!("./migrations");
        migrations.migrations.to_mut().retain(|migration| migration.version <= step.version);
        migrations.run(&mut connection).await.unwrap();
        sqlx::raw_sql(step.rows).execute(&mut connection).await.unwrap();
    }
    connection.close().await.unwrap();
}

async fn open(folder: &Path) -> Result<Sqlite, StoreError> {
    Sqlite::open(&folder.join("hub.db"), Arc::new(Blobs::open(&folder.join("blobs")).unwrap())).await
}

#[tokio::test]
async fn a_database_of_every_schema_goes_on() {
    let versions: Vec<i64> = sqlx::migrate!("./migrations").iter().map(|migration| migration.version).collect();
    let steps: Vec<i64> = STEPS.iter().map(|step| step.version).collect();
    assert_eq!(steps, versions, "every migration has a step here, with rows as a program of its schema writes them");
    for version in versions {
        let folder = tempfile::tempdir().unwrap();
        database_of(version, &folder.path().join("hub.db")).await;
        let store = open(folder.path()).await.unwrap();
        let mut connection = connect(&folder.path().join("hub.db")).await;
        for step in STEPS.iter().filter(|step| step.version <= version) {
            for (query, expected) in step.holds {
                let row = sqlx::query(*query).fetch_one(&mut connection).await;
                let row = row.unwrap_or_else(|error| panic!("{query} after schema {version}: {error}"));
                assert_eq!(row.try_get::<String, _>(0).unwrap(), *expected, "{query} after schema {version}");
            }
        }
        connection.close().await.unwrap();
        works(&store, version).await;
        store.close().await;
        // Opened again, nothing is left to do.
        open(folder.path()).await.unwrap().close().await;
    }
}

/// The newest program works on it.
async fn works(store: &dyn Store, version: i64) {
    let job = |number: u128| JobId::from_bits(0x0000_03e9_0000_0000_0000_0000_0000_0000 + number);
    assert_eq!(store.job("a", job(1)).await.unwrap().unwrap().document.as_deref(), Some("answer"));
    let waiting = store.unfinished().await.unwrap();
    assert_eq!(waiting.iter().map(|job| job.job).collect::<Vec<_>>(), [job(2)]);
    assert_eq!(store.accepted(job(2)).await.unwrap().len(), 1);
    let agent = AgentId(Digest::from_bytes([0; 32]));
    let record = store.agent_record(agent, 9).await.unwrap().unwrap();
    assert_eq!(record.agent.accepted, if version >= 5 { 70 } else { 0 });
    assert_eq!(
        (store.stakes(job(1)).await.unwrap().len(), store.errata(job(1)).await.unwrap().len()),
        match version {
            ..6 => (0, 0),
            6.. => (1, 1),
        }
    );
    let code = FailureCode::VerificationMismatch;
    store.submit(Write::Quarantine { agent, code, job: job(1) }).await.unwrap();
    // What was never staked is not doubted.
    assert_eq!(store.doubtful(u64::MAX).await.unwrap().len(), usize::from(version >= 6));
    let Ok(crate::store::Written::FirstLease(first)) = store.submit(Write::ReserveLeases).await else { panic!() };
    assert_eq!(first, 7);
    let entry = forge_lifecycle::trail::Entry::default();
    store.submit(crate::store::TrailWrite::Row(entry).into()).await.unwrap();
    assert_eq!(store.trail_tip().await.unwrap().seq, if version >= 10 { 2 } else { 1 });
}

#[tokio::test]
async fn a_database_of_a_newer_program_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).await.unwrap().close().await;
    let mut connection = connect(&folder.path().join("hub.db")).await;
    sqlx::query("INSERT INTO _sqlx_migrations VALUES (9999, 'of later', 1, TRUE, x'00', 1)")
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    let refused = open(folder.path()).await.unwrap_err();
    assert!(matches!(refused, StoreError::Newer { found: 9999, .. }), "{refused}");
    assert!(refused.to_string().contains("restore the backup"), "{refused}");
}

#[tokio::test]
async fn the_audit_log_is_only_added_to() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await.unwrap();
    let store: &dyn Store = &store;
    for _ in 0..3 {
        let entry = forge_lifecycle::trail::Entry::default();
        store.submit(crate::store::TrailWrite::Row(entry).into()).await.unwrap();
    }
    store.close().await;
    let mut connection = connect(&folder.path().join("hub.db")).await;
    for statement in [
        "UPDATE audit SET note = 'x'",
        "DELETE FROM audit",
        "DELETE FROM audit WHERE seq = 3",
        "INSERT INTO audit SELECT 9, at_ms, organisation, project, key, action, target, status, code, note, body, peer, \
         trace_id, salt, digest, link FROM audit WHERE seq = 1",
        "INSERT OR REPLACE INTO audit SELECT 2, at_ms, organisation, project, key, action, target, status, code, note, body, \
         peer, trace_id, salt, digest, link FROM audit WHERE seq = 1",
    ] {
        let refused = sqlx::query(statement).execute(&mut connection).await.unwrap_err().to_string();
        assert!(refused.contains("audit log"), "{statement}: {refused}");
    }
    let rows: i64 = sqlx::query("SELECT COUNT(*) AS rows FROM audit")
        .fetch_one(&mut connection)
        .await
        .unwrap()
        .try_get("rows")
        .unwrap();
    assert_eq!(rows, 3);
}
