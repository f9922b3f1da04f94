//! Organisations, projects, keys, members, and what a project may.

use forge_contract::Digest;
use forge_contract::envelope::VerifyMode;

use super::{accept, end, job, new_job};
use crate::store::tenancy::{
    Amount, Binding, Exceeded, KeyFilter, KeyRow, LimitName, Limits, NewKey, NewMember, NewOrganisation, NewProject,
    OPERATOR, Role, Scope, Scopes,
};
use crate::store::*;

pub(super) async fn run(store: &dyn Store) {
    the_operator_is_there(store).await;
    an_organisation_comes_with_a_project_and_a_key(store).await;
    keys_are_revoked_rotated_and_listed(store).await;
    members_narrow_their_keys_and_take_them_along(store).await;
    jobs_are_counted_where_they_are_accepted(store).await;
    room_is_counted_where_it_is_taken(store).await;
    agents_are_reserved(store).await;
}

/// Makes a change; whether it changed anything.
pub(super) async fn change(store: &dyn Store, write: TenancyWrite) -> bool {
    match store.submit(Write::Tenancy(Box::new(write))).await.unwrap() {
        Written::Applied(changed) => changed,
        other => panic!("{other:?}"),
    }
}

fn key(id: &str, project: &str, scopes: Scopes) -> NewKey {
    NewKey {
        hash: Digest::of(id.as_bytes()),
        id: id.into(),
        project: project.into(),
        name: format!("name of {id}"),
        hint: "fpk_hint".into(),
        scopes,
        member: None,
        expires_ms: None,
    }
}

async fn the_operator_is_there(store: &dyn Store) {
    let operator = store.organisation(OPERATOR).await.unwrap().unwrap();
    assert!(operator.operator && operator.ceilings == Limits::default());
    assert!(!store.has_keys().await.unwrap());
    let project = store.project("a").await.unwrap().unwrap();
    assert_eq!((project.organisation.as_str(), project.name.as_str()), (OPERATOR, "first"));
    assert!(!change(store, TenancyWrite::Project(NewProject::plain("a", OPERATOR))).await, "the id is taken");
    assert!(!change(store, TenancyWrite::Project(NewProject::plain("c", "nobody"))).await);
    assert_eq!(store.project("c").await.unwrap(), None);
}

async fn an_organisation_comes_with_a_project_and_a_key(store: &dyn Store) {
    let ceilings = Limits { concurrent_jobs: Some(5), verify_min: Some(VerifyMode::Spotcheck), ..Limits::default() };
    let new = |id: &str, project: &str| NewOrganisation {
        id: id.into(),
        name: "Acme".into(),
        ceilings,
        project: NewProject::plain(project, id),
        key: key(&format!("key_{id}"), project, Scopes::of(&[Scope::Compute, Scope::Admin])),
    };
    assert!(!change(store, TenancyWrite::Organisation(new("x", "a"))).await, "the project's id is taken");
    assert_eq!(store.organisation("x").await.unwrap(), None);
    assert!(change(store, TenancyWrite::Organisation(new("acme", "acme"))).await);
    assert!(!change(store, TenancyWrite::Organisation(new("acme", "other"))).await);
    assert_eq!(store.project("other").await.unwrap(), None);
    let holder = store.holder(&Digest::of(b"key_acme")).await.unwrap().unwrap();
    assert_eq!(
        (holder.key.organisation.as_str(), holder.key.project.as_str(), holder.operator),
        ("acme", "acme", false)
    );
    assert_eq!(holder.limits, ceilings, "what is not limited is limited by the ceiling");
    let binding = Binding { region: Some("eu".into()), ..Binding::default() };
    let write = TenancyWrite::ChangeProject {
        id: "acme".into(),
        name: None,
        limits: Some(Limits { concurrent_jobs: Some(9), fuel_per_job: Some(7), ..Limits::default() }),
        binding: Some(binding.clone()),
    };
    assert!(change(store, write).await);
    let holder = store.holder(&Digest::of(b"key_acme")).await.unwrap().unwrap();
    assert_eq!((holder.limits.concurrent_jobs, holder.limits.fuel_per_job), (Some(5), Some(7)));
    assert_eq!(holder.binding, binding);
    let project = store.project("acme").await.unwrap().unwrap();
    assert_eq!((project.limits.concurrent_jobs, project.effective().concurrent_jobs), (Some(9), Some(5)));
    let ids = |rows: Vec<crate::store::tenancy::ProjectRow>| rows.into_iter().map(|row| row.id).collect::<Vec<_>>();
    assert_eq!(ids(store.projects(Some("acme"), None, 9).await.unwrap()), ["acme"]);
    assert_eq!(ids(store.projects(None, Some("a"), 2).await.unwrap()), ["acme", "b"]);
    let write = TenancyWrite::ChangeOrganisation { id: "acme".into(), name: Some("Acme Ltd".into()), ceilings: None };
    assert!(change(store, write).await);
    let listed = store.organisations(None, 9).await.unwrap();
    assert_eq!(listed.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["Acme Ltd", "default"]);
    assert_eq!(listed[0].ceilings, ceilings);
}

