//! The books, read.

use async_trait::async_trait;
use forge_contract::{AgentId, Digest, JobId};
use forge_lifecycle::books::budget::{Budget, Period};
use forge_lifecycle::books::{Kind, chain};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::books::{SPENDING, read_spending};
use super::{Sqlite, digest_of, int, job_bytes, uint};
use crate::store::StoreError;
use crate::store::books::{
    BalanceRow, BooksStore, LinkRow, PayRow, Position, Terms, TransactionQuery, TransactionRow, UsageQuery, UsageRow,
};

const DAY_MS: u64 = 86_400_000;

/// The start of the statement that reads transactions.
macro_rules! transactions {
    () => {
        "SELECT t.seq, t.body, t.digest, t.link, (SELECT link FROM transactions WHERE seq = t.seq - 1) AS previous \
         FROM transactions t WHERE "
    };
}
/// Its end.
macro_rules! rest {
    () => {
        " AND (?3 IS NULL OR t.kind = ?3) AND t.seq > ?4 ORDER BY t.seq LIMIT ?5"
    };
}
#[async_trait]
impl BooksStore for Sqlite {
    async fn transactions(&self, query: TransactionQuery<'_>) -> Result<Vec<TransactionRow>, StoreError> {
        let TransactionQuery { project, job, kind, after, limit } = query;
        // One statement for each index: a planner that cannot know what is null would read the whole table.
        let sql = match (job, project) {
            (Some(_), _) => concat!(transactions!(), "t.job = ?2 AND (?1 IS NULL OR t.project = ?1)", rest!()),
            (None, Some(_)) => concat!(transactions!(), "t.project = ?1 AND ?2 IS NULL", rest!()),
            (None, None) => concat!(transactions!(), "?1 IS NULL AND ?2 IS NULL", rest!()),
        };
        let query = sqlx::query(sql).bind(project).bind(job.map(job_bytes)).bind(kind.map(Kind::as_str));
        let rows = query.bind(int(after)).bind(i64::from(limit)).fetch_all(&self.readers).await?;
        rows.iter().map(transaction).collect()
    }

    async fn chain(
        &self,
        project: Option<&str>,
        after: u64,
        until: u64,
        limit: u32,
    ) -> Result<Vec<LinkRow>, StoreError> {
        let query = sqlx::query(
            "SELECT seq, digest, CASE WHEN ?1 IS NULL OR project = ?1 THEN body END AS body FROM transactions \
             WHERE seq > ?2 AND seq <= ?3 ORDER BY seq LIMIT ?4",
        );
        let query = query.bind(project).bind(int(after)).bind(int(until)).bind(i64::from(limit));
        let line = |row: &SqliteRow| {
            Ok(LinkRow {
                seq: uint(row.try_get("seq")?),
                digest: digest_of(row.try_get("digest")?)?,
                body: row.try_get("body")?,
            })
        };
        query.fetch_all(&self.readers).await?.iter().map(line).collect()
    }

    async fn chain_head(&self) -> Result<(u64, Digest), StoreError> {
        let query = sqlx::query("SELECT seq, link FROM transactions ORDER BY seq DESC LIMIT 1");
        match query.fetch_optional(&self.readers).await? {
            Some(row) => Ok((uint(row.try_get("seq")?), digest_of(row.try_get("link")?)?)),
            None => Ok((0, chain::ROOT)),
        }
    }

    async fn usage(&self, query: UsageQuery<'_>) -> Result<Vec<UsageRow>, StoreError> {
        let UsageQuery { project, from, until, offset, limit } = query;
        let query = sqlx::query(
            "SELECT project, day, kernel, mode, jobs, fuel, check_fuel, credits_micro, charged_micro, eur_micro \
             FROM usage_days WHERE (?1 IS NULL OR project = ?1) AND day >= ?2 AND day <= ?3 \
             ORDER BY day, project, kernel, mode LIMIT ?4 OFFSET ?5",
        );
        let query = query.bind(project).bind(int(from)).bind(int(until)).bind(i64::from(limit)).bind(int(offset));
        query.fetch_all(&self.readers).await?.iter().map(usage).collect()
    }

    async fn position(&self, project: &str, since_ms: u64, now_ms: u64) -> Result<Option<Position>, StoreError> {
        let query = sqlx::query(
            "SELECT b.budget_micro, b.period, COALESCE((SELECT micro FROM balances WHERE account = ?2), 0) AS balance, \
             (SELECT COALESCE(SUM(charged_micro), 0) FROM charges WHERE project = ?1 AND finished_ms >= ?3) AS since \
             FROM projects p LEFT JOIN budgets b ON b.project = p.id WHERE p.id = ?1",
        );
        let account = format!("project:{project}");
        let query = query.bind(project).bind(&account).bind(int(since_ms));
        let Some(row) = query.fetch_optional(&self.readers).await? else { return Ok(None) };
        let budget = budget_of(&row)?;
        let from = budget.map_or(0, |budget| budget.since(now_ms));
        let query = sqlx::query(SPENDING).bind(project).bind(int(from / DAY_MS)).bind(true).bind(&account);
        Ok(Some(Position {
            balance_micro: row.try_get("balance")?,
            budget,
            spending: read_spending(&query.fetch_one(&self.readers).await?)?,
            charged_micro: uint(row.try_get("since")?),
        }))
    }

