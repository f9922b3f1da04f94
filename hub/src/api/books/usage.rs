//! What was used, by day and kernel, and how long the budget lasts at this pace.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use forge_contract::FailureCode;
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::budget::BudgetBlock;
use super::export::{self, Format};
use super::sheet::{Cell, Column, Holds, Row};
use super::{PAGE, Whose};
use crate::api::App;
use crate::api::auth::{Caller, Scope};
use crate::api::page::limit;
use crate::api::problem::{Problem, ProblemBody};
use crate::coordinator::decimal;
use crate::store::books::{UsageQuery as Asked, UsageRow};
use crate::store::{Store, StoreError};

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// A day of the years 1970 to 9999, as a regular expression; that it is in the calendar is the format's to say.
pub(in crate::api) const DAY_PATTERN: &str = "^(19[7-9][0-9]|[2-9][0-9]{3})-[0-9]{2}-[0-9]{2}$";
/// Days that are shown where nothing is said, and that a month of burning is.
const DAYS: u64 = 30;

/// Which days.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UsageQuery {
    /// The first day, `YYYY-MM-DD`, UTC; 29 days before the last where absent.
    pub from: Option<String>,
    /// The last day, `YYYY-MM-DD`, UTC; today where absent.
    pub to: Option<String>,
    /// Rows to leave out.
    pub offset: Option<u64>,
    /// At most this many rows, 1 to 1000; 1000 where nothing is said. Exports hold everything.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// Of this project; another than the key's own needs the scope `admin`.
    pub project: Option<String>,
    /// Of everybody, where no project is named; needs the scope `admin`.
    pub all: Option<bool>,
    /// `json`, `csv` or `parquet`; what `Accept` says where absent.
    pub format: Option<String>,
}

/// What was used.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct UsageReport {
    /// The first day.
    pub from: String,
    /// The last day.
    pub to: String,
    /// By day, project, kernel and mode.
    pub items: Vec<UsageItem>,
    /// The next rows, where there may be some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Everything from the first to the last day.
    pub total: UsageTotal,
    /// How fast it goes; of one project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burn: Option<BurnBlock>,
    /// What may be spent, and what is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<BudgetBlock>,
}

/// What was used on one day.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct UsageItem {
    /// The day, `YYYY-MM-DD`, UTC.
    pub day: String,
    /// The project.
    pub project: String,
    /// `name@version`.
    pub kernel: String,
    /// `billable` or `test`.
    pub mode: String,
    /// Jobs that ended.
    pub jobs: u64,
    /// Verified fuel.
    pub fuel: u64,
    /// Fuel of answers that only confirmed others.
    pub check_fuel: u64,
    /// What it cost, or would have cost in `test`, credits.
    pub credits: f64,
    /// The same, millionths.
    pub credits_micro: i64,
    /// What of that was charged, millionths of credits.
    pub charged_micro: i64,
    /// What it cost, euros.
    pub eur: f64,
    /// The same, millionths.
    pub eur_micro: i64,
}

/// Sums of usage.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct UsageTotal {
    /// Jobs that ended.
    pub jobs: u64,
    /// Verified fuel.
    pub fuel: u64,
    /// Fuel of answers that only confirmed others.
    pub check_fuel: u64,
    /// What it cost, or would have cost in `test`, micro-credits.
    pub credits_micro: i64,
    /// What of that was charged, micro-credits.
    pub charged_micro: i64,
    /// What it cost, micro-euros.
    pub eur_micro: i64,
}

/// How fast money goes. Amounts are micro-credits that were charged.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct BurnBlock {
    /// In the last hour.
    pub hour_micro: u64,
    /// In the last 24 hours.
    pub day_micro: u64,
    /// On the last 30 days, today included.
    pub month_micro: i64,
    /// 30 days at the pace of the last 24 hours.
    pub month_projected_micro: u64,
    /// Held for jobs that run.
    pub held_micro: u64,
    /// Days until the budget is spent at the pace of the last 24 hours; absent without a budget or without a pace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub days_left: Option<f64>,
}

