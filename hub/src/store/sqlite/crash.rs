//! The writer dies between any two writes to its files: whatever is left, the books hold.
//!
//! What a killed process leaves is the database file and a write-ahead log of some length: whole frames up to the last
//! commit, then perhaps a part of the next one. So the log is cut at every frame, and within frames, and each remainder is
//! opened as the next process would.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use forge_contract::{AgentId, Digest, JobId};
use forge_lifecycle::books::chain::{Line, Walk, link};
use forge_lifecycle::books::price::{Charge, pay};
use forge_lifecycle::books::{Bearer, Kind, Stamp, Transaction};
use forge_lifecycle::ledger::Tariff;
use forge_lifecycle::settle::{Backed, SettlePolicy, Share};

use super::Sqlite;
use crate::store::blobs::Blobs;
use crate::store::books::{BooksStore as _, BooksWrite, NewCharge, Settlement, TransactionQuery};
use crate::store::data::Kept;
use crate::store::tenancy::{NewProject, OPERATOR, TenancyWrite};
use crate::store::*;

/// Of a write-ahead log: its head, and a frame of 4,096 bytes with its own.
const LOG_HEAD: usize = 32;
const FRAME: usize = 4096 + 24;
const HELD: u64 = 1_500_000;

async fn opened(folder: &Path) -> Sqlite {
    let blobs = Arc::new(Blobs::open(&folder.join("blobs")).unwrap());
    Sqlite::open(&folder.join("hub.db"), blobs).await.unwrap()
}

fn job(number: u64) -> JobId {
    JobId::new(number, u128::from(number))
}

fn accepted(number: u64) -> NewJob {
    let kernel = "mc@1".into();
    let charge = NewCharge { kernel, mode: "billable", tariff: Tariff::default(), hold_micro: HELD, budget: None };
    NewJob {
        job: job(number),
        project: "p".into(),
        client_job_id: None,
        trace_id: "t".into(),
        op: "mc@1 insurance.v1".into(),
        envelope: "x".into(),
        envelope_digest: Digest::of(b"x"),
        plan: "{}".into(),
        accepted_ms: number,
        idempotency_key: Some(format!("k{number}")),
        request_digest: Digest::of(b"x"),
        replay_of: None,
        content: Vec::new(),
        charge: Some(charge),
    }
}

fn ended(number: u64, agent: AgentId) -> FinishedJob {
    let tariff = Tariff::default();
    let fuel = if number.is_multiple_of(3) { 0 } else { 3_000_000_000 };
    let shards = [Backed { agent, agreed: &[], fuel, looks: &[], refuted: &[] }];
    let (charge, pay) = (Charge::of(&tariff, Some(HELD), fuel, 0), pay(&tariff, shards));
    let bearer = Bearer::Client { project: "p", held_micro: Some(HELD) };
    let stamp = Stamp { at_ms: number, salt: u128::from(number) };
    let transaction = Transaction::settle(stamp, job(number), bearer, &charge, &pay).unwrap();
    let stake = NewStake { agent, share: Share::default(), credits_micro: pay[0].micro() };
    FinishedJob {
        job: job(number),
        phase: Phase::Completed,
        code: None,
        finished_ms: number,
        document: "done".into(),
        artifacts: vec![],
        objects: vec![],
        entry: "{}".into(),
        settlement: Some(Settlement { charge, eur_micro: 1, transaction, correction: None }),
        stakes: vec![stake],
        erratum: None,
        kept: Kept::default(),
    }
}

