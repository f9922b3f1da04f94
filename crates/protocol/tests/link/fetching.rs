//! Objects by content, whole and in pieces.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use forge_contract::Digest;
use forge_protocol::message::{Fetch, Have, SPANS_MAX};
use forge_protocol::proof::{GROUP_BYTES, Group, ReadAt, Span, Tree};
use forge_protocol::{ContentBody, ContentData, FetchError, Fetcher, Partial};

use crate::pair::{Hub, soon};
use crate::raw;

const MIB: usize = 1 << 20;
/// A group, bytes.
const G: usize = 16 << 10;

fn bytes(count: usize) -> Vec<u8> {
    (0..=250).flat_map(|byte| [byte; 7]).cycle().take(count).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_mebibytes_arrive_whole_from_memory_and_from_a_store() {
    let (hub, link, _) = Hub::with_agent().await;
    let object = bytes(20 * MIB + 1);
    let digest = Digest::of(&object);
    hub.shelf.put(digest, object.clone());
    let fetcher = link.fetcher();
    assert!(soon(fetcher.fetch(&digest, 21 << 20)).await.unwrap() == object);
    let shared = object.clone();
    hub.shelf.put_stored(Tree::of(&object), move || shared.clone());
    assert!(soon(fetcher.fetch(&digest, 21 << 20)).await.unwrap() == object);
}

#[tokio::test]
async fn what_is_not_the_object_does_not_surface() {
    let (hub, link, _) = Hub::with_agent().await;
    let fetcher = link.fetcher();
    let object = bytes(3 * MIB);
    let digest = Digest::of(&object);
    assert_eq!(soon(fetcher.fetch(&digest, 1 << 30)).await, Err(FetchError::Missing { digest }));

    let mut flipped = object.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for corrupt in [flipped, object[..object.len() - 1].to_vec(), [&object[..], b"x"].concat(), vec![]] {
        // With a tree of its own, so that nothing fits.
        hub.shelf.put(digest, corrupt);
        assert_eq!(soon(fetcher.fetch(&digest, 1 << 30)).await, Err(FetchError::Corrupt { digest, offset: 0 }));
    }
    hub.shelf.put(digest, object.clone());
    let total = object.len() as u64;
    let refused = FetchError::TooLarge { digest, bytes: total, bytes_max: total - 1 };
    assert_eq!(soon(fetcher.fetch(&digest, total - 1)).await, Err(refused));
    assert!(soon(fetcher.fetch(&digest, total)).await.unwrap() == object);
    let empty = Digest::of(b"");
    hub.shelf.put(empty, vec![]);
    assert_eq!(soon(fetcher.fetch(&empty, 0)).await.unwrap(), b"");
}

/// Pieces of an object, and how the transfer ended.
async fn pieces(fetcher: &Fetcher, tree: &Tree, spans: &[Span]) -> (Vec<Group>, Result<(), FetchError>) {
    let mut found = Vec::new();
    let digest = tree.digest();
    let ended = soon(fetcher.pieces(&digest, tree.bytes(), spans.to_vec(), |group| found.push(group))).await;
    (found, ended)
}

#[tokio::test]
async fn a_range_at_any_offset_is_the_slice() {
    let (hub, link, _) = Hub::with_agent().await;
    let fetcher = link.fetcher();
    let object = bytes(3 * MIB + 12_345);
    let tree = Tree::of(&object);
    let shared = object.clone();
    hub.shelf.put_stored(tree.clone(), move || shared.clone());
    let last = object.len() - 1;
    for (offset, count) in [(0, 1), (1, G), (G - 1, 2), (G, G), (777_777, 300_001), (last, 1), (last - 70_000, 70_001)]
    {
        let (found, ended) = pieces(&fetcher, &tree, &[Span::covering(offset as u64, count as u64)]).await;
        ended.unwrap();
        let first = usize::try_from(found[0].offset).unwrap();
        let joined: Vec<u8> = found.iter().flat_map(|group| group.bytes.to_vec()).collect();
        assert!(joined[offset - first..][..count] == object[offset..][..count], "{count} bytes at {offset}");
        assert!(joined.len() < count + 2 * G, "no more than the groups it lies in");
    }
    // Several at once, in any order: they come from left to right, each once.
    let spans = [Span { first: 150, count: 2 }, Span { first: 3, count: 1 }, Span { first: 151, count: 3 }];
    let (found, ended) = pieces(&fetcher, &tree, &spans).await;
    ended.unwrap();
    let places: Vec<u64> = found.iter().map(|group| group.offset / GROUP_BYTES).collect();
    assert_eq!(places, [3, 150, 151, 152, 153]);
    for group in found {
        assert!(object[usize::try_from(group.offset).unwrap()..].starts_with(&group.bytes));
    }
}

#[tokio::test]
async fn a_wrong_byte_is_refused_where_it_lies_and_what_came_before_is_kept() {
    let (hub, link, _) = Hub::with_agent().await;
    let fetcher = link.fetcher();
    let object = bytes(2 * MIB);
    let tree = Tree::of(&object);
    let digest = tree.digest();
    let mut flipped = object.clone();
    flipped[40 * G + 5] ^= 1;
    hub.shelf.put_stored(tree.clone(), move || flipped.clone());
    let (found, ended) = pieces(&fetcher, &tree, &[Span { first: 30, count: 60 }]).await;
    assert_eq!(ended, Err(FetchError::Corrupt { digest, offset: 40 * GROUP_BYTES }));
    assert_eq!(found.len(), 10);
    // A range without the byte is good.
    assert!(pieces(&fetcher, &tree, &[Span { first: 41, count: 60 }]).await.1.is_ok());
    let whole = soon(fetcher.fetch(&digest, 1 << 30)).await;
    assert_eq!(whole, Err(FetchError::Corrupt { digest, offset: 40 * GROUP_BYTES }));
}

#[tokio::test]
async fn a_wrong_proof_a_wrong_range_and_a_wrong_size_are_refused() {
    let (hub, link, _) = Hub::with_agent().await;
    let fetcher = link.fetcher();
    let object = bytes(2 * MIB);
    let (tree, digest) = (Tree::of(&object), Digest::of(&object));
    let span = Span { first: 64, count: 4 };

    // Right bytes, and hashes of an object that differs elsewhere: they do not lead to the digest.
    let mut elsewhere = object.clone();
    elsewhere[0] ^= 1;
    let (wrong, right) = (Arc::new(Tree::of(&elsewhere)), object.clone());
    hub.shelf
        .put_body(digest, move || ContentBody { data: ContentData::Bytes(right.clone().into()), tree: wrong.clone() });
    let (found, ended) = pieces(&fetcher, &tree, &[span]).await;
    assert!(found.is_empty() && matches!(ended, Err(FetchError::Corrupt { .. })), "{ended:?}");

    // Right hashes, and the bytes of the range behind.
    let shifted = object[G..].to_vec();
    hub.shelf.put_stored(tree.clone(), move || shifted.clone());
    let (found, ended) = pieces(&fetcher, &tree, &[span]).await;
    assert_eq!((found, ended), (vec![], Err(FetchError::Corrupt { digest, offset: 64 * GROUP_BYTES })));

    // Another object, all of it in order.
    let longer = Arc::new([&object[..], b"x"].concat());
    hub.shelf.put(digest, longer.to_vec());
    let (_, ended) = pieces(&fetcher, &tree, &[span]).await;
    let expected = object.len() as u64;
    assert_eq!(ended, Err(FetchError::Size { digest, bytes: expected + 1, expected }));
}

#[tokio::test]
async fn too_little_is_a_transfer_that_broke_off() {
    let (hub, link, _) = Hub::with_agent().await;
    let object = bytes(MIB);
    let tree = Tree::of(&object);
    let digest = hub.shelf.put_stored(tree.clone(), || bytes(MIB / 2));
    let found = soon(link.fetcher().fetch(&digest, 1 << 30)).await;
    assert!(matches!(found, Err(FetchError::Interrupted { .. })), "{found:?}");
    let (found, ended) = pieces(&link.fetcher(), &tree, &[Span { first: 20, count: 30 }]).await;
    assert!(matches!(ended, Err(FetchError::Interrupted { .. })), "{ended:?}");
    assert!(found.len() < 30);
}

#[tokio::test]
async fn a_fetch_of_nothing_or_of_too_many_pieces_is_not_served() {
    let mut hub = Hub::new();
    hub.enrolled(9);
    let agent = raw::Agent::join(hub.address, [9; 32]).await;
    hub.joined().await;
    let object = bytes(2 * G);
    let digest = Digest::of(&object);
    hub.shelf.put(digest, object);
    let one = Span { first: 0, count: 1 };
    for (spans, served) in [
        (vec![one], true),
        (vec![], false),
        (vec![Span { first: 2, count: 9 }], false),
        (vec![Span { first: 0, count: 0 }], false),
        (vec![one; SPANS_MAX], true),
    ] {
        let (mut send, mut recv) = agent.connection.open_bi().await.unwrap();
        raw::say(&mut send, &Fetch { digest, spans }).await;
        send.finish().unwrap();
        if served {
            assert_eq!(raw::hear::<Have>(&mut recv).await, Have { bytes: 2 * GROUP_BYTES });
            // A pair of hashes and a group.
            assert_eq!(soon(recv.read_to_end(MIB)).await.unwrap().len(), 64 + G);
        } else {
            assert!(!matches!(soon(recv.read_to_end(MIB)).await, Ok(bytes) if !bytes.is_empty()));
        }
    }
}

/// Fails behind `left` bytes.
struct Failing {
    inner: Arc<Vec<u8>>,
    left: usize,
}

impl ReadAt for Failing {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        if usize::try_from(offset).unwrap() + buffer.len() > self.left {
            return Err(io::Error::other("the disk is gone"));
        }
        self.inner.read_at(offset, buffer)
    }
}