/// What a project used by day, kernel and mode, what it burns, and how long its budget lasts.
#[utoipa::path(
    get, path = "/api/v0/usage", tag = "money", security(("bearer" = []), ("key" = [])), params(UsageQuery),
    responses(
        (status = 200, content((UsageReport = "application/json"), (String = "text/csv"), (Vec<u8> = "application/vnd.apache.parquet"))),
        (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody)
    )
)]
pub async fn usage(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    Query(query): Query<UsageQuery>,
) -> Result<Response, Problem> {
    caller.require(Scope::Read)?;
    let whose = Whose::of(&caller, query.project.as_deref(), query.all.unwrap_or(false))?;
    let format = Format::of(&headers, query.format.as_deref())?;
    let limit = limit(query.limit, PAGE)?;
    let now_ms = crate::clock::unix_ms();
    let (from, until) = days(&query, now_ms)?;
    if format != Format::Json {
        let (store, whose) = (Arc::clone(&app.store), Arc::new(whose));
        return export::table((format == Format::Parquet, "usage"), COLUMNS, 0, move |offset| {
            let (store, whose) = (Arc::clone(&store), Arc::clone(&whose));
            async move {
                let asked = Asked { project: whose.project(), from, until, offset, limit: PAGE };
                rows(&*store, asked).await
            }
        });
    }
    let offset = query.offset.unwrap_or(0);
    let found = app.store.usage(Asked { project: whose.project(), from, until, offset, limit }).await?;
    let full = found.len() == limit as usize;
    let next = full.then(|| next(&query, (from, until), limit, offset + u64::from(limit)));
    let total = total(&*app.store, whose.project(), from, until).await?;
    let (burn, budget) = match whose.project() {
        Some(project) => burn(&app, project, now_ms).await?,
        None => (None, None),
    };
    let items = found.iter().map(item).collect();
    Ok(Json(UsageReport { from: day(from), to: day(until), items, next, total, burn, budget }).into_response())
}

fn next(query: &UsageQuery, (from, until): (u64, u64), limit: u32, offset: u64) -> String {
    let mut next = format!("/api/v0/usage?from={}&to={}&limit={limit}&offset={offset}", day(from), day(until));
    if let Some(project) = &query.project {
        next.push_str(&format!("&project={project}"));
    }
    if query.all.unwrap_or(false) {
        next.push_str("&all=true");
    }
    next
}

/// First and last day, days since 1970.
fn days(query: &UsageQuery, now_ms: u64) -> Result<(u64, u64), Problem> {
    let read = |name: &str, text: &Option<String>| {
        let refused = |text: &String| {
            let detail = format!("the parameter {name}: expected a day as YYYY-MM-DD, found '{text}'");
            Problem::of(FailureCode::RequestSchema, detail)
        };
        text.as_ref().map(|text| day_of(text).ok_or_else(|| refused(text))).transpose()
    };
    let until = read("to", &query.to)?.unwrap_or(now_ms / DAY_MS);
    let from = read("from", &query.from)?.unwrap_or_else(|| until.saturating_sub(DAYS - 1));
    Ok((from, until))
}

/// A day as `YYYY-MM-DD`.
fn day(days: u64) -> String {
    let text = crate::clock::rfc3339(days.saturating_mul(DAY_MS));
    text.split_once('T').map_or_else(String::new, |(day, _)| day.to_owned())
}

/// Days since 1970 of `YYYY-MM-DD`; `None` for a text that is no day of the years 1970 to 9999.
fn day_of(text: &str) -> Option<u64> {
    let mut parts = text.splitn(3, '-');
    let mut number = |digits: usize| {
        let part = parts.next()?;
        (part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit())).then(|| part.parse::<u64>().ok())?
    };
    let (year, month, in_month) = (number(4)?, number(2)?, number(2)?);
    if year < 1970 || !(1..=12).contains(&month) || in_month == 0 {
        return None;
    }
    // Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
    let shifted = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (shifted / 400, shifted % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + in_month - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    let days = days.checked_sub(719_468)?;
    // A 31st of April would be the 1st of May.
    (day(days) == text).then_some(days)
}