/// A working day, every write acknowledged before the next.
async fn a_day(store: &Sqlite) {
    let submit = async |write| store.submit(write).await.unwrap();
    let project = TenancyWrite::Project(NewProject::plain("p", OPERATOR));
    submit(Write::Tenancy(Box::new(project))).await;
    let (hash, project) = (Digest::of(b"token"), "p".into());
    submit(Write::EnrolToken { hash, project, expires_ms: 1 << 50, verifier: false, provider: None, reserved: None })
        .await;
    submit(Write::Redeem { hash, public_key: [1; 32] }).await;
    let agent = AgentId::of_public_key(&[1; 32]);
    let grant = BooksWrite::Grant { project: "p".into(), micro: 9_000_000, reference: "g".into() };
    submit(Write::Books(Box::new(grant))).await;
    for number in 1..=6 {
        submit(Write::Accept(Box::new(accepted(number)))).await;
        if number > 2 {
            submit(Write::Finish(Box::new(ended(number - 2, agent)))).await;
        }
        if number == 4 {
            submit(Write::Settle { policy: SettlePolicy { shards: 1, ms: 1 }, now_ms: 1 << 50 }).await;
            let payout = BooksWrite::Payout { agent, micro: 300_000, reference: "p".into() };
            submit(Write::Books(Box::new(payout))).await;
        }
    }
}

/// Whatever was written up to here is whole.
async fn holds(store: &Sqlite) -> (u64, usize) {
    let balances = store.balances(None, 1000).await.unwrap();
    assert_eq!(balances.iter().map(|row| i128::from(row.micro)).sum::<i128>(), 0, "the books do not balance");
    let (last, head) = store.chain_head().await.unwrap();
    let (mut walk, mut end) = (Walk::default(), forge_lifecycle::books::chain::ROOT);
    for row in store.chain(None, 0, last, 1000).await.unwrap() {
        let transaction = row.body.map(|body| serde_json::from_str(&body).unwrap());
        walk.step(&Line { seq: row.seq, digest: row.digest, transaction }).unwrap();
        end = link(&end, row.seq, &row.digest);
    }
    assert_eq!((walk.seen, end), (last, head));
    let rows = store.transactions(TransactionQuery { limit: 1000, ..TransactionQuery::default() }).await.unwrap();
    let mut of_jobs: BTreeMap<JobId, Vec<Kind>> = BTreeMap::new();
    for row in rows {
        let transaction = row.transaction().unwrap();
        if let Some(job) = transaction.job {
            of_jobs.entry(job).or_default().push(transaction.kind);
        }
    }
    let jobs = store.jobs("p", None, None, 100).await.unwrap();
    assert_eq!(of_jobs.len(), jobs.len(), "a job is there with its hold or not at all");
    for row in &jobs {
        let expected: &[Kind] = match (row.phase, row.accepted_ms % 3) {
            (Phase::Running, _) => &[Kind::Hold],
            (_, 0) => &[Kind::Hold, Kind::Refund],
            _ => &[Kind::Hold, Kind::Settle],
        };
        assert_eq!(of_jobs[&row.job], expected, "{:?}", row.phase);
    }
    let held = balances.iter().filter(|row| row.account.to_string().starts_with("hold:"));
    let running = jobs.iter().filter(|row| row.phase == Phase::Running).count();
    assert_eq!(held.map(|row| row.micro).sum::<i64>(), i64::try_from(running as u64 * HELD).unwrap());
    for row in store.pay(None, None, 9).await.unwrap() {
        let is = |kind: &str, micro: u64| {
            let account = format!("{kind}:{}", row.agent);
            let found = balances.iter().find(|balance| balance.account.to_string() == account);
            assert_eq!(found.map_or(0, |found| found.micro), i64::try_from(micro).unwrap(), "{account}");
        };
        is("held", row.held_micro);
        is("payable", row.payable_micro);
    }
    (last, jobs.len())
}

