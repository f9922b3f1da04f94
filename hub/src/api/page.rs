//! How many items of a list a request gets.

use forge_contract::FailureCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::problem::Problem;

/// Most items of a list at once.
pub(super) const PAGE_MAX: u32 = 1000;

/// A part of a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Listed<T: ToSchema> {
    /// What there is of it, in the list's order.
    pub items: Vec<T>,
    /// Where the list goes on; absent at its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl<T: ToSchema> Listed<T> {
    /// Rows as they are shown. Where there are as many as were asked for, the list goes on after the last of them.
    pub(super) fn of<R>(rows: Vec<R>, limit: u32, next: impl FnOnce(&R) -> String, item: impl FnMut(R) -> T) -> Self {
        let next = rows.last().filter(|_| rows.len() == limit as usize).map(next);
        Self { items: rows.into_iter().map(item).collect(), next }
    }
}

/// How many are asked for, 1 to [`PAGE_MAX`]; `usual` where nothing is said.
///
/// # Errors
/// `request.schema`.
pub(super) fn limit(asked: Option<u32>, usual: u32) -> Result<u32, Problem> {
    let limit = asked.unwrap_or(usual);
    if (1..=PAGE_MAX).contains(&limit) {
        return Ok(limit);
    }
    let detail = format!("the parameter limit: expected 1 to {PAGE_MAX}, found {limit}");
    Err(Problem::of(FailureCode::RequestSchema, detail))
}
