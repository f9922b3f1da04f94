//! Organisations, their members, projects and keys, as they cross the store's border.

mod binding;
mod limits;
mod scope;

use async_trait::async_trait;
use forge_contract::{AgentId, Digest, JobId};
use forge_lifecycle::books::budget::Budget;

pub use binding::Binding;
pub use limits::{Amount, Exceeded, LIMIT_MAX, LimitName, Limits};
pub use scope::{Role, Scope, Scopes};

use super::StoreError;

/// The organisation that runs the hub; the first start makes it.
pub const OPERATOR: &str = "default";

/// An organisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrganisationRow {
    /// Its id.
    pub id: String,
    /// Its name, for people.
    pub name: String,
    /// Whether its admins run the hub.
    pub operator: bool,
    /// What its projects' limits may be at most.
    pub ceilings: Limits,
    /// When it was made, ms since 1970.
    pub created_ms: u64,
}

/// An organisation to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewOrganisation {
    /// Its id.
    pub id: String,
    /// Its name, for people.
    pub name: String,
    /// What its projects' limits may be at most.
    pub ceilings: Limits,
    /// Its first project.
    pub project: NewProject,
    /// Its first key.
    pub key: NewKey,
}

/// A project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectRow {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub organisation: String,
    /// Its name, for people.
    pub name: String,
    /// Its own limits.
    pub limits: Limits,
    /// Those of its organisation.
    pub ceilings: Limits,
    /// Where its jobs run.
    pub binding: Binding,
    /// When it was made, ms since 1970.
    pub created_ms: u64,
}

impl ProjectRow {
    /// The limits in force.
    #[must_use]
    pub fn effective(&self) -> Limits {
        self.limits.within(&self.ceilings)
    }
}

/// A project to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewProject {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub organisation: String,
    /// Its name, for people.
    pub name: String,
    /// Its limits.
    pub limits: Limits,
    /// Where its jobs run.
    pub binding: Binding,
}

impl NewProject {
    /// Without limits, named by its id.
    #[must_use]
    pub fn plain(id: &str, organisation: &str) -> Self {
        Self {
            id: id.into(),
            organisation: organisation.into(),
            name: id.into(),
            limits: Limits::default(),
            binding: Binding::default(),
        }
    }
}

/// What a project uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProjectUse {
    /// Jobs without an end.
    pub jobs: u64,
    /// Bytes stored.
    pub bytes: u64,
}

/// A key to remember.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewKey {
    /// BLAKE3 of the key's text.
    pub hash: Digest,
    /// What people call it by.
    pub id: String,
    /// Its project.
    pub project: String,
    /// What it is for, in its maker's words.
    pub name: String,
    /// The start of its text, to recognise it by.
    pub hint: String,
    /// What it may do.
    pub scopes: Scopes,
    /// Whose it is, where it is somebody's.
    pub member: Option<String>,
    /// When it stops working, ms since 1970.
    pub expires_ms: Option<u64>,
}

/// A key as its organisation sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// What people call it by.
    pub id: String,
    /// The organisation.
    pub organisation: String,
    /// The project.
    pub project: String,
    /// What it is for.
    pub name: String,
    /// The start of its text.
    pub hint: String,
    /// What it was given.
    pub scopes: Scopes,
    /// Whose it is, where it is somebody's.
    pub member: Option<String>,
    /// When it was made, ms since 1970.
    pub created_ms: u64,
    /// When it stops working, ms since 1970.
    pub expires_ms: Option<u64>,
    /// When it was last used, to about a minute, ms since 1970.
    pub used_ms: Option<u64>,
    /// When it was revoked, ms since 1970.
    pub revoked_ms: Option<u64>,
}

/// Who calls with a key that is not revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HolderRow {
    /// The key.
    pub key: KeyRow,
    /// Whether the organisation runs the hub.
    pub operator: bool,
    /// What it may do: what it was given and its member's role allows.
    pub scopes: Scopes,
    /// The project's limits in force.
    pub limits: Limits,
    /// Where the project's jobs run.
    pub binding: Binding,
    /// What the project may spend; `None` for no limit.
    pub budget: Option<Budget>,
}

/// Which keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyFilter<'a> {
    /// Of this organisation.
    pub organisation: Option<&'a str>,
    /// Of this project.
    pub project: Option<&'a str>,
    /// Of this member.
    pub member: Option<&'a str>,
    /// Also those that are revoked.
    pub revoked: bool,
    /// After this id.
    pub after: Option<&'a str>,
    /// At most.
    pub limit: u32,
}