#[tokio::test]
async fn a_writer_that_dies_between_any_two_writes_leaves_whole_books() {
    let folder = tempfile::tempdir().unwrap();
    opened(folder.path()).await.close().await;
    let store = opened(folder.path()).await;
    let log_path = folder.path().join("hub.db-wal");
    let begins = std::fs::metadata(&log_path).map_or(0, |log| usize::try_from(log.len()).unwrap());
    a_day(&store).await;
    let whole = holds(&store).await;
    assert_eq!(whole.1, 6);
    let log = std::fs::read(&log_path).unwrap();
    let frames = (log.len() - LOG_HEAD) / FRAME;
    assert!(frames > 60, "only {frames} frames");
    let (mut seen, mut grew) = (std::collections::BTreeSet::new(), 0);
    for frame in 0..=frames {
        // A whole frame, or half of the next one.
        let end = LOG_HEAD + frame * FRAME + if frame % 5 == 1 && frame < frames { FRAME / 2 } else { 0 };
        if end < begins {
            continue;
        }
        let left = tempfile::tempdir().unwrap();
        std::fs::copy(folder.path().join("hub.db"), left.path().join("hub.db")).unwrap();
        std::fs::write(left.path().join("hub.db-wal"), &log[..end]).unwrap();
        let next = opened(left.path()).await;
        let (transactions, _) = holds(&next).await;
        assert!(transactions >= grew, "what was there is gone at frame {frame}");
        grew = transactions;
        seen.insert(transactions);
        // The next process goes on: what was accepted ends, once.
        let agent = AgentId::of_public_key(&[1; 32]);
        for running in next.unfinished().await.unwrap() {
            next.submit(Write::Finish(Box::new(ended(running.accepted_ms, agent)))).await.unwrap();
        }
        let balances = next.balances(None, 1000).await.unwrap();
        assert!(balances.iter().all(|row| !row.account.to_string().starts_with("hold:")), "a hold stays");
        holds(&next).await;
        next.close().await;
    }
    assert_eq!(grew, whole.0);
    assert!(seen.len() > 10, "the cuts met only {seen:?}");
    store.close().await;
}

#[tokio::test]
async fn what_was_posted_cannot_be_changed_by_any_statement() {
    let folder = tempfile::tempdir().unwrap();
    let store = opened(folder.path()).await;
    a_day(&store).await;
    let before = holds(&store).await;
    store.close().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(folder.path().join("hub.db"));
    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    for (statement, refusal) in [
        ("UPDATE transactions SET body = '{}' WHERE seq = 1", "transactions never change"),
        ("DELETE FROM transactions WHERE seq = (SELECT MAX(seq) FROM transactions)", "transactions never go"),
        ("UPDATE postings SET micro = 0", "postings never change"),
        ("DELETE FROM postings", "postings never go"),
        ("INSERT INTO postings VALUES (1, 'platform:revenue', 5)", "postings come before their transaction"),
        ("INSERT INTO postings VALUES (1000, 'hold:x', -5)", "CHECK constraint failed"),
        (
            "INSERT INTO transactions SELECT seq + 1, at_ms, 'grant', project, NULL, NULL, body, digest, link FROM transactions \
             ORDER BY seq DESC LIMIT 1 ON CONFLICT DO NOTHING; INSERT INTO transactions \
             SELECT seq + 7, at_ms, kind, NULL, NULL, NULL, body, digest, link FROM transactions ORDER BY seq DESC LIMIT 1",
            "numbered without gaps",
        ),
    ] {
        let mut transaction = sqlx::Connection::begin(&mut connection).await.unwrap();
        let error = sqlx::raw_sql(statement).execute(&mut *transaction).await.unwrap_err().to_string();
        assert!(error.contains(refusal), "{statement}: {error}");
        transaction.rollback().await.unwrap();
    }
    let mut transaction = sqlx::Connection::begin(&mut connection).await.unwrap();
    let seq = i64::try_from(before.0).unwrap() + 1;
    let query = sqlx::query("INSERT INTO postings VALUES (?, 'platform:revenue', 5)").bind(seq);
    query.execute(&mut *transaction).await.unwrap();
    let query =
        sqlx::query("INSERT INTO transactions VALUES (?, 0, 'grant', NULL, NULL, NULL, '', x'', x'')").bind(seq);
    let error = query.execute(&mut *transaction).await.unwrap_err().to_string();
    assert!(error.contains("do not sum to 0"), "{error}");
}

