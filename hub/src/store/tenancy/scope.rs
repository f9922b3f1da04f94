//! What a key may do, and what a member's keys may do at most.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// See what is the project's, plan, execute, cancel, replay, send content and kernels, write data.
    Compute,
    /// See what is the project's.
    Read,
    /// See it, and manage the organisation: its projects, keys, members and limits. In the operator's organisation also
    /// the hub.
    Admin,
    /// Enrol agents for the organisation's provider account, and see them.
    Provider,
}

impl Scope {
    /// Every scope, in order.
    pub const ALL: [Self; 4] = [Self::Compute, Self::Read, Self::Admin, Self::Provider];

    /// The stored and shown text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Compute => "compute",
            Self::Read => "read",
            Self::Admin => "admin",
            Self::Provider => "provider",
        }
    }

    /// The scope of this text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text)
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// Every scope.
    #[must_use]
    pub fn all() -> Self {
        Self::of(&Scope::ALL)
    }

    /// These.
    #[must_use]
    pub fn of(scopes: &[Scope]) -> Self {
        Self(scopes.iter().fold(0, |bits, scope| bits | scope.bit()))
    }

    /// Words with blanks between; `None` where one is no scope.
    #[must_use]
    pub fn parse(words: &str) -> Option<Self> {
        let scopes: Option<Vec<Scope>> = words.split_whitespace().map(Scope::parse).collect();
        scopes.map(|scopes| Self::of(&scopes))
    }

    /// Whether this one was given.
    #[must_use]
    pub fn has(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Whether what needs this scope is allowed: `read` is part of `compute` and of `admin`.
    #[must_use]
    pub fn allow(self, scope: Scope) -> bool {
        self.has(scope) || (scope == Scope::Read && (self.has(Scope::Compute) || self.has(Scope::Admin)))
    }

    /// Those that are in both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether nothing is allowed.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those given, in order.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.has(*scope))
    }

    /// The stored text: words in order, blanks between.
    #[must_use]
    pub fn words(self) -> String {
        self.iter().map(Scope::as_str).collect::<Vec<_>>().join(" ")
    }
}

/// What a member may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything; an organisation that has had an owner keeps one.
    Owner,
    /// Everything an owner may, but for making and removing owners.
    Admin,
    /// Work: `compute`, `read` and `provider`.
    Member,
    /// Looking: `read`.
    Viewer,
}

impl Role {
    /// Every role, the most powerful first.
    pub const ALL: [Self; 4] = [Self::Owner, Self::Admin, Self::Member, Self::Viewer];

    /// The stored and shown text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Member => "member",
            Self::Viewer => "viewer",
        }
    }

    /// The role of this text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }

    /// What the keys of such a member may do at most.
    #[must_use]
    pub fn scopes(self) -> Scopes {
        match self {
            Self::Owner | Self::Admin => Scopes::all(),
            Self::Member => Scopes::of(&[Scope::Compute, Scope::Read, Scope::Provider]),
            Self::Viewer => Scopes::of(&[Scope::Read]),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn scopes_read_back_and_imply_reading() {
        for bits in 0..16u8 {
            let scopes = Scopes(bits);
            assert_eq!(Scopes::parse(&scopes.words()), Some(scopes));
            let reads = scopes.has(Scope::Read) || scopes.has(Scope::Compute) || scopes.has(Scope::Admin);
            assert_eq!(scopes.allow(Scope::Read), reads);
            for scope in [Scope::Compute, Scope::Admin, Scope::Provider] {
                assert_eq!(scopes.allow(scope), scopes.has(scope), "nothing else is implied");
            }
        }
        assert_eq!(Scopes::parse("compute root"), None);
        assert_eq!(Scopes::parse("compute admin").unwrap().words(), "compute admin", "as keys were stored before");
    }

    #[test]
    fn roles_only_narrow() {
        let all = Scopes::all();
        assert_eq!(all.and(Role::Viewer.scopes()).words(), "read");
        assert_eq!(all.and(Role::Member.scopes()).words(), "compute read provider");
        assert!(Scopes::of(&[Scope::Admin]).and(Role::Member.scopes()).is_empty());
        for role in Role::ALL {
            assert_eq!(Role::parse(role.as_str()), Some(role));
        }
    }
}
