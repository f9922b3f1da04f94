#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use forge_contract::Digest;

use super::text::{Opening, check};
use super::verify::{Fault, Findings, Verifier};
use super::*;

const KEY: Key = Key([7; 32]);
const ROWS: u64 = 12;

/// A signature that anybody can make, but for who does not know the key: enough for a pure test.
fn sign(bytes: &[u8]) -> [u8; 64] {
    signed_by(&KEY, bytes)
}

fn signed_by(key: &Key, bytes: &[u8]) -> [u8; 64] {
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(Digest::tagged("forgepool v1 test signature", bytes).as_bytes());
    signature[32..].copy_from_slice(&key.0);
    signature
}

fn verify(key: &Key, bytes: &[u8], signature: &Signature) -> bool {
    signed_by(key, bytes) == signature.0
}

fn rows() -> Vec<Row> {
    let mut tip = Tip::default();
    let mut rows = Vec::new();
    for number in 1..=ROWS {
        let entry = Entry {
            at_ms: 1_000 + number,
            project: if number % 3 == 0 { "other".into() } else { "mine".into() },
            key: "fpk_abcd".into(),
            action: "POST /api/v0/ops/execute".into(),
            target: "/api/v0/ops/execute".into(),
            status: 202,
            note: format!("job {number}"),
            body: (number % 2 == 0).then(|| Digest::of(&number.to_be_bytes())),
            peer: "127.0.0.1".into(),
            trace_id: "t".into(),
            ..Entry::default()
        };
        let row = Row::after(&tip, entry, Salt([u8::try_from(number).unwrap(); 16]));
        tip = row.tip();
        rows.push(row);
    }
    rows
}

fn head(tip: Tip, purpose: Purpose, scope: &str) -> Head {
    Head::seal(tip, 5_000, (purpose, scope.into()), KEY, sign)
}

/// An export of `rows` as a project sees it, with a head in the middle.
fn export_of(rows: &[Row]) -> String {
    let opening = Opening::new("project mine", Tip::default());
    let mut export = text::opening(&opening);
    for row in rows {
        export += &if row.entry.project == "mine" { text::row(row) } else { text::hidden(row) };
        if row.seq == 5 {
            export += &text::head(&head(row.tip(), Purpose::Periodic, ""));
        }
    }
    let tip = rows.last().map(Row::tip).unwrap_or_default();
    export + &text::head(&head(tip, Purpose::Export, &opening.sealed()))
}

fn faults(export: &str) -> Vec<Fault> {
    check(export, Some(KEY), None, &verify).faults
}

fn found(rows: &[Row], heads: &[Head]) -> Findings {
    let mut verifier = Verifier::new(Tip::default(), Some(KEY), &verify);
    for row in rows {
        verifier.row(row);
        heads.iter().filter(|head| head.seq == row.seq).for_each(|head| verifier.head(head));
    }
    heads.iter().filter(|head| !rows.iter().any(|row| row.seq == head.seq)).for_each(|head| verifier.head(head));
    verifier.end()
}

/// Every row anew from here on, as somebody would who can write everything but signatures.
fn rewritten(rows: &[Row], from: usize, change: impl Fn(&mut Entry)) -> Vec<Row> {
    let mut rows = rows.to_vec();
    for at in from..rows.len() {
        let before = at.checked_sub(1).map_or(Tip::default(), |before| rows[before].tip());
        let mut entry = rows[at].entry.clone();
        if at == from {
            change(&mut entry);
        }
        rows[at] = Row::after(&before, entry, rows[at].salt);
    }
    rows
}

#[test]
fn a_true_export_holds() {
    let found = check(&export_of(&rows()), Some(KEY), None, &verify);
    assert_eq!(found.faults, []);
    assert_eq!((found.rows, found.hidden, found.heads, found.signed), (ROWS, ROWS / 3, 2, ROWS));
    assert_eq!(faults(&export_of(&[])), []);
}

