//! Objects by content.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use forge_contract::Digest;
use forge_protocol::{FetchError, Partial};
use tokio::io::{AsyncRead, ReadBuf};

use crate::pair::{Hub, soon};

const MIB: usize = 1 << 20;

fn bytes(count: usize) -> Vec<u8> {
    (0..=250).flat_map(|byte| [byte; 7]).cycle().take(count).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_mebibytes_arrive_whole_from_memory_and_from_a_reader() {
    let (hub, link, _) = Hub::with_agent().await;
    let object = bytes(20 * MIB + 1);
    let digest = Digest::of(&object);
    hub.shelf.put(digest, object.clone());
    let fetcher = link.fetcher();
    assert!(soon(fetcher.fetch(&digest, 21 << 20)).await.unwrap() == object);
    let shared = Arc::new(object.clone());
    hub.shelf.put_reader(digest, object.len() as u64, move || io::Cursor::new(shared.to_vec()));
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
        hub.shelf.put(digest, corrupt);
        assert_eq!(soon(fetcher.fetch(&digest, 1 << 30)).await, Err(FetchError::Corrupt { digest }));
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

#[tokio::test]
async fn a_reader_that_ends_early_is_no_object() {
    let (hub, link, _) = Hub::with_agent().await;
    let object = bytes(MIB);
    let digest = Digest::of(&object);
    hub.shelf.put_reader(digest, object.len() as u64, || io::Cursor::new(bytes(MIB / 2)));
    let found = soon(link.fetcher().fetch(&digest, 1 << 30)).await;
    assert!(matches!(found, Err(FetchError::Interrupted { .. })), "{found:?}");
}

/// Fails after `left` bytes.
struct Failing {
    inner: io::Cursor<Vec<u8>>,
    left: usize,
}

impl AsyncRead for Failing {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(Err(io::Error::other("the disk is gone")));
        }
        let mut chunk = vec![0; self.left.min(buf.remaining()).min(64 << 10)];
        let mut part = ReadBuf::new(&mut chunk);
        let read = Pin::new(&mut self.inner).poll_read(cx, &mut part);
        buf.put_slice(part.filled());
        let filled = part.filled().len();
        self.left -= filled;
        read
    }
}

#[tokio::test]
async fn a_transfer_that_broke_off_goes_on_in_another_session() {
    let (mut hub, link, _) = Hub::with_agent().await;
    let object = bytes(4 * MIB);
    let digest = Digest::of(&object);
    let (shared, opened) = (Arc::new(object.clone()), Arc::new(AtomicUsize::new(0)));
    let times = opened.clone();
    hub.shelf.put_reader(digest, object.len() as u64, move || {
        let first = times.fetch_add(1, Ordering::SeqCst) == 0;
        Failing { inner: io::Cursor::new(shared.to_vec()), left: if first { 3 * MIB } else { usize::MAX } }
    });
    let mut partial = Partial::new(digest, 1 << 30);
    let broken = soon(link.fetcher().resume(&mut partial)).await;
    assert!(matches!(broken, Err(FetchError::Interrupted { .. })), "{broken:?}");
    link.close().await;
    hub.event().await;
    let identity = hub.enrolled(9);
    let link = hub.dial(&identity, None).await.unwrap();
    assert!(soon(link.fetcher().resume(&mut partial)).await.unwrap() == object);
    assert_eq!(opened.load(Ordering::SeqCst), 2);
}