async fn keys_are_revoked_rotated_and_listed(store: &dyn Store) {
    let all = Scopes::of(&[Scope::Compute]);
    for id in ["key_1", "key_2"] {
        assert!(change(store, TenancyWrite::Key(key(id, "acme", all))).await);
    }
    let same = NewKey { id: "key_9".into(), ..key("key_1", "acme", all) };
    assert!(!change(store, TenancyWrite::Key(same)).await, "the text is known");
    assert!(store.has_keys().await.unwrap());
    assert!(change(store, TenancyWrite::KeyUsed { id: "key_1".into(), at_ms: 70 }).await);
    assert!(change(store, TenancyWrite::KeyUsed { id: "key_1".into(), at_ms: 60 }).await);
    let row = store.key("key_1").await.unwrap().unwrap();
    assert_eq!((row.used_ms, row.name.as_str(), row.revoked_ms), (Some(70), "name of key_1", None));
    assert!(change(store, TenancyWrite::RevokeKey { id: "key_1".into() }).await);
    assert!(!change(store, TenancyWrite::RevokeKey { id: "key_1".into() }).await);
    assert_eq!(store.holder(&Digest::of(b"key_1")).await.unwrap(), None);
    assert_eq!(store.holder(&Digest::of(b"unknown")).await.unwrap(), None);
    assert!(store.key("key_1").await.unwrap().unwrap().revoked_ms.is_some());
    let rotate =
        |id: &str, new: &str, until_ms| TenancyWrite::RotateKey { id: id.into(), new: key(new, "acme", all), until_ms };
    assert!(!change(store, rotate("key_1", "key_3", None)).await, "it is revoked");
    assert_eq!(store.key("key_3").await.unwrap(), None);
    assert!(change(store, rotate("key_2", "key_3", Some(500))).await);
    assert_eq!(store.holder(&Digest::of(b"key_2")).await.unwrap().unwrap().key.expires_ms, Some(500));
    assert!(change(store, rotate("key_3", "key_4", None)).await);
    assert_eq!(store.holder(&Digest::of(b"key_3")).await.unwrap(), None);
    let ids = async |filter: KeyFilter<'static>| {
        let rows: Vec<KeyRow> = store.keys(KeyFilter { limit: 99, ..filter }).await.unwrap();
        rows.into_iter().map(|row| row.id).collect::<Vec<_>>()
    };
    let of = KeyFilter { organisation: Some("acme"), ..KeyFilter::default() };
    assert_eq!(ids(of).await, ["key_2", "key_4", "key_acme"]);
    assert_eq!(ids(KeyFilter { revoked: true, after: Some("key_2"), ..of }).await, ["key_3", "key_4", "key_acme"]);
    assert_eq!(ids(KeyFilter { project: Some("b"), ..KeyFilter::default() }).await, Vec::<String>::new());
}