#[test]
fn the_digests_stay_as_they_are() {
    // Chains and heads that others keep rest on them.
    let row = &rows()[1];
    assert_eq!(row.digest.to_string(), "a5ff781f9c597793052d832a88b3c0aacdc85478321dc24229b158d168276627");
    assert_eq!(row.link.to_string(), "33b8d6c31614c508c13da2019dc7e518f6de941594c4a1e6af97d969301f2660");
    let head = head(row.tip(), Purpose::Periodic, "");
    assert_eq!(head.statement().to_string(), "96d5c568bea9847f5390b44c7ac59ce3b66ec3bec2ca5d50728f893a0448f2f5");
}

#[test]
fn every_flipped_byte_is_found() {
    let export = export_of(&rows());
    for at in 0..export.len() {
        for flip in [0x01u8, 0x02, 0x10, 0x20] {
            let mut bytes = export.clone().into_bytes();
            bytes[at] ^= flip;
            // What is no text is refused before it gets here.
            let Ok(text) = String::from_utf8(bytes) else { continue };
            assert_ne!(faults(&text), [], "byte {at} flipped with {flip:#x}: {:?}", &export[at.saturating_sub(20)..at]);
        }
    }
}

#[test]
fn every_field_is_under_the_digest() {
    let base = rows().remove(1);
    let changes: [fn(&mut Entry); 13] = [
        |e| e.at_ms += 1,
        |e| e.organisation.push('x'),
        |e| e.project.push('x'),
        |e| e.key.push('x'),
        |e| e.action.push('x'),
        |e| e.target.push('x'),
        |e| e.status += 1,
        |e| e.code.push('x'),
        |e| e.note.push('x'),
        |e| e.body = None,
        |e| e.body = Some(Digest::of(b"x")),
        |e| e.peer.push('x'),
        |e| e.trace_id.push('x'),
    ];
    for (at, change) in changes.iter().enumerate() {
        let mut row = base.clone();
        change(&mut row.entry);
        let mut verifier = Verifier::new(rows()[0].tip(), None, &verify);
        verifier.row(&row);
        assert_eq!(verifier.end().faults, [Fault::Changed { seq: 2 }], "change {at}");
    }
    // Fields do not run into each other.
    let mut moved = base.clone();
    moved.entry.organisation = "m".into();
    moved.entry.project = "ine".into();
    assert_ne!(moved.entry.digest(2, &base.salt), base.digest);
    assert_ne!(base.entry.digest(3, &base.salt), base.digest);
    assert_ne!(base.entry.digest(2, &Salt::default()), base.digest);
}

#[test]
fn every_dropped_row_is_named() {
    let rows = rows();
    for at in 0..rows.len() {
        let mut left = rows.clone();
        let dropped = left.remove(at);
        let end = head(rows[rows.len() - 1].tip(), Purpose::Shutdown, "");
        let first = found(&left, &[end]).faults.remove(0);
        let expected = match at + 1 == rows.len() {
            true => Fault::Truncated { last: dropped.seq - 1, signed: dropped.seq },
            false => Fault::Order { expected: dropped.seq, found: dropped.seq + 1 },
        };
        assert_eq!(first, expected);
        // Those after it renumbered and chained anew: only the signature says otherwise.
        let mut closed = left.clone();
        for (place, row) in closed.iter_mut().enumerate() {
            row.seq = place as u64 + 1;
        }
        let closed = rewritten(&closed, 0, |_| ());
        let opening = Opening::new("all", Tip::default());
        let mut export = text::opening(&opening);
        closed.iter().for_each(|row| export += &text::row(row));
        export += &text::head(&head(rows[rows.len() - 1].tip(), Purpose::Export, &opening.sealed()));
        assert_eq!(faults(&export), [Fault::Truncated { last: ROWS - 1, signed: ROWS }]);
    }
}

#[test]
fn every_swapped_pair_is_found() {
    let rows = rows();
    for one in 0..rows.len() {
        for other in one + 1..rows.len() {
            let mut swapped = rows.clone();
            swapped.swap(one, other);
            let first = found(&swapped, &[]).faults.remove(0);
            assert_eq!(first, Fault::Order { expected: one as u64 + 1, found: other as u64 + 1 });
            // With their numbers swapped back, they are other rows.
            let (a, b) = (swapped[one].seq, swapped[other].seq);
            (swapped[one].seq, swapped[other].seq) = (b, a);
            assert!(found(&swapped, &[]).faults.contains(&Fault::Changed { seq: one as u64 + 1 }));
        }
    }
}

