//! Values by key and arrays by name.

use forge_contract::array::ArrayType;
use forge_contract::fragment::Number;
use http::{HeaderMap, header};

use super::super::data::*;
use super::super::*;
use super::{end, job};
use crate::condition::Condition;

/// Runs every test on a store with the projects `a` and `b`.
pub async fn run(store: &dyn Store) {
    values_change_where_their_condition_holds(store).await;
    what_has_expired_is_absent(store).await;
    keys_are_listed_in_order(store).await;
    one_of_many_writers_wins(store).await;
    versions_rise_and_never_come_twice(store).await;
    an_end_leaves_keys_and_arrays(store).await;
}

async fn write(store: &dyn Store, write: DataWrite) -> DataWritten {
    write_data(store, write).await.unwrap()
}

fn at(namespace: &str, key: &str) -> KvKey {
    KvKey { project: "a".into(), namespace: namespace.into(), key: key.into() }
}

fn matching(revision: u64) -> Condition {
    let headers = [(header::IF_MATCH, format!("\"{revision}\"").parse().unwrap())];
    Condition::of(&headers.into_iter().collect::<HeaderMap>()).unwrap()
}

fn none() -> Condition {
    let headers = [(header::IF_NONE_MATCH, "*".parse().unwrap())];
    Condition::of(&headers.into_iter().collect::<HeaderMap>()).unwrap()
}

fn value(at: KvKey, bytes: &[u8], condition: Condition) -> DataWrite {
    let (value, media_type) = (bytes.to_vec(), "text/plain".to_owned());
    DataWrite::KvPut(Box::new(NewValue { at, value, media_type, expires_ms: None, condition }))
}

async fn put(store: &dyn Store, at: KvKey, bytes: &[u8], condition: Condition) -> Result<u64, Option<u64>> {
    match write(store, value(at, bytes, condition)).await {
        DataWritten::Kept { entry, .. } => Ok(entry.revision),
        DataWritten::Unmet(revision) => Err(revision),
        other => panic!("{other:?}"),
    }
}

async fn values_change_where_their_condition_holds(store: &dyn Store) {
    let place = at("n", "k");
    assert_eq!(put(store, place.clone(), b"0", matching(1)).await, Err(None));
    let one = put(store, place.clone(), b"A", none()).await.unwrap();
    assert_eq!(put(store, place.clone(), b"B", none()).await, Err(Some(one)));
    let two = put(store, place.clone(), b"B", matching(one)).await.unwrap();
    // The same bytes as at first: another revision, so that who read the first one is told.
    let three = put(store, place.clone(), b"A", Condition::default()).await.unwrap();
    assert!(one < two && two < three);
    assert_eq!(put(store, place.clone(), b"C", matching(one)).await, Err(Some(three)));
    let (entry, bytes) = store.kv(&place, 0).await.unwrap().unwrap();
    assert_eq!((entry.revision, entry.bytes, bytes.as_deref()), (three, 1, Some(&b"A"[..])));
    assert_eq!((entry.digest, entry.media_type.as_str()), (Digest::of(b"A"), "text/plain"));
    assert!(entry.created_ms <= entry.updated_ms);
    let other = KvKey { project: "b".into(), ..place.clone() };
    assert_eq!(store.kv(&other, 0).await.unwrap(), None);
    let delete = |condition| DataWrite::KvDelete { at: place.clone(), condition };
    assert_eq!(write(store, delete(matching(one))).await, DataWritten::Unmet(Some(three)));
    assert_eq!(write(store, delete(matching(three))).await, DataWritten::Removed(true));
    assert_eq!(write(store, delete(Condition::default())).await, DataWritten::Removed(false));
    // Gone and there again: no revision comes back.
    let four = put(store, place.clone(), b"A", none()).await.unwrap();
    assert!(four > three);
    assert_eq!(write(store, delete(Condition::default())).await, DataWritten::Removed(true));
}