async fn total(store: &dyn Store, project: Option<&str>, from: u64, until: u64) -> Result<UsageTotal, StoreError> {
    let (mut total, mut offset) = (UsageTotal::default(), 0);
    loop {
        let rows = store.usage(Asked { project, from, until, offset, limit: PAGE }).await?;
        for row in &rows {
            total.jobs = total.jobs.saturating_add(row.jobs);
            total.fuel = total.fuel.saturating_add(row.fuel);
            total.check_fuel = total.check_fuel.saturating_add(row.check_fuel);
            total.credits_micro = total.credits_micro.saturating_add(row.credits_micro);
            total.charged_micro = total.charged_micro.saturating_add(row.charged_micro);
            total.eur_micro = total.eur_micro.saturating_add(row.eur_micro);
        }
        offset += rows.len() as u64;
        if rows.len() < PAGE as usize {
            return Ok(total);
        }
    }
}

async fn burn(app: &App, project: &str, now_ms: u64) -> Result<(Option<BurnBlock>, Option<BudgetBlock>), Problem> {
    let since = |ms| app.store.position(project, now_ms.saturating_sub(ms), now_ms);
    let hour = since(HOUR_MS).await?.ok_or_else(|| Problem::not_found("project"))?;
    let day = since(DAY_MS).await?.ok_or_else(|| Problem::not_found("project"))?;
    let today = now_ms / DAY_MS;
    let month = total(&*app.store, Some(project), today.saturating_sub(DAYS - 1), today).await?;
    let left = day.budget.map(|budget| budget.left(&day.spending).max(0));
    let days_left = left.filter(|_| day.charged_micro > 0).map(|left| {
        let tenths = left * 10 / i128::from(day.charged_micro);
        decimal(u64::try_from(tenths).unwrap_or(u64::MAX).saturating_mul(100_000))
    });
    let burn = BurnBlock {
        hour_micro: hour.charged_micro,
        day_micro: day.charged_micro,
        month_micro: month.charged_micro,
        month_projected_micro: day.charged_micro.saturating_mul(DAYS),
        held_micro: day.spending.held_micro,
        days_left,
    };
    Ok((Some(burn), Some(BudgetBlock::of(project, &day, now_ms))))
}

fn signed(micro: i64) -> f64 {
    let value = decimal(micro.unsigned_abs());
    if micro < 0 { -value } else { value }
}

fn item(row: &UsageRow) -> UsageItem {
    UsageItem {
        day: day(row.day),
        project: row.project.clone(),
        kernel: row.kernel.clone(),
        mode: row.mode.clone(),
        jobs: row.jobs,
        fuel: row.fuel,
        check_fuel: row.check_fuel,
        credits: signed(row.credits_micro),
        credits_micro: row.credits_micro,
        charged_micro: row.charged_micro,
        eur: signed(row.eur_micro),
        eur_micro: row.eur_micro,
    }
}

const COLUMNS: &[Column] = &[
    ("day", Holds::Text),
    ("project", Holds::Text),
    ("kernel", Holds::Text),
    ("mode", Holds::Text),
    ("jobs", Holds::Integer),
    ("fuel", Holds::Integer),
    ("check_fuel", Holds::Integer),
    ("credits_micro", Holds::Integer),
    ("charged_micro", Holds::Integer),
    ("eur_micro", Holds::Integer),
];

async fn rows(store: &dyn Store, asked: Asked<'_>) -> Result<(Vec<Row>, Option<u64>), StoreError> {
    let found = store.usage(asked).await?;
    let next = (found.len() == asked.limit as usize).then(|| asked.offset + u64::from(asked.limit));
    let row = |row: UsageRow| -> Row {
        vec![
            Cell::from(day(row.day)),
            row.project.into(),
            row.kernel.into(),
            row.mode.into(),
            row.jobs.into(),
            row.fuel.into(),
            row.check_fuel.into(),
            row.credits_micro.into(),
            row.charged_micro.into(),
            row.eur_micro.into(),
        ]
    };
    Ok((found.into_iter().map(row).collect(), next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_read_as_they_are_shown() {
        for days in [0, 58, 59, 11_016, 19_782, 20_787, 47_540] {
            assert_eq!(day_of(&day(days)), Some(days));
        }
        for bad in
            ["", "2026-13-01", "2026-02-29", "2026-04-31", "1969-12-31", "2026-1-01", "20261-01-01", "2026-01-01x"]
        {
            assert_eq!(day_of(bad), None, "{bad}");
        }
    }
}
