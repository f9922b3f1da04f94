//! The books, written. Every movement of money is appended here and nowhere else.

use forge_contract::canon::Writer;
use forge_contract::{AgentId, Digest, JobId};
use forge_lifecycle::books::budget::{Budget, OverBudget, Period, Spending};
use forge_lifecycle::books::{Stamp, Transaction, chain};
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection as _, Row as _, SqliteConnection};

use super::books_read::budget_of;
use super::{digest_of, int, job_bytes, now_ms, uint};
use crate::store::books::{BooksWrite, BooksWritten, Corrected, NewCharge, Settlement};
use crate::store::{NewJob, StoreError};

const DAY_MS: u64 = 86_400_000;
/// Set once the books were opened.
const OPENED: &str = "books";

/// Now, and bits nobody can guess.
fn stamp() -> Stamp {
    Stamp { at_ms: now_ms(), salt: u128::from_le_bytes(crate::clock::random()) }
}

/// Appends a transaction; returns its number.
async fn append(db: &mut SqliteConnection, transaction: &Transaction) -> Result<u64, StoreError> {
    transaction.check()?;
    let last = sqlx::query("SELECT seq, link FROM transactions ORDER BY seq DESC LIMIT 1");
    let (seq, previous) = match last.fetch_optional(&mut *db).await? {
        Some(row) => (uint(row.try_get("seq")?) + 1, digest_of(row.try_get("link")?)?),
        None => (1, chain::ROOT),
    };
    for posting in &transaction.postings {
        let query = sqlx::query("INSERT INTO postings (seq, account, micro) VALUES (?, ?, ?)");
        query.bind(int(seq)).bind(posting.account.to_string()).bind(posting.micro).execute(&mut *db).await?;
    }
    let body = transaction.canonical();
    let digest = Transaction::digest_of(&body);
    let link = chain::link(&previous, seq, &digest);
    let query = sqlx::query(
        "INSERT INTO transactions (seq, at_ms, kind, project, job, agent, body, digest, link) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    );
    let query = query.bind(int(seq)).bind(transaction.at_ms).bind(transaction.kind.as_str());
    let query = query.bind(&transaction.project).bind(transaction.job.map(job_bytes));
    let query = query.bind(transaction.agent.map(|agent| agent.0.as_bytes().to_vec())).bind(body);
    let query = query.bind(digest.as_bytes().as_slice()).bind(link.as_bytes().as_slice());
    query.execute(db).await?;
    Ok(seq)
}

/// What a project spent since a day, holds, and (where asked) was granted: project, day, whether, its account.
pub(super) const SPENDING: &str = "SELECT \
    (SELECT COALESCE(SUM(charged_micro), 0) FROM usage_days WHERE project = ?1 AND day >= ?2) AS charged, \
    (SELECT COALESCE(SUM(hold_micro), 0) FROM charges WHERE project = ?1 AND finished_ms IS NULL) AS held, \
    (SELECT COALESCE(SUM(p.micro), 0) FROM transactions t JOIN postings p ON p.seq = t.seq \
     WHERE ?3 AND t.project = ?1 AND t.kind = 'grant' AND p.account = ?4) AS granted";

/// What counts against a budget now.
async fn spending(
    db: &mut SqliteConnection,
    project: &str,
    budget: &Budget,
    now_ms: u64,
) -> Result<Spending, StoreError> {
    let query = sqlx::query(SPENDING)
        .bind(project)
        .bind(int(budget.since(now_ms) / DAY_MS))
        .bind(budget.period == Period::Prepaid);
    read_spending(&query.bind(format!("project:{project}")).fetch_one(db).await?)
}

pub(super) fn read_spending(row: &SqliteRow) -> Result<Spending, StoreError> {
    Ok(Spending {
        charged_micro: uint(row.try_get("charged")?),
        granted_micro: uint(row.try_get("granted")?),
        held_micro: uint(row.try_get("held")?),
    })
}

/// Whether a job can be afforded. Asked before anything of it is written.
pub(super) async fn afford(db: &mut SqliteConnection, job: &NewJob) -> Result<Option<OverBudget>, StoreError> {
    let Some(NewCharge { budget: Some(budget), hold_micro, .. }) = &job.charge else { return Ok(None) };
    if *hold_micro == 0 {
        return Ok(None);
    }
    let spending = spending(db, &job.project, budget, job.accepted_ms).await?;
    Ok(budget.afford(spending, *hold_micro, job.accepted_ms).err())
}

/// Writes down what was agreed for a job, and sets aside what it may cost.
pub(super) async fn hold(db: &mut SqliteConnection, job: &NewJob) -> Result<(), StoreError> {
    let Some(charge) = &job.charge else { return Ok(()) };
    let tariff = serde_json::to_string(&charge.tariff).map_err(|_| StoreError::Corrupt { what: "tariff" })?;
    let query = sqlx::query(
        "INSERT INTO charges (job, project, kernel, mode, tariff, hold_micro, accepted_ms) VALUES (?, ?, ?, ?, ?, ?, ?)",
    );
    let query = query.bind(job_bytes(job.job)).bind(&job.project).bind(&charge.kernel).bind(charge.mode);
    query.bind(tariff).bind(int(charge.hold_micro)).bind(int(job.accepted_ms)).execute(&mut *db).await?;
    if charge.hold_micro > 0 {
        let stamp = Stamp { at_ms: job.accepted_ms, ..stamp() };
        append(db, &Transaction::hold(stamp, &job.project, job.job, charge.hold_micro)?).await?;
    }
    Ok(())
}

/// Sets more aside for a job that runs, where its project can afford it.
async fn raise(db: &mut SqliteConnection, job: JobId, micro: u64) -> Result<BooksWritten, StoreError> {
    let query = sqlx::query(
        "SELECT c.project, b.budget_micro, b.period FROM charges c LEFT JOIN budgets b ON b.project = c.project \
         WHERE c.job = ? AND c.finished_ms IS NULL",
    );
    let Some(row) = query.bind(job_bytes(job)).fetch_optional(&mut *db).await? else { return Ok(BooksWritten::Nobody) };
    let project: String = row.try_get("project")?;
    if let Some(budget) = budget_of(&row)? {
        let now_ms = now_ms();
        let spending = spending(db, &project, &budget, now_ms).await?;
        if let Err(over) = budget.afford(spending, micro, now_ms) {
            return Ok(BooksWritten::OverBudget(over));
        }
    }
    let query = sqlx::query("UPDATE charges SET hold_micro = hold_micro + ? WHERE job = ?");
    query.bind(int(micro)).bind(job_bytes(job)).execute(&mut *db).await?;
    append(db, &Transaction::raise(stamp(), &project, job, micro)?).await.map(BooksWritten::Posted)
}

/// Charges a job that ends, empties its hold and counts what it used. Called once for each job, with its end.
pub(super) async fn settle(
    db: &mut SqliteConnection,
    job: JobId,
    finished_ms: u64,
    settlement: &Settlement,
) -> Result<(), StoreError> {
    let Settlement { charge, eur_micro, transaction, correction } = settlement;
    append(db, transaction).await?;
    let query = sqlx::query(
        "UPDATE charges SET finished_ms = ?, fuel = ?, check_fuel = ?, charged_micro = CASE mode WHEN 'billable' THEN ? ELSE 0 END \
         WHERE job = ? RETURNING project, kernel, mode, charged_micro",
    );
    let query = query.bind(int(finished_ms)).bind(int(charge.fuel)).bind(int(charge.check_fuel));
    let query = query.bind(int(charge.charged_micro)).bind(job_bytes(job));
    if let Some(row) = query.fetch_optional(&mut *db).await? {
        let query = sqlx::query(
            "INSERT INTO usage_days (project, day, kernel, mode, jobs, fuel, check_fuel, credits_micro, charged_micro, eur_micro) \
             VALUES (?, ?, ?, ?, 1, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET jobs = jobs + 1, fuel = fuel + excluded.fuel, \
             check_fuel = check_fuel + excluded.check_fuel, credits_micro = credits_micro + excluded.credits_micro, \
             charged_micro = charged_micro + excluded.charged_micro, eur_micro = eur_micro + excluded.eur_micro",
        );
        let query = query.bind(row.try_get::<String, _>("project")?).bind(int(finished_ms / DAY_MS));
        let query = query.bind(row.try_get::<String, _>("kernel")?).bind(row.try_get::<String, _>("mode")?);
        // Sums of many jobs: fuel is bounded so that they stay far from the end of 64 bits.
        let query = query.bind(int(charge.fuel.min(FUEL_MAX))).bind(int(charge.check_fuel.min(FUEL_MAX)));
        let query = query.bind(int(charge.charged_micro)).bind(row.try_get::<i64, _>("charged_micro")?);
        query.bind(int(*eur_micro)).execute(&mut *db).await?;
    }
    if let Some(corrected) = correction {
        correct(db, corrected, finished_ms).await?;
    }
    Ok(())
}

/// Most fuel of one job that is counted in reports.
const FUEL_MAX: u64 = (1 << 53) - 1;

/// Gives back what a corrected job was charged beyond what it should have cost.
async fn correct(db: &mut SqliteConnection, corrected: &Corrected, at_ms: u64) -> Result<(), StoreError> {
    let query = sqlx::query(
        "SELECT project, kernel, mode, charged_micro - corrected_micro AS net FROM charges WHERE job = ? AND finished_ms IS NOT NULL",
    );
    let Some(row) = query.bind(job_bytes(corrected.job)).fetch_optional(&mut *db).await? else { return Ok(()) };
    let back = uint(row.try_get("net")?).saturating_sub(corrected.fair_micro);
    if back == 0 {
        return Ok(());
    }
    let project: String = row.try_get("project")?;
    let query = sqlx::query("UPDATE charges SET corrected_micro = corrected_micro + ? WHERE job = ?");
    query.bind(int(back)).bind(job_bytes(corrected.job)).execute(&mut *db).await?;
    // Counted on the day it was found, and at least as long as nobody else has a use for that day's row.
    let query = sqlx::query(
        "INSERT INTO usage_days (project, day, kernel, mode, jobs, fuel, check_fuel, credits_micro, charged_micro, eur_micro) \
         VALUES (?, ?, ?, ?, 0, 0, 0, ?, ?, 0) ON CONFLICT DO UPDATE SET credits_micro = credits_micro + excluded.credits_micro, \
         charged_micro = charged_micro + excluded.charged_micro",
    );
    let query = query.bind(&project).bind(int(at_ms / DAY_MS)).bind(row.try_get::<String, _>("kernel")?);
    let query = query.bind(row.try_get::<String, _>("mode")?).bind(-int(back)).bind(-int(back));
    query.execute(&mut *db).await?;
    let stamp = Stamp { at_ms, ..stamp() };
    append(db, &Transaction::correction(stamp, &project, corrected.job, corrected.run, back)?).await.map(drop)
}

/// What an agent held is its own for good.
pub(super) async fn payable(db: &mut SqliteConnection, agent: AgentId, micro: u64) -> Result<(), StoreError> {
    if micro == 0 {
        return Ok(());
    }
    append(db, &Transaction::payable(stamp(), agent, micro)?).await.map(drop)
}

/// An agent loses what it held.
pub(super) async fn forfeit(
    db: &mut SqliteConnection,
    agent: AgentId,
    micro: u64,
    reason: &str,
) -> Result<(), StoreError> {
    if micro == 0 {
        return Ok(());
    }
    append(db, &Transaction::forfeit(stamp(), agent, micro, reason)?).await.map(drop)
}

/// A change from outside.
pub(super) async fn change(db: &mut SqliteConnection, write: &BooksWrite) -> Result<BooksWritten, StoreError> {
    match write {
        BooksWrite::Grant { project, micro, reference } => {
            if let Some(known) = payment(db, "grant", reference, project, *micro).await? {
                return Ok(known);
            }
            let query = sqlx::query("SELECT 1 FROM projects WHERE id = ?").bind(project);
            if query.fetch_optional(&mut *db).await?.is_none() {
                return Ok(BooksWritten::Nobody);
            }
            let seq = append(db, &Transaction::grant(stamp(), project, *micro, reference)?).await?;
            record(db, "grant", reference, project, *micro, seq).await
        }
        BooksWrite::Payout { agent, micro, reference } => {
            let whom = agent.to_string();
            if let Some(known) = payment(db, "payout", reference, &whom, *micro).await? {
                return Ok(known);
            }
            let id = agent.0.as_bytes().as_slice();
            let query = sqlx::query("SELECT payable_micro FROM agents WHERE id = ?").bind(id);
            let Some(row) = query.fetch_optional(&mut *db).await? else { return Ok(BooksWritten::Nobody) };
            let payable = uint(row.try_get("payable_micro")?);
            if payable < *micro {
                return Ok(BooksWritten::Short(payable));
            }
            let query = sqlx::query(
                "UPDATE agents SET payable_micro = payable_micro - ?1, paid_micro = paid_micro + ?1 WHERE id = ?2",
            );
            query.bind(int(*micro)).bind(id).execute(&mut *db).await?;
            let seq = append(db, &Transaction::payout(stamp(), *agent, *micro, reference)?).await?;
            record(db, "payout", reference, &whom, *micro, seq).await
        }
        BooksWrite::Raise { job, micro } => raise(db, *job, *micro).await,
        BooksWrite::Budget { project, budget } => {
            let query = sqlx::query("SELECT 1 FROM projects WHERE id = ?").bind(project);
            if query.fetch_optional(&mut *db).await?.is_none() {
                return Ok(BooksWritten::Nobody);
            }
            match budget {
                Some(Budget { budget_micro, period }) => {
                    let query = sqlx::query(
                        "INSERT INTO budgets (project, budget_micro, period) VALUES (?1, ?2, ?3) \
                         ON CONFLICT (project) DO UPDATE SET budget_micro = ?2, period = ?3",
                    );
                    query.bind(project).bind(int(*budget_micro)).bind(period.as_str()).execute(db).await?;
                }
                None => {
                    sqlx::query("DELETE FROM budgets WHERE project = ?").bind(project).execute(db).await?;
                }
            }
            Ok(BooksWritten::Posted(0))
        }
    }
}

/// What a payment's number stands for.
fn content(whom: &str, micro: u64) -> Digest {
    let mut w = Writer::new();
    w.str(whom);
    w.u64(micro);
    Digest::tagged("forgepool v1 payment", &w.into_bytes())
}

async fn payment(
    db: &mut SqliteConnection,
    kind: &str,
    reference: &str,
    whom: &str,
    micro: u64,
) -> Result<Option<BooksWritten>, StoreError> {
    let query = sqlx::query("SELECT content, seq FROM payments WHERE kind = ? AND reference = ?");
    let Some(row) = query.bind(kind).bind(reference).fetch_optional(db).await? else { return Ok(None) };
    let seq = uint(row.try_get("seq")?);
    let same = digest_of(row.try_get("content")?)? == content(whom, micro);
    Ok(Some(if same { BooksWritten::Existing(seq) } else { BooksWritten::Mismatch(seq) }))
}

async fn record(
    db: &mut SqliteConnection,
    kind: &str,
    reference: &str,
    whom: &str,
    micro: u64,
    seq: u64,
) -> Result<BooksWritten, StoreError> {
    let query = sqlx::query("INSERT INTO payments (kind, reference, content, seq) VALUES (?, ?, ?, ?)");
    let query = query.bind(kind).bind(reference).bind(content(whom, micro).as_bytes().as_slice());
    query.bind(int(seq)).execute(db).await?;
    Ok(BooksWritten::Posted(seq))
}

/// Opens the books with what a database of before holds, once.
pub(super) async fn open(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let mut db = connection.begin_with("BEGIN IMMEDIATE").await?;
    let known = sqlx::query("SELECT 1 FROM meta WHERE name = ?").bind(OPENED).fetch_optional(&mut *db).await?;
    if known.is_some() {
        return Ok(());
    }
    let query = sqlx::query(
        "SELECT project, SUM(charged_micro) AS charged FROM usage_days GROUP BY project HAVING charged > 0 ORDER BY project",
    );
    for row in query.fetch_all(&mut *db).await? {
        let (project, charged): (String, i64) = (row.try_get("project")?, row.try_get("charged")?);
        append(&mut db, &Transaction::opening_project(stamp(), &project, uint(charged))?).await?;
    }
    let query = sqlx::query(
        "SELECT id, held_micro, payable_micro, forfeited_micro FROM agents \
         WHERE held_micro > 0 OR payable_micro > 0 OR forfeited_micro > 0 ORDER BY id",
    );
    for row in query.fetch_all(&mut *db).await? {
        let micro = |column: &str| -> Result<u64, StoreError> { Ok(uint(row.try_get(column)?)) };
        let (held, payable, forfeited) = (micro("held_micro")?, micro("payable_micro")?, micro("forfeited_micro")?);
        let agent = AgentId(digest_of(row.try_get("id")?)?);
        append(&mut db, &Transaction::opening_agent(stamp(), agent, held, payable, forfeited)?).await?;
    }
    let query = sqlx::query("INSERT INTO meta (name, value) VALUES (?, x'01')").bind(OPENED);
    query.execute(&mut *db).await?;
    db.commit().await?;
    Ok(())
}
