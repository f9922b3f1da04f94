//! Who asks: an API key, of one project, with scopes.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use forge_contract::{Digest, FailureCode};
use forge_lifecycle::books::budget::Budget;
use http::request::Parts;
use http::{HeaderMap, header};

use super::App;
use super::problem::Problem;
use super::ticket::{Ticket, Who};
use crate::store::tenancy::{Amount, Binding, LimitName, Limits};
pub use crate::store::tenancy::{Scope, Scopes};
use crate::store::trail::Reach;
pub use crate::tenancy::key::{KEY_PREFIX, hash_of};
use crate::tenancy::{Held, Keyring, TooFast};

/// The alternative header of the product pages.
pub const KEY_HEADER: &str = "x-forge-api-key";

/// A caller whose key is good.
#[derive(Clone)]
pub struct Caller {
    /// Its organisation.
    pub organisation: Arc<str>,
    /// Its project.
    pub project: Arc<str>,
    /// The id of its key: who did what is written down with it.
    pub key: Arc<str>,
    /// Whose key it is, where it is somebody's.
    pub member: Option<Arc<str>>,
    /// What it may do.
    pub scopes: Scopes,
    /// What its request leaves in the audit log.
    pub ticket: Ticket,
    held: Arc<Held>,
    hash: Digest,
    ring: Arc<Keyring>,
}

impl core::fmt::Debug for Caller {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Caller").field("project", &self.project).field("key", &self.key).finish_non_exhaustive()
    }
}

impl Caller {
    /// Refuses whoever may not do what needs this scope.
    ///
    /// # Errors
    /// `request.forbidden`.
    pub fn require(&self, scope: Scope) -> Result<(), Problem> {
        if self.scopes.allow(scope) {
            return Ok(());
        }
        let has =
            if self.scopes.is_empty() { "none that its member's role allows".into() } else { self.scopes.words() };
        let detail = format!("this needs a key with the scope `{}`; this one has: {has}", scope.as_str());
        Err(Problem::of(FailureCode::RequestForbidden, detail))
    }

    /// Whether it runs the hub: `admin` in the operator's organisation.
    #[must_use]
    pub fn is_operator(&self) -> bool {
        self.held.operator && self.scopes.has(Scope::Admin)
    }

    /// Refuses whoever does not run the hub.
    ///
    /// # Errors
    /// `request.forbidden`.
    pub fn require_operator(&self) -> Result<(), Problem> {
        if self.is_operator() {
            return Ok(());
        }
        let detail =
            "this is for the hub's operator: it needs a key of the operator's organisation with the scope `admin`";
        Err(Problem::of(FailureCode::RequestForbidden, detail))
    }

    /// Whether it manages an organisation: its own, or any where it runs the hub.
    #[must_use]
    pub fn manages(&self, organisation: &str) -> bool {
        self.is_operator() || (self.scopes.has(Scope::Admin) && *self.organisation == *organisation)
    }

    /// Whose rows of the audit log it may see.
    #[must_use]
    pub fn audit_reach(&self) -> Reach {
        if self.is_operator() {
            Reach::All
        } else if self.scopes.has(Scope::Admin) {
            Reach::Organisation(self.organisation.to_string())
        } else {
            Reach::Project(self.project.to_string())
        }
    }