async fn what_has_expired_is_absent(store: &dyn Store) {
    let new = |key: &str, expires_ms| {
        let (at, value, media_type) = (at("t", key), b"x".to_vec(), "text/plain".to_owned());
        DataWrite::KvPut(Box::new(NewValue { at, value, media_type, expires_ms, condition: none() }))
    };
    write(store, new("past", Some(5))).await;
    write(store, new("later", Some(u64::MAX >> 1))).await;
    assert!(store.kv(&at("t", "past"), 4).await.unwrap().is_some());
    assert_eq!(store.kv(&at("t", "past"), 5).await.unwrap(), None);
    let list = KvList { prefix: String::new(), after: None, limit: 9 };
    let keys: Vec<String> =
        store.kv_entries("a", "t", &list, 6).await.unwrap().into_iter().map(|entry| entry.key).collect();
    assert_eq!(keys, ["later"]);
    assert_eq!(store.kv_namespaces("a", None, 9, 6).await.unwrap()[0].keys, 1);
    // It is absent for conditions, too, although nobody has swept it.
    assert!(matches!(write(store, new("past", Some(5))).await, DataWritten::Kept { new: true, .. }));
    assert_eq!(write(store, DataWrite::KvSweep { limit: 9 }).await, DataWritten::Swept(1));
    assert_eq!(store.kv(&at("t", "past"), 0).await.unwrap(), None);
    let gone = DataWrite::KvDelete { at: at("t", "later"), condition: Condition::default() };
    assert_eq!(write(store, gone).await, DataWritten::Removed(true));
}

async fn keys_are_listed_in_order(store: &dyn Store) {
    for key in ["b/2", "a", "b/10", "b", "b/1", "c", "b~"] {
        put(store, at("l", key), b"xy", none()).await.unwrap();
    }
    let listed = async |prefix: &str, after: Option<&str>, limit| {
        let list = KvList { prefix: prefix.into(), after: after.map(Into::into), limit };
        let entries = store.kv_entries("a", "l", &list, 0).await.unwrap();
        entries.into_iter().map(|entry| entry.key).collect::<Vec<_>>()
    };
    assert_eq!(listed("", None, 9).await, ["a", "b", "b/1", "b/10", "b/2", "b~", "c"]);
    assert_eq!(listed("b/", None, 9).await, ["b/1", "b/10", "b/2"]);
    assert_eq!(listed("b", Some("b/10"), 2).await, ["b/2", "b~"]);
    assert_eq!(listed("b~", None, 9).await, ["b~"]);
    assert_eq!(listed("d", None, 9).await, [""; 0]);
    let spaces = store.kv_namespaces("a", None, 9, 0).await.unwrap();
    assert_eq!(spaces, [NamespaceRow { name: "l".into(), keys: 7, bytes: 14 }]);
    assert_eq!(store.kv_namespaces("a", Some("l"), 9, 0).await.unwrap(), []);
    assert_eq!(store.kv_namespaces("b", None, 9, 0).await.unwrap(), []);
    assert_eq!(store.stored_bytes("a").await.unwrap().kv, 14);
}

async fn one_of_many_writers_wins(store: &dyn Store) {
    let start = put(store, at("cas", "k"), b"0", none()).await.unwrap();
    let acks: Vec<Ack> = (0..100_u8)
        .map(|n| store.submit(Write::Data(Box::new(value(at("cas", "k"), &[n], matching(start))))))
        .collect();
    let mut won = 0;
    for ack in acks {
        won += u32::from(matches!(ack.await.unwrap(), Written::Data(DataWritten::Kept { .. })));
    }
    assert_eq!(won, 1);
}

fn array(name: &str, content: &[u8], version: Option<u64>) -> NewArray {
    NewArray {
        project: "a".into(),
        name: name.into(),
        digest: Digest::of(content),
        bytes: 136,
        array: ArrayType::new(Number::Int32, vec![2, 1]).unwrap(),
        data_at: 128,
        source: None,
        version,
    }
}

