//! Who asks: an API key, of one project, with scopes.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use forge_contract::{Digest, FailureCode};
use forge_lifecycle::books::budget::Budget;
use http::request::Parts;
use http::{HeaderMap, header};

use super::App;
use super::problem::Problem;

/// Every key starts with this, so that a leaked one is recognised.
pub const KEY_PREFIX: &str = "fpk_";
/// The alternative header of the product pages.
pub const KEY_HEADER: &str = "x-forge-api-key";

/// What is kept of a key: the BLAKE3 digest of its text.
#[must_use]
pub fn hash_of(key: &str) -> Digest {
    Digest::tagged("forgepool v1 api key", key.as_bytes())
}

/// A caller whose key is good.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Its project.
    pub project: Arc<str>,
    /// Whether it may see and change what belongs to the operator.
    pub admin: bool,
    /// What its project may spend; `None` for no limit.
    pub budget: Option<Budget>,
}

impl Caller {
    /// Refuses whoever is not an operator.
    ///
    /// # Errors
    /// `request.forbidden`.
    pub fn require_admin(&self) -> Result<(), Problem> {
        if self.admin {
            return Ok(());
        }
        Err(Problem::of(FailureCode::RequestForbidden, "this needs a key with the scope `admin`"))
    }
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let key = key_of(&parts.headers)?;
        let row = app.store.key(&hash_of(key)).await?;
        let row = row.ok_or_else(|| unauthenticated("the key is unknown or revoked"))?;
        let mut scopes = row.scopes.split_whitespace();
        let admin = scopes.any(|scope| scope == "admin");
        Ok(Self { project: row.project.into(), admin, budget: row.budget })
    }
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