    /// Its project's limits in force.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.held.limits
    }

    /// What its project may spend; `None` for no limit.
    #[must_use]
    pub fn budget(&self) -> Option<Budget> {
        self.held.budget
    }

    /// Where its project's jobs run.
    #[must_use]
    pub fn binding(&self) -> &Binding {
        &self.held.binding
    }

    /// When its key stops working, ms since 1970.
    #[must_use]
    pub fn expires_ms(&self) -> Option<u64> {
        self.held.expires_ms
    }

    /// Refuses what came over some time while its key stopped working: nothing of it counts.
    ///
    /// # Errors
    /// `request.unauthenticated`.
    pub async fn still(&self) -> Result<(), Problem> {
        let held = self.ring.find(&self.hash).await?;
        let gone = || unauthenticated("the key was revoked or expired while the body came; nothing of it is kept");
        held.map(drop).ok_or_else(gone)
    }

    /// Resolves when its key works no more. What waits with a key ends with it.
    pub async fn lapsed(&self) {
        self.ring.lapsed(&self.hash).await;
    }
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let hash = hash_of(key_of(&parts.headers)?);
        let held = app.keys.find(&hash).await?;
        let held = held.ok_or_else(|| unauthenticated("the key is unknown, expired or revoked"))?;
        let ticket = parts.extensions.get::<Ticket>().cloned().unwrap_or_default();
        ticket.identify(who(&held));
        app.rates.take(&held.project, &held.limits)?;
        app.keys.note(&held);
        Ok(Self {
            organisation: Arc::clone(&held.organisation),
            project: Arc::clone(&held.project),
            key: Arc::clone(&held.key),
            member: held.member.clone(),
            scopes: held.scopes,
            ticket,
            held,
            hash,
            ring: Arc::clone(&app.keys),
        })
    }
}

impl From<TooFast> for Problem {
    fn from(TooFast { rate, wait }: TooFast) -> Self {
        let detail = format!("this project may send {rate} requests per second (requests_per_second)");
        let limit = (LimitName::RequestsPerSecond, Amount::Number(rate), Amount::Number(rate.saturating_add(1)));
        match wait {
            Some(wait) => {
                let problem =
                    Self::of(FailureCode::RequestQuota, format!("{detail}; go on in {} ms", wait.as_millis()));
                problem.limited(limit, Some(crate::clock::unix_ms() + up(wait))).retry_after(wait)
            }
            None => Self::of(FailureCode::RequestQuota, detail).limited(limit, None).retry_after(NEVER),
        }
    }
}

/// What a client is told to wait that may not send anything: an hour, and then to ask again.
const NEVER: Duration = Duration::from_secs(3600);

/// Milliseconds, rounded up.
fn up(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// What a request ends with whose key stopped working while it waited.
pub(super) fn lapsed() -> Problem {
    unauthenticated("the key was revoked or expired while this request waited; what it began goes on and is recorded")
}

/// Who it is in the audit log.
fn who(held: &Held) -> Who {
    Who { organisation: held.organisation.to_string(), project: held.project.to_string(), key: held.key.to_string() }
}

fn unauthenticated(detail: &str) -> Problem {
    Problem::of(FailureCode::RequestUnauthenticated, detail)
}

fn key_of(headers: &HeaderMap) -> Result<&str, Problem> {
    let key = match headers.get(header::AUTHORIZATION) {
        Some(value) => {
            let text = value.to_str().map_err(|_| unauthenticated("the Authorization header is not text"))?;
            let (scheme, key) = text.split_once(' ').unwrap_or((text, ""));
            if !scheme.eq_ignore_ascii_case("bearer") {
                return Err(unauthenticated("the Authorization header's scheme is not Bearer"));
            }
            Some(key.trim())
        }
        None => match headers.get(KEY_HEADER) {
            Some(value) => {
                Some(value.to_str().map_err(|_| unauthenticated("the X-FORGE-API-KEY header is not text"))?.trim())
            }
            None => None,
        },
    };
    let key = key.ok_or_else(|| unauthenticated("there is no key with the request"))?;
    if key.is_empty() || key.len() > 256 {
        return Err(unauthenticated("the key is empty or far too long"));
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn where_keys_are_found() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect::<HeaderMap>()
        };
        assert_eq!(key_of(&headers(&[("authorization", "Bearer fpk_a")])).unwrap(), "fpk_a");
        assert_eq!(key_of(&headers(&[("authorization", "bearer  fpk_a ")])).unwrap(), "fpk_a");
        assert_eq!(key_of(&headers(&[("x-forge-api-key", "fpk_b")])).unwrap(), "fpk_b");
        for bad in
            [&[][..], &[("authorization", "Basic eA==")], &[("authorization", "Bearer")], &[("x-forge-api-key", "")]]
        {
            assert_eq!(key_of(&headers(bad)).unwrap_err().code(), FailureCode::RequestUnauthenticated);
        }
    }
}