#[tokio::test]
async fn a_database_of_before_the_books_is_opened_with_what_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let options =
        sqlx::sqlite::SqliteConnectOptions::new().filename(folder.path().join("hub.db")).create_if_missing(true);
    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    let mut before = sqlx::migrate!("./migrations");
    before.migrations.to_mut().retain(|migration| migration.version < 9);
    before.run(&mut connection).await.unwrap();
    let agent = AgentId::of_public_key(&[1; 32]);
    let entry = |charged: bool, micro: u64| {
        serde_json::json!({"job": "j", "project": "p", "mode": if charged { "billable" } else { "test" }, "reason": "api",
            "status": "COMPLETED", "fuel": "3000", "credits_micro": micro.to_string(), "eur_micro": "7", "charged": charged,
            "at_ms": "86400000"})
        .to_string()
    };
    sqlx::query("INSERT INTO projects (id, name, created_ms) VALUES ('p', 'p', 1)")
        .execute(&mut connection)
        .await
        .unwrap();
    let mut previous = Digest::from_bytes([0; 32]);
    for (seq, charged) in [(1u8, true), (2, false)] {
        let query = sqlx::query(
            "INSERT INTO jobs (id, project, trace_id, op, envelope_digest, plan, envelope, phase, accepted_ms, finished_ms) \
             VALUES (?, 'p', 't', 'mc@1 insurance.v1', zeroblob(32), x'7b7d', x'78', 'COMPLETED', 7, 9)",
        );
        query.bind(vec![seq; 16]).execute(&mut connection).await.unwrap();
        let entry = entry(charged, 1_000 * u64::from(seq));
        let digest = LedgerLine::digest_of(&previous, &entry);
        let query =
            sqlx::query("INSERT INTO ledger (seq, job, project, entry, previous, digest) VALUES (?, ?, 'p', ?, ?, ?)");
        let query = query.bind(i64::from(seq)).bind(vec![seq; 16]).bind(entry);
        let query = query.bind(previous.as_bytes().to_vec()).bind(digest.as_bytes().to_vec());
        query.execute(&mut connection).await.unwrap();
        previous = digest;
    }
    // One that still ran, without anything held.
    sqlx::raw_sql(
        "INSERT INTO jobs (id, project, trace_id, op, envelope_digest, plan, envelope, phase, accepted_ms) \
         VALUES (x'000000000300000000000000000000ff', 'p', 't', 'mc@1 x', zeroblob(32), x'7b7d', x'78', 'RUNNING', 7)",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    let query = sqlx::query(
        "INSERT INTO agents (id, public_key, project, enrolled_ms, last_seen_ms, state, held_micro, payable_micro, forfeited_micro) \
         VALUES (?, ?, 'p', 1, 1, 'gone', 5, 7, 9)",
    );
    query.bind(agent.0.as_bytes().to_vec()).bind(vec![1u8; 32]).execute(&mut connection).await.unwrap();
    sqlx::Connection::close(connection).await.unwrap();

    for _ in 0..2 {
        let store = opened(folder.path()).await;
        let balances = store.balances(None, 100).await.unwrap();
        let balances: BTreeMap<String, i64> =
            balances.into_iter().map(|row| (row.account.to_string(), row.micro)).collect();
        let expected = [
            (format!("held:{agent}"), 5),
            (format!("payable:{agent}"), 7),
            ("platform:forfeited".to_owned(), 9),
            ("platform:opening".to_owned(), 1_000 - 21),
            ("project:p".to_owned(), -1_000),
        ];
        assert_eq!(balances, expected.into_iter().collect());
        assert_eq!(store.chain_head().await.unwrap().0, 2, "opened once");
        let lines = store.ledger(Page { offset: 0, limit: 9 }).await.unwrap();
        assert_eq!(lines.len(), 2, "the old lines stay");
        assert_eq!(lines[1].digest, LedgerLine::digest_of(&lines[0].digest, &lines[1].entry));
        let asked = crate::store::books::UsageQuery { project: Some("p"), from: 0, until: 9, offset: 0, limit: 9 };
        let used = store.usage(asked).await.unwrap();
        let shown: Vec<_> =
            used.iter().map(|row| (row.day, row.kernel.as_str(), row.mode.as_str(), row.charged_micro)).collect();
        assert_eq!(shown, [(1, "mc@1", "billable", 1_000), (1, "mc@1", "test", 0)]);
        let terms = store.unfinished().await.unwrap()[0].terms;
        assert_eq!((terms.held_micro, terms.tariff), (None, Tariff::default()));
        store.close().await;
    }
}
