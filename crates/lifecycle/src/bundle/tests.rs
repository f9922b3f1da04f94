#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
use proptest::prelude::*;

use super::*;
use crate::artifact::Artifact;

/// A signature of nothing secret: enough to see that every bit of it counts.
fn sign(message: &[u8]) -> [u8; 64] {
    let half = *Digest::tagged("a test's signature", message).as_bytes();
    [half, half].concat().try_into().unwrap()
}

fn verify(key: &Key, message: &[u8], signature: &Signature) -> bool {
    *key == Key([3; 32]) && signature.0 == sign(message)
}

fn artifacts(contents: &[Vec<u8>]) -> Vec<Artifact> {
    let artifact =
        |(at, content): (usize, &Vec<u8>)| Artifact::new(format!("leaf{at:03}"), "text/plain", content.clone());
    contents.iter().enumerate().map(artifact).collect()
}

fn file(artifacts: &[Artifact], has: impl Fn(&Entry) -> bool) -> Vec<u8> {
    let entries = artifacts.iter().map(|artifact| artifact.entry.clone()).collect();
    let index = Index::seal(JobId::new(5, 7), entries, Key([3; 32]), sign).unwrap();
    let mut bytes = index.head(&has);
    for artifact in artifacts.iter().filter(|artifact| has(&artifact.entry)) {
        bytes.extend_from_slice(&artifact.content);
    }
    bytes
}

/// What is said of a file: `None` where nothing is wrong with it, else what is named.
fn fault(bytes: &[u8]) -> Option<String> {
    let bundle = match decode(bytes) {
        Ok(bundle) => bundle,
        Err(error) => return Some(error.to_string()),
    };
    if !bundle.index.is_signed(&verify) {
        return Some("signature".into());
    }
    bundle.changed().first().map(|entry| entry.name.clone())
}

/// Offset of the first content, and the leaf each byte from there on belongs to.
fn owners(artifacts: &[Artifact], bytes: &[u8]) -> (usize, Vec<String>) {
    let owners: Vec<String> =
        artifacts.iter().flat_map(|a| std::iter::repeat_n(a.entry.name.clone(), a.content.len())).collect();
    (bytes.len() - owners.len(), owners)
}

#[test]
fn every_flipped_bit_is_found_and_the_leaf_it_hits_is_named() {
    let artifacts = artifacts(&[b"first".to_vec(), Vec::new(), b"second leaf".to_vec(), vec![0; 40]]);
    let bytes = file(&artifacts, |_| true);
    assert_eq!(fault(&bytes), None);
    let (start, owners) = owners(&artifacts, &bytes);
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            let found = fault(&changed).unwrap_or_else(|| panic!("bit {bit} of byte {at} was changed and not found"));
            if at >= start {
                assert_eq!(found, owners[at - start], "byte {at}");
            }
        }
    }
}

#[test]
fn every_cut_and_every_addition_is_found() {
    let bytes = file(&artifacts(&[b"one".to_vec(), b"two".to_vec()]), |_| true);
    for end in 0..bytes.len() {
        assert!(fault(&bytes[..end]).is_some(), "cut after {end} bytes");
    }
    assert_eq!(decode(&[&bytes[..], b"x"].concat()).unwrap_err(), BundleError::Trailing { extra: 1 });
}

#[test]
fn a_slim_bundle_has_the_same_root_and_its_own_flips_are_found() {
    let artifacts = artifacts(&[b"kept".to_vec(), b"left".to_vec(), b"kept too".to_vec()]);
    let (full, slim) = (file(&artifacts, |_| true), file(&artifacts, |entry| entry.name != "leaf001"));
    let (a, b) = (decode(&full).unwrap(), decode(&slim).unwrap());
    assert_eq!(a.index, b.index);
    assert_eq!((b.content("leaf000"), b.content("leaf001")), (Some(&b"kept"[..]), None));
    assert_eq!(fault(&slim), None);
    for at in 0..slim.len() {
        let mut changed = slim.clone();
        changed[at] ^= 0x10;
        assert!(fault(&changed).is_some(), "byte {at}");
    }
}

#[test]
fn the_root_is_pinned() {
    // Another value would make every bundle ever signed unreadable.
    let artifacts = artifacts(&[b"a".to_vec(), b"b".to_vec(), b"c".to_vec()]);
    let entries: Vec<Entry> = artifacts.iter().map(|artifact| artifact.entry.clone()).collect();
    let found = root(1, JobId::new(5, 7), &entries).to_string();
    assert_eq!(found, "744a93feb98d91be152bb775f8f6d8f4bed5582e1a700a9d4d97c873441e9767");
}

#[test]
fn entries_out_of_order_or_twice_are_refused() {
    let entries: Vec<Entry> = artifacts(&[b"a".to_vec(), b"b".to_vec()]).into_iter().map(|a| a.entry).collect();
    let twice = vec![entries[0].clone(), entries[0].clone()];
    let sealed = Index::seal(JobId::new(5, 7), twice, Key([3; 32]), sign);
    assert!(matches!(sealed, Err(BundleError::Entry { at: 1, .. })), "{sealed:?}");
    let mut index = Index::seal(JobId::new(5, 7), entries, Key([3; 32]), sign).unwrap();
    index.leaves.reverse();
    assert!(matches!(Index::read(index.canonical().as_bytes()), Err(BundleError::Entry { at: 1, .. })));
}

proptest! {
    #[test]
    fn a_random_flip_in_a_large_bundle_is_found_and_named(
        seed in any::<u64>(), sizes in proptest::collection::vec(0usize..40_000, 1..12), place in any::<u64>(), bit in 0u32..8
    ) {
        let fill = |(at, size): (usize, &usize)| (0..*size).map(|n| (seed.wrapping_mul(n as u64 + at as u64) >> 7).to_le_bytes()[0]).collect();
        let artifacts = artifacts(&sizes.iter().enumerate().map(fill).collect::<Vec<Vec<u8>>>());
        let mut bytes = file(&artifacts, |_| true);
        prop_assert_eq!(fault(&bytes), None);
        let (start, owners) = owners(&artifacts, &bytes);
        let at = usize::try_from(place % bytes.len() as u64).unwrap();
        bytes[at] ^= 1 << bit;
        let found = fault(&bytes);
        prop_assert!(found.is_some(), "byte {at}");
        if at >= start {
            prop_assert_eq!(found.as_deref(), Some(owners[at - start].as_str()));
        }
    }

    #[test]
    fn foreign_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), led in any::<bool>()) {
        if led {
            bytes.splice(0..0, MAGIC.iter().copied());
        }
        prop_assert!(decode(&bytes).is_err());
    }
}
