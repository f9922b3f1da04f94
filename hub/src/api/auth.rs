//! Who asks: an API key, of one project, with scopes.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use forge_contract::{Digest, FailureCode};
use http::request::Parts;
use http::{HeaderMap, header};

use super::App;
use super::problem::Problem;
use super::ticket::{Ticket, Who};
use crate::store::trail::Reach;

/// Every key starts with this, so that a leaked one is recognised.
pub const KEY_PREFIX: &str = "fpk_";
/// Characters of a key that are kept to recognise it by.
pub const HINT_CHARS: usize = 8;
/// The alternative header of the product pages.
pub const KEY_HEADER: &str = "x-forge-api-key";

/// What is kept of a key: the BLAKE3 digest of its text.
#[must_use]
pub fn hash_of(key: &str) -> Digest {
    Digest::tagged("forgepool v1 api key", key.as_bytes())
}

/// The start of a key's text, to recognise it by.
#[must_use]
pub fn hint_of(key: &str) -> String {
    key.chars().take(HINT_CHARS).collect()
}

/// A caller whose key is good.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Its project.
    pub project: Arc<str>,
    /// Whether it may see and change what belongs to the operator.
    pub admin: bool,
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

    /// Whose rows of the audit log it may see.
    #[must_use]
    pub fn audit_reach(&self) -> Reach {
        if self.admin { Reach::All } else { Reach::Project(self.project.to_string()) }
    }

    /// Who it is in the audit log.
    fn who(&self, key: &str) -> Who {
        Who { organisation: String::new(), project: self.project.to_string(), key: hint_of(key) }
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
        let caller = Self { project: row.project.into(), admin };
        if let Some(ticket) = parts.extensions.get::<Ticket>() {
            ticket.identify(caller.who(key));
        }
        Ok(caller)
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
