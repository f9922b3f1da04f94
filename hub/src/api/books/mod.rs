//! Money over HTTP: what was used, what was posted, who was paid.

mod budget;
mod export;
mod ledger;
mod payouts;
mod sheet;
mod usage;

use std::sync::Arc;

use forge_contract::FailureCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::auth::Caller;
use super::problem::Problem;
pub(super) use export::FORMATS;
pub(super) use usage::DAY_PATTERN;

/// Rows of one page of an export.
const PAGE: u32 = 1000;
/// Longest reference of a payment, characters.
pub(super) const REFERENCE_CHARS_MAX: usize = 200;

/// Every route about money.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(usage::usage))
        .routes(routes!(ledger::ledger))
        .routes(routes!(ledger::chain))
        .routes(routes!(ledger::balances))
        .routes(routes!(payouts::list, payouts::pay))
        .routes(routes!(budget::grant))
        .routes(routes!(budget::show, budget::set))
}

/// Whose rows are asked for: the caller's project, one that an operator names, or everybody's.
enum Whose {
    Project(Arc<str>),
    Everybody,
}

impl Whose {
    fn of(caller: &Caller, project: Option<&str>, all: bool) -> Result<Self, Problem> {
        if all && project.is_none() {
            caller.require_operator()?;
            return Ok(Self::Everybody);
        }
        match project {
            Some(project) if *project == *caller.project => Ok(Self::Project(Arc::clone(&caller.project))),
            Some(project) if caller.is_operator() => Ok(Self::Project(project.into())),
            // Another tenant's project is not there.
            Some(_) => Err(Problem::not_found("project")),
            None => Ok(Self::Project(Arc::clone(&caller.project))),
        }
    }

    fn project(&self) -> Option<&str> {
        match self {
            Self::Project(project) => Some(project),
            Self::Everybody => None,
        }
    }
}

/// A payment's own number: what makes a repeated request the same payment.
fn reference(text: &str) -> Result<(), Problem> {
    if (1..=REFERENCE_CHARS_MAX).contains(&text.chars().count()) && !text.chars().any(char::is_control) {
        return Ok(());
    }
    let detail = format!(
        "reference: expected 1 to {REFERENCE_CHARS_MAX} characters without control characters, such as the number of the transfer; \
         the same one again changes nothing"
    );
    Err(Problem::of(FailureCode::RequestSchema, detail).at("/reference"))
}

/// An amount that can be posted.
fn amount(micro: u64) -> Result<(), Problem> {
    if (1..=forge_lifecycle::ledger::MICRO_MAX).contains(&micro) {
        return Ok(());
    }
    let detail =
        format!("credits_micro: expected 1 to {} micro-credits, found {micro}", forge_lifecycle::ledger::MICRO_MAX);
    Err(Problem::of(FailureCode::RequestSchema, detail).at("/credits_micro"))
}