async fn versions_rise_and_never_come_twice(store: &dyn Store) {
    let put = async |content: &[u8]| write(store, DataWrite::Array(Box::new(array("v", content, None)))).await;
    let delete =
        async |version| write(store, DataWrite::ArrayDelete { project: "a".into(), name: "v".into(), version }).await;
    assert_eq!(store.next_version("a", "v").await.unwrap(), 1);
    for version in 1..=3 {
        assert_eq!(put(b"same").await, DataWritten::Version(version));
    }
    assert_eq!(delete(3).await, DataWritten::Removed(true));
    assert_eq!(delete(3).await, DataWritten::Removed(false));
    assert_eq!(delete(9).await, DataWritten::Removed(false));
    assert_eq!(store.array("a", "v", None).await.unwrap().unwrap().version, 2);
    assert_eq!(put(b"other").await, DataWritten::Version(4), "a deleted number stays taken");
    let found = store.array("a", "v", None).await.unwrap().unwrap();
    assert_eq!(
        (found.version, found.digest, found.array.shape.as_slice()),
        (4, Some(Digest::of(b"other")), &[2, 1][..])
    );
    let deleted = store.array("a", "v", Some(3)).await.unwrap().unwrap();
    assert!(deleted.digest.is_none() && deleted.deleted_ms.is_some());
    assert_eq!(store.array("b", "v", None).await.unwrap(), None);
    let versions = store.array_versions("a", "v", 1, 2).await.unwrap();
    assert_eq!(versions.iter().map(|row| row.version).collect::<Vec<_>>(), [2, 3]);
    write(store, DataWrite::Array(Box::new(array("u", b"u", None)))).await;
    let names = |rows: Vec<ArrayRow>| rows.into_iter().map(|row| (row.name, row.version)).collect::<Vec<_>>();
    assert_eq!(names(store.arrays("a", None, 9).await.unwrap()), [("u".into(), 1), ("v".into(), 4)]);
    assert_eq!(names(store.arrays("a", Some("u"), 9).await.unwrap()), [("v".into(), 4)]);
    assert_eq!(store.stored_bytes("a").await.unwrap().vmem, 136 * 4);
    let other = store.stored_bytes("b").await.unwrap();
    assert_eq!((other.kv, other.vmem), (0, 0));
}

async fn an_end_leaves_keys_and_arrays(store: &dyn Store) {
    let job = job(72);
    let source = Some((job, "c".to_owned()));
    let arrays = |first| {
        let one = |version, content: &[u8]| NewArray { source: source.clone(), ..array("w", content, Some(version)) };
        vec![one(first, b"one"), one(first + 1, b"two")]
    };
    let place = at("jobs", &format!("{job}/result_json"));
    let finish = async |first| {
        let kept = Kept { references: vec![(place.clone(), "result_json".into())], arrays: arrays(first) };
        store.submit(Write::Finish(Box::new(FinishedJob { job, kept, ..end(72, "end") }))).await.unwrap()
    };
    // Another version came first: nothing of the end is there.
    assert_eq!(finish(2).await, Written::Data(DataWritten::Moved));
    assert_eq!(store.job("a", job).await.unwrap().unwrap().phase, Phase::Running);
    assert_eq!((store.kv(&place, 0).await.unwrap(), store.next_version("a", "w").await.unwrap()), (None, 1));
    assert_eq!(finish(1).await, Written::Done);
    let row = store.array("a", "w", Some(2)).await.unwrap().unwrap();
    assert_eq!((row.digest, row.job, row.part.as_deref()), (Some(Digest::of(b"two")), Some(job), Some("c")));
    let (entry, value) = store.kv(&place, 0).await.unwrap().unwrap();
    assert_eq!((entry.digest, entry.bytes, entry.job, value), (Digest::of(b"result"), 6, Some(job), None));
    // A second end changes nothing.
    assert_eq!(finish(3).await, Written::Done);
    assert_eq!(store.next_version("a", "w").await.unwrap(), 3);
}
