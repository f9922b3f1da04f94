//! The audit log: rows are added in order, with their change or alone, and nothing else ever happens to them.

use forge_lifecycle::bundle::key::{Key, Signature};
use forge_lifecycle::trail::verify::Verifier;
use forge_lifecycle::trail::{Entry, Head, Purpose, Tip};

use super::*;
use crate::store::trail::{Reach, TrailFilter};

const KEY: Key = Key([5; 32]);

fn entry(project: &str, note: &str) -> Entry {
    Entry {
        at_ms: 10,
        organisation: "o".into(),
        project: project.into(),
        key: "k1".into(),
        action: "POST /x".into(),
        trace_id: note.into(),
        note: note.into(),
        ..Entry::default()
    }
}

fn accept(number: u128, key: &str, body: &str) -> Write {
    Write::Accept(Box::new(new_job(number, "a", Some(key), body))).audited(entry("a", &format!("job {number}")))
}

fn head(tip: Tip) -> Head {
    Head::seal(tip, 99, (Purpose::Periodic, String::new()), KEY, |_| [1; 64])
}

pub(super) async fn run(store: &dyn Store) {
    assert_eq!((store.trail_tip().await.unwrap(), store.trail_head().await.unwrap()), (Tip::default(), None));
    // A row goes with its change.
    assert_eq!(store.submit(accept(500, "trail-key", "{}")).await.unwrap(), Written::Done);
    assert_eq!(store.trail_tip().await.unwrap().seq, 1);
    // What was done before, or could not be done, leaves none.
    assert_eq!(store.submit(accept(501, "trail-key", "{}")).await.unwrap(), Written::Existing(job(500)));
    assert_eq!(store.submit(accept(502, "trail-key", "{1}")).await.unwrap(), Written::Mismatch(job(500)));
    store
        .submit(Write::Accept(Box::new(new_job(503, "none", None, "{}"))).audited(entry("a", "503")))
        .await
        .unwrap_err();
    assert_eq!(store.trail_tip().await.unwrap().seq, 1);
    // Many at once are one after the other.
    let rows = (0..50).map(|number| {
        let project = if number % 2 == 0 { "a" } else { "b" };
        store.submit(TrailWrite::Row(entry(project, &number.to_string())).into())
    });
    for ack in rows.collect::<Vec<_>>() {
        ack.await.unwrap();
    }
    store.submit(TrailWrite::Head(head(store.trail_tip().await.unwrap())).into()).await.unwrap();
    store.submit(TrailWrite::Row(entry("a", &"x\n".repeat(9_000))).into()).await.unwrap();
    holds(store).await;

    let seen = async |filter: TrailFilter, limit| {
        let rows = store.trail_search(&filter, limit).await.unwrap();
        rows.into_iter().map(|row| row.seq).collect::<Vec<u64>>()
    };
    let all = TrailFilter::of(Reach::All);
    assert_eq!(seen(all.clone(), 3).await, [52, 51, 50]);
    assert_eq!(seen(TrailFilter { before: Some(50), ..all.clone() }, 2).await, [49, 48]);
    assert_eq!(seen(TrailFilter::of(Reach::Project("b".into())), 2).await, [51, 49]);
    assert_eq!(seen(TrailFilter::of(Reach::Organisation("o".into())), 1).await, [52]);
    assert_eq!(seen(TrailFilter::of(Reach::Organisation("other".into())), 9).await, Vec::<u64>::new());
    assert_eq!(seen(TrailFilter { trace_id: Some("7".into()), ..all.clone() }, 9).await, [9]);
    // A filter narrows the reach and never widens it.
    let beyond = TrailFilter { project: Some("a".into()), ..TrailFilter::of(Reach::Project("b".into())) };
    assert_eq!(seen(beyond, 9).await, Vec::<u64>::new());
    for none in [
        TrailFilter { since_ms: Some(11), ..all.clone() },
        TrailFilter { until_ms: Some(9), ..all.clone() },
        TrailFilter { key: Some("k2".into()), ..all.clone() },
        TrailFilter { action: Some("POST /y".into()), ..all },
    ] {
        assert_eq!(seen(none, 9).await, Vec::<u64>::new());
    }
}

/// The chain is whole and the head about its row.
async fn holds(store: &dyn Store) {
    let always = |_: &Key, _: &[u8], signature: &Signature| signature.0 == [1; 64];
    let mut verifier = Verifier::new(Tip::default(), Some(KEY), &always);
    let (mut rows, heads) = (0, store.trail_heads(1, 9).await.unwrap());
    assert_eq!(heads, [store.trail_head().await.unwrap().unwrap()]);
    while let Some(page) = Some(store.trail(rows, 20).await.unwrap()).filter(|page| !page.is_empty()) {
        for row in page {
            assert!(row.entry.note.len() <= forge_lifecycle::trail::TEXT_BYTES_MAX && !row.entry.note.contains('\n'));
            verifier.row(&row);
            heads.iter().filter(|head| head.seq == row.seq).for_each(|head| verifier.head(head));
            rows = row.seq;
        }
    }
    let found = verifier.end();
    assert_eq!((found.faults, found.rows, found.signed), (vec![], 52, 51));
    assert_eq!(found.tip, store.trail_tip().await.unwrap());
}

pub(super) async fn reopened(store: &dyn Store) {
    holds(store).await;
}