async fn members_narrow_their_keys_and_take_them_along(store: &dyn Store) {
    let member = |id: &str, name: &str, role| {
        TenancyWrite::Member(NewMember { id: id.into(), organisation: "acme".into(), name: name.into(), role })
    };
    assert!(change(store, member("mem_1", "ada", Role::Owner)).await);
    assert!(change(store, member("mem_2", "bob", Role::Member)).await);
    assert!(!change(store, member("mem_3", "bob", Role::Viewer)).await, "the name is taken");
    let everything = Scopes::all();
    let of = |member: &str, project| NewKey { member: Some(member.into()), ..key("key_bob", project, everything) };
    assert!(!change(store, TenancyWrite::Key(of("mem_2", "a"))).await, "a project of another organisation");
    assert!(change(store, TenancyWrite::Key(of("mem_2", "acme"))).await);
    let scopes = async || store.holder(&Digest::of(b"key_bob")).await.unwrap().map(|holder| holder.scopes.words());
    assert_eq!(scopes().await.as_deref(), Some("compute read provider"));
    assert!(change(store, TenancyWrite::ChangeMember { id: "mem_2".into(), role: Role::Viewer }).await);
    assert_eq!(scopes().await.as_deref(), Some("read"));
    for last in [
        TenancyWrite::ChangeMember { id: "mem_1".into(), role: Role::Admin },
        TenancyWrite::RemoveMember { id: "mem_1".into() },
    ] {
        assert!(!change(store, last).await, "the last owner stays");
    }
    assert!(change(store, TenancyWrite::RemoveMember { id: "mem_2".into() }).await);
    assert!(!change(store, TenancyWrite::RemoveMember { id: "mem_2".into() }).await);
    assert_eq!(scopes().await, None);
    assert_eq!(store.member("mem_2").await.unwrap(), None);
    let late = NewKey { hash: Digest::of(b"late"), id: "key_late".into(), ..of("mem_2", "acme") };
    assert!(!change(store, TenancyWrite::Key(late)).await, "who is gone gets no key");
    let names = store.members("acme").await.unwrap();
    assert_eq!(names.iter().map(|row| (row.name.as_str(), row.role)).collect::<Vec<_>>(), [("ada", Role::Owner)]);
    assert!(change(store, member("mem_4", "bob", Role::Member)).await, "the name is free again");
}

async fn limit(store: &dyn Store, limits: Limits) {
    let write = TenancyWrite::ChangeProject { id: "q".into(), name: None, limits: Some(limits), binding: None };
    assert!(change(store, write).await);
}

async fn jobs_are_counted_where_they_are_accepted(store: &dyn Store) {
    assert!(change(store, TenancyWrite::Project(NewProject::plain("q", OPERATOR))).await);
    let jobs = |most| Limits { concurrent_jobs: Some(most), ..Limits::default() };
    limit(store, jobs(0)).await;
    let race = async |numbers: std::ops::Range<u128>| {
        // All at once: they may share a transaction.
        let acks: Vec<Ack> =
            numbers.map(|n| store.submit(Write::Accept(Box::new(new_job(n, "q", None, "x"))))).collect();
        let (mut taken, mut refused) = (0, Vec::new());
        for ack in acks {
            match ack.await.unwrap() {
                Written::Done => taken += 1,
                Written::Exceeded(exceeded) => refused.push(exceeded),
                other => panic!("{other:?}"),
            }
        }
        (taken, refused)
    };
    let (taken, refused) = race(1_000..1_100).await;
    assert_eq!((taken, refused.len()), (0, 100));
    let by = |value, asked| Exceeded {
        name: LimitName::ConcurrentJobs,
        value: Amount::Number(value),
        asked: Amount::Number(asked),
    };
    assert!(refused.iter().all(|one| *one == by(0, 1)));
    limit(store, jobs(3)).await;
    assert_eq!(accept(store, new_job(1_200, "q", Some("k"), "x")).await, Written::Done);
    let (taken, refused) = race(1_100..1_200).await;
    assert_eq!((taken, refused.len()), (2, 98));
    assert_eq!(store.project_use("q").await.unwrap().jobs, 3);
    // A repeated request is no new job, whatever is in use.
    assert_eq!(accept(store, new_job(1_201, "q", Some("k"), "x")).await, Written::Existing(job(1_200)));
    assert_eq!(accept(store, new_job(1_201, "q", Some("k"), "y")).await, Written::Mismatch(job(1_200)));
    assert_eq!(store.idempotent("q", "k").await.unwrap(), Some((Digest::of(b"x"), job(1_200))));
    assert_eq!(store.idempotent("a", "k").await.unwrap().map(|(_, job)| job), Some(job(1)), "another project's");
    assert_eq!(accept(store, new_job(1_202, "q", Some("new"), "x")).await, Written::Exceeded(by(3, 4)));
    assert_eq!(store.idempotent("q", "new").await.unwrap(), None, "a refusal holds no key");
    for number in [1_100, 1_101, 1_200] {
        store.submit(Write::Finish(Box::new(end(number, "over")))).await.unwrap();
    }
    assert_eq!(store.project_use("q").await.unwrap().jobs, 0);
    limit(store, Limits::default()).await;
}