    async fn pay(&self, project: Option<&str>, after: Option<AgentId>, limit: u32) -> Result<Vec<PayRow>, StoreError> {
        let query = sqlx::query(
            "SELECT id, project, provider, held_micro, payable_micro, paid_micro, forfeited_micro FROM agents \
             WHERE (?1 IS NULL OR project = ?1) AND (?2 IS NULL OR id > ?2) ORDER BY id LIMIT ?3",
        );
        let after = after.map(|agent| agent.0.as_bytes().to_vec());
        let rows = query.bind(project).bind(after).bind(i64::from(limit)).fetch_all(&self.readers).await?;
        let pay = |row: &SqliteRow| {
            Ok(PayRow {
                agent: AgentId(digest_of(row.try_get("id")?)?),
                project: row.try_get("project")?,
                provider: row.try_get("provider")?,
                held_micro: uint(row.try_get("held_micro")?),
                payable_micro: uint(row.try_get("payable_micro")?),
                paid_micro: uint(row.try_get("paid_micro")?),
                forfeited_micro: uint(row.try_get("forfeited_micro")?),
            })
        };
        rows.iter().map(pay).collect()
    }

    async fn balances(&self, after: Option<&str>, limit: u32) -> Result<Vec<BalanceRow>, StoreError> {
        let query = sqlx::query(
            "SELECT account, micro FROM balances WHERE ?1 IS NULL OR account > ?1 ORDER BY account LIMIT ?2",
        );
        let rows = query.bind(after).bind(i64::from(limit)).fetch_all(&self.readers).await?;
        let balance = |row: &SqliteRow| {
            let account: &str = row.try_get("account")?;
            let account = account.parse().map_err(|_| StoreError::Corrupt { what: "account" })?;
            Ok(BalanceRow { account, micro: row.try_get("micro")? })
        };
        rows.iter().map(balance).collect()
    }

    async fn charged(&self, job: JobId) -> Result<Option<u64>, StoreError> {
        let query = sqlx::query("SELECT charged_micro - corrected_micro AS net FROM charges WHERE job = ?");
        let row = query.bind(job_bytes(job)).fetch_optional(&self.readers).await?;
        row.map(|row| Ok(uint(row.try_get("net")?))).transpose()
    }
}

fn transaction(row: &SqliteRow) -> Result<TransactionRow, StoreError> {
    let previous: Option<Vec<u8>> = row.try_get("previous")?;
    Ok(TransactionRow {
        seq: uint(row.try_get("seq")?),
        body: row.try_get("body")?,
        digest: digest_of(row.try_get("digest")?)?,
        previous: previous.as_deref().map_or(Ok(chain::ROOT), digest_of)?,
        link: digest_of(row.try_get("link")?)?,
    })
}

/// The budget in a row's columns `budget_micro` and `period`.
pub(super) fn budget_of(row: &SqliteRow) -> Result<Option<Budget>, StoreError> {
    let (micro, period): (Option<i64>, Option<&str>) = (row.try_get("budget_micro")?, row.try_get("period")?);
    let Some((micro, period)) = micro.zip(period) else { return Ok(None) };
    let period = Period::parse(period).ok_or(StoreError::Corrupt { what: "budget" })?;
    Ok(Some(Budget { budget_micro: uint(micro), period }))
}

/// What was agreed for a job, in a row's columns `tariff` and `hold_micro`; the usual, where it is older than the books.
pub(super) fn terms_of(row: &SqliteRow) -> Result<Terms, StoreError> {
    let (tariff, held): (Option<&str>, Option<i64>) = (row.try_get("tariff")?, row.try_get("hold_micro")?);
    let Some((tariff, held)) = tariff.zip(held) else { return Ok(Terms::default()) };
    let tariff = serde_json::from_str(tariff).map_err(|_| StoreError::Corrupt { what: "tariff" })?;
    Ok(Terms { tariff, held_micro: Some(uint(held)) })
}

fn usage(row: &SqliteRow) -> Result<UsageRow, StoreError> {
    let number = |column: &str| -> Result<u64, StoreError> { Ok(uint(row.try_get(column)?)) };
    Ok(UsageRow {
        project: row.try_get("project")?,
        day: number("day")?,
        kernel: row.try_get("kernel")?,
        mode: row.try_get("mode")?,
        jobs: number("jobs")?,
        fuel: number("fuel")?,
        check_fuel: number("check_fuel")?,
        credits_micro: row.try_get("credits_micro")?,
        charged_micro: row.try_get("charged_micro")?,
        eur_micro: row.try_get("eur_micro")?,
    })
}