/// A member of an organisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberRow {
    /// Its id.
    pub id: String,
    /// The organisation.
    pub organisation: String,
    /// Its name, such as an address of mail.
    pub name: String,
    /// What it may be.
    pub role: Role,
    /// When it was added, ms since 1970.
    pub created_ms: u64,
}

/// A member to add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMember {
    /// Its id.
    pub id: String,
    /// The organisation.
    pub organisation: String,
    /// Its name.
    pub name: String,
    /// What it may be.
    pub role: Role,
}

/// One change of tenancy. Each answers `Applied`: whether it changed anything.
#[derive(Clone, Debug)]
pub enum TenancyWrite {
    /// An organisation with its first project and key; not where an id is taken.
    Organisation(NewOrganisation),
    /// An organisation's name or ceilings.
    ChangeOrganisation {
        /// Which.
        id: String,
        /// Its new name.
        name: Option<String>,
        /// Its new ceilings.
        ceilings: Option<Limits>,
    },
    /// A project; not where its id is taken, nor where its organisation does not exist.
    Project(NewProject),
    /// A project's name, limits or binding.
    ChangeProject {
        /// Which.
        id: String,
        /// Its new name.
        name: Option<String>,
        /// Its new limits.
        limits: Option<Limits>,
        /// Where its jobs run from now on.
        binding: Option<Binding>,
    },
    /// A key; not where its text is known, nor for a member that is not there.
    Key(NewKey),
    /// A key works no more.
    RevokeKey {
        /// Its id.
        id: String,
    },
    /// A key takes another one's place, which works until then; not where that is revoked.
    RotateKey {
        /// The id of the old one.
        id: String,
        /// The new one.
        new: NewKey,
        /// When the old one stops working, ms since 1970; at once where absent.
        until_ms: Option<u64>,
    },
    /// A key was used.
    KeyUsed {
        /// Its id.
        id: String,
        /// When, ms since 1970.
        at_ms: u64,
    },
    /// A member; not where the name is taken.
    Member(NewMember),
    /// A member's role; not where the organisation would lose its last owner.
    ChangeMember {
        /// Which.
        id: String,
        /// The role.
        role: Role,
    },
    /// A member leaves and its keys work no more; not where it is the last owner.
    RemoveMember {
        /// Which.
        id: String,
    },
    /// An agent works for this project alone, or for everybody again.
    ReserveAgent {
        /// Which.
        agent: AgentId,
        /// The project.
        project: Option<String>,
    },
}

/// Reading organisations, projects, keys and members.
#[async_trait]
pub trait TenancyStore {
    /// Who calls with this key; `None` where it is unknown or revoked. Whether it has expired is the caller's to see.
    async fn holder(&self, hash: &Digest) -> Result<Option<HolderRow>, StoreError>;
    /// Whether any key that works exists.
    async fn has_keys(&self) -> Result<bool, StoreError>;
    /// A key by its id, revoked or not.
    async fn key(&self, id: &str) -> Result<Option<KeyRow>, StoreError>;
    /// Keys, by id.
    async fn keys(&self, filter: KeyFilter<'_>) -> Result<Vec<KeyRow>, StoreError>;
    /// An organisation.
    async fn organisation(&self, id: &str) -> Result<Option<OrganisationRow>, StoreError>;
    /// Organisations by id, after this one.
    async fn organisations(&self, after: Option<&str>, limit: u32) -> Result<Vec<OrganisationRow>, StoreError>;
    /// A project.
    async fn project(&self, id: &str) -> Result<Option<ProjectRow>, StoreError>;
    /// Projects of an organisation, or of all, by id, after this one.
    async fn projects(
        &self,
        organisation: Option<&str>,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<ProjectRow>, StoreError>;
    /// What a project uses.
    async fn project_use(&self, id: &str) -> Result<ProjectUse, StoreError>;
    /// A member that was not removed.
    async fn member(&self, id: &str) -> Result<Option<MemberRow>, StoreError>;
    /// The members of an organisation, by name.
    async fn members(&self, organisation: &str) -> Result<Vec<MemberRow>, StoreError>;
    /// What an idempotency key of a project stands for: the digest of its request, and the job.
    async fn idempotent(&self, project: &str, key: &str) -> Result<Option<(Digest, JobId)>, StoreError>;
    /// The limit that storing so many more bytes would break.
    async fn no_room(&self, project: &str, bytes: u64) -> Result<Option<Exceeded>, StoreError>;
}