async fn room_is_counted_where_it_is_taken(store: &dyn Store) {
    limit(store, Limits { storage_bytes: Some(100), ..Limits::default() }).await;
    let put =
        |number: u8, bytes| store.submit(Write::Blob { project: "q".into(), digest: Digest::of(&[number, 9]), bytes });
    assert_eq!(put(1, 60).await.unwrap(), Written::Done);
    assert_eq!(put(1, 60).await.unwrap(), Written::Done, "what is there takes no more room");
    let exceeded = Exceeded { name: LimitName::StorageBytes, value: Amount::Number(100), asked: Amount::Number(101) };
    assert_eq!(put(2, 41).await.unwrap(), Written::Exceeded(exceeded));
    assert_eq!(store.no_room("q", 41).await.unwrap(), Some(exceeded));
    assert_eq!(store.no_room("q", 40).await.unwrap(), None);
    assert_eq!(put(2, 40).await.unwrap(), Written::Done);
    assert_eq!(store.project_use("q").await.unwrap().bytes, 100);
    values_and_arrays_take_room(store).await;
    limit(store, Limits::default()).await;
}

/// Of a project that stores 100 bytes.
async fn values_and_arrays_take_room(store: &dyn Store) {
    use crate::store::data::{DataWrite, DataWritten, KvKey, NewArray, NewValue};
    let value = async |bytes: usize| {
        let at = KvKey { project: "q".into(), namespace: "n".into(), key: "k".into() };
        let (value, media_type) = (vec![7; bytes], "x/y".to_owned());
        let new = NewValue { at, value, media_type, expires_ms: None, condition: Default::default() };
        write_data(store, DataWrite::KvPut(Box::new(new))).await.unwrap()
    };
    let array = async |source| {
        let number = forge_contract::fragment::Number::Int32;
        let array = forge_contract::array::ArrayType::new(number, vec![1]).unwrap();
        let (project, name, digest) = ("q".to_owned(), "a".to_owned(), Digest::of(b"array"));
        let new = NewArray { project, name, digest, bytes: 132, array, data_at: 128, source, version: None };
        write_data(store, DataWrite::Array(Box::new(new))).await.unwrap()
    };
    limit(store, Limits { storage_bytes: Some(110), ..Limits::default() }).await;
    assert!(matches!(value(11).await, DataWritten::Exceeded(_)));
    assert!(matches!(value(10).await, DataWritten::Kept { new: true, .. }));
    assert!(matches!(value(10).await, DataWritten::Kept { new: false, .. }), "another value of the same size fits");
    assert!(matches!(array(None).await, DataWritten::Exceeded(_)));
    // A result is kept: its job was let in.
    assert_eq!(array(Some((job(1), "c".into()))).await, DataWritten::Version(1));
    assert_eq!(store.project_use("q").await.unwrap().bytes, 242);
    assert!(matches!(value(11).await, DataWritten::Exceeded(_)));
    assert!(matches!(value(3).await, DataWritten::Kept { .. }), "less is always let in");
}

async fn agents_are_reserved(store: &dyn Store) {
    let (hash, public_key) = (Digest::of(b"reserved"), [77; 32]);
    let token = Write::EnrolToken {
        hash,
        project: "q".into(),
        expires_ms: super::FAR,
        verifier: false,
        provider: Some("q".into()),
        reserved: Some("q".into()),
    };
    store.submit(token).await.unwrap();
    assert_eq!(store.submit(Write::Redeem { hash, public_key }).await.unwrap(), Written::Redeemed(true));
    let agent = AgentId::of_public_key(&public_key);
    let tag = async || store.membership(agent).await.unwrap().reserved;
    let of = forge_lifecycle::event::ProjectTag::of;
    assert_eq!(tag().await, Some(of("q")));
    let row = store.agent_record(agent, 0).await.unwrap().unwrap().agent;
    assert_eq!((row.project.as_str(), row.reserved.as_deref()), ("q", Some("q")));
    for (project, expected) in [(Some("a"), Some(of("a"))), (None, None)] {
        let write = TenancyWrite::ReserveAgent { agent, project: project.map(str::to_owned) };
        assert!(change(store, write).await);
        assert_eq!(tag().await, expected);
    }
}