#[test]
fn a_chain_made_anew_is_not_the_one_that_was_signed() {
    let rows = rows();
    let heads = [head(rows[4].tip(), Purpose::Periodic, ""), head(rows[11].tip(), Purpose::Periodic, "")];
    assert_eq!(found(&rows, &heads).faults, []);
    for at in 0..rows.len() {
        let forged = rewritten(&rows, at, |entry| entry.status = 403);
        let after = if at < 5 { 0 } else { 5 };
        let signed = if at < 5 { 5 } else { 12 };
        assert_eq!(found(&forged, &heads).faults[0], Fault::Unsigned { seq: signed, after }, "row {}", at + 1);
        // Without any head nobody can tell.
        assert_eq!(found(&forged, &[]).faults, []);
    }
}

#[test]
fn what_is_cut_off_is_missed() {
    let rows = rows();
    let end = head(rows[11].tip(), Purpose::Asked, "");
    for left in 0..rows.len() {
        let found = found(&rows[..left], std::slice::from_ref(&end));
        assert_eq!(found.faults, [Fault::Truncated { last: left as u64, signed: ROWS }]);
    }
    let export = export_of(&rows);
    let lines: Vec<&str> = export.split_inclusive('\n').collect();
    for left in 1..lines.len() {
        assert_eq!(faults(&lines[..left].concat()), [Fault::Unfinished], "{left} lines");
    }
    assert_ne!(faults(""), []);
    assert_ne!(faults(&export[..export.len() - 1]), []);
    // An earlier export is whole; a head kept from later says what it lacks.
    let earlier = export_of(&rows[..8]);
    assert_eq!(faults(&earlier), []);
    let kept = check(&earlier, Some(KEY), Some(end.clone()), &verify);
    assert_eq!(kept.faults, [Fault::Truncated { last: 8, signed: ROWS }]);
    assert_eq!(check(&export, Some(KEY), Some(end), &verify).faults, []);
}

#[test]
fn only_the_hubs_own_word_counts() {
    let rows = rows();
    let stranger = Key([8; 32]);
    let other = Head::seal(rows[4].tip(), 1, (Purpose::Periodic, String::new()), stranger, |b| signed_by(&stranger, b));
    assert_eq!(found(&rows, &[other]).faults, [Fault::Stranger { seq: 5, key: stranger }]);
    let mut forged = head(rows[4].tip(), Purpose::Periodic, "");
    forged.at_ms += 1;
    assert_eq!(found(&rows, &[forged]).faults, [Fault::Signature { seq: 5 }]);
    // A head that ended another export does not end this one.
    let opening = Opening::new("project mine", Tip::default());
    let export = export_of(&rows).replacen("project mine", "project your", 1);
    assert!(matches!(faults(&export)[..], [Fault::Line { .. }]), "{:?}", faults(&export));
    assert_eq!(opening.from, 1);
}

#[test]
fn an_export_may_begin_later() {
    let rows = rows();
    let opening = Opening::new("all", rows[6].tip());
    let mut export = text::opening(&opening);
    rows[7..].iter().for_each(|row| export += &text::row(row));
    export += &text::head(&head(rows[11].tip(), Purpose::Export, &opening.sealed()));
    assert_eq!(faults(&export), []);
    for (seq, holds) in [(3, true), (7, true), (10, true)] {
        let kept = head(rows[seq - 1].tip(), Purpose::Asked, "");
        assert_eq!(check(&export, Some(KEY), Some(kept), &verify).faults.is_empty(), holds);
        let mut lied = head(Tip { seq: seq as u64, link: Digest::of(b"other") }, Purpose::Asked, "");
        lied.at_ms = 9;
        lied.signature = Signature(sign(lied.statement().as_bytes()));
        assert_eq!(check(&export, Some(KEY), Some(lied), &verify).faults.is_empty(), seq < 7);
    }
}

#[test]
fn texts_are_bounded_and_printable() {
    let entry = Entry { target: "é".repeat(TEXT_BYTES_MAX), note: "a\nb\u{7f}".into(), ..Entry::default() }.bounded();
    assert_eq!((entry.target.len(), entry.note.as_str()), (TEXT_BYTES_MAX, "ab"));
}