#[tokio::test]
async fn a_transfer_that_broke_off_goes_on_in_another_session() {
    let (mut hub, link, _) = Hub::with_agent().await;
    let object = bytes(4 * MIB);
    let (shared, opened) = (Arc::new(object.clone()), Arc::new(AtomicUsize::new(0)));
    let times = opened.clone();
    let digest = hub.shelf.put_stored(Tree::of(&object), move || {
        let first = times.fetch_add(1, Ordering::SeqCst) == 0;
        Failing { inner: shared.clone(), left: if first { 3 * MIB } else { usize::MAX } }
    });
    let mut partial = Partial::new(digest, 1 << 30);
    let broken = soon(link.fetcher().resume(&mut partial)).await;
    assert!(matches!(broken, Err(FetchError::Interrupted { .. })), "{broken:?}");
    let before = partial.bytes().len();
    assert!(object.starts_with(partial.bytes()));
    link.close().await;
    hub.event().await;
    let identity = hub.enrolled(9);
    let link = hub.dial(&identity, None).await.unwrap();
    // What came before does not come again: it is wrong now, and nobody notices.
    let mut late = object.clone();
    late[..before].fill(0);
    hub.shelf.put_stored(Tree::of(&object), move || late.clone());
    assert!(soon(link.fetcher().resume(&mut partial)).await.unwrap() == object);
    assert_eq!(opened.load(Ordering::SeqCst), 1);
}
