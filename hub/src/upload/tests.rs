#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
use super::*;
use bytes::Bytes;
use futures_util::StreamExt as _;

const LIMIT: u64 = 64 << 20;

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

fn declared(content: &[u8], offset: u64) -> Declared {
    Declared { digest: Digest::of(content), bytes: content.len() as u64, offset }
}

/// A body of these pieces whose connection then breaks, or not.
fn streamed(pieces: &[&[u8]], breaks: bool) -> Body {
    let mut items: Vec<Result<Bytes, std::io::Error>> =
        pieces.iter().map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    if breaks {
        items.push(Err(std::io::Error::other("cut")));
    }
    Body::from_stream(futures_util::stream::iter(items))
}

async fn whole(uploads: &Uploads, declared: Declared, body: Body) -> Vec<u8> {
    match uploads.receive("p", &declared, LIMIT, body).await.unwrap() {
        Received::Whole(path) => {
            let bytes = std::fs::read(&path).unwrap();
            std::fs::remove_file(path).unwrap();
            bytes
        }
        partial => panic!("{partial:?}"),
    }
}

fn files(folder: &Path) -> usize {
    let folders = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    folders.map(|folder| std::fs::read_dir(folder).unwrap().count()).sum()
}

#[tokio::test]
async fn a_cut_upload_goes_on_where_it_broke_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let content = content(3_000_001);
    let cut = content.len() * 99 / 100;
    for restart in [false, true] {
        let mut uploads = Uploads::open(folder.path()).unwrap();
        let body = streamed(&[&content[..1_500_000], &content[1_500_000..cut]], true);
        let error = uploads.receive("p", &declared(&content, 0), LIMIT, body).await.unwrap_err();
        assert!(matches!(error, UploadError::Cut { offset } if offset == cut as u64), "{error}");
        if restart {
            uploads = Uploads::open(folder.path()).unwrap();
        }
        let there = uploads.offset("p", &Digest::of(&content)).await;
        assert_eq!(there, Some((cut as u64, content.len() as u64)));
        assert_eq!(uploads.offset("another", &Digest::of(&content)).await, None);
        let wrong = uploads.receive("p", &declared(&content, 7), LIMIT, Body::empty()).await.unwrap_err();
        assert!(matches!(wrong, UploadError::Offset { given: 7, expected } if expected == cut as u64), "{wrong}");
        let rest = streamed(&[&content[cut..]], false);
        assert!(whole(&uploads, declared(&content, cut as u64), rest).await == content);
        assert_eq!(files(folder.path()), 0);
    }
}

#[tokio::test]
async fn pieces_one_request_each_give_the_whole_and_offset_zero_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = Uploads::open(folder.path()).unwrap();
    let content = content(10_000);
    let part = |range: std::ops::Range<usize>| Body::from(content[range].to_vec());
    for _ in 0..2 {
        let given = uploads.receive("p", &declared(&content, 0), LIMIT, part(0..4_000)).await.unwrap();
        assert_eq!(given, Received::Partial { offset: 4_000 });
    }
    assert!(whole(&uploads, declared(&content, 4_000), part(4_000..10_000)).await == content);
    assert!(whole(&uploads, declared(b"", 0), Body::empty()).await.is_empty());
    // A prefix declared with another size is another upload.
    uploads.receive("p", &declared(&content, 0), LIMIT, part(0..4_000)).await.unwrap();
    let other = Declared { bytes: 9_000, offset: 4_000, ..declared(&content, 0) };
    let error = uploads.receive("p", &other, LIMIT, part(4_000..9_000)).await.unwrap_err();
    assert!(matches!(error, UploadError::Offset { expected: 0, .. }), "{error}");
}

#[tokio::test]
async fn what_is_not_as_declared_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = Uploads::open(folder.path()).unwrap();
    let content = content(100_000);
    let mut other = content.clone();
    other[99_999] ^= 1;
    let given = uploads.receive("p", &declared(&content, 0), LIMIT, Body::from(other.clone())).await.unwrap_err();
    let (right, wrong) = (Digest::of(&content), Digest::of(&other));
    assert!(matches!(given, UploadError::Digest { declared, found } if declared == right && found == wrong));
    let long = streamed(&[&content, b"x"], false);
    let given = uploads.receive("p", &declared(&content, 0), LIMIT, long).await.unwrap_err();
    assert!(matches!(given, UploadError::TooLong { bytes: 100_000 }), "{given}");
    let given = uploads.receive("p", &declared(&content, 0), 99_999, Body::from(content.clone())).await.unwrap_err();
    assert!(matches!(given, UploadError::TooLarge { bytes: 100_000, limit: 99_999 }), "{given}");
    assert_eq!(uploads.offset("p", &right).await, None);
    assert_eq!(files(folder.path()), 0);
}

#[tokio::test]
async fn a_known_length_that_is_too_long_harms_no_prefix() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = Uploads::open(folder.path()).unwrap();
    let content = content(1_000);
    uploads.receive("p", &declared(&content, 0), LIMIT, Body::from(content[..600].to_vec())).await.unwrap();
    let long = Body::from(content[..401].to_vec());
    let given = uploads.receive("p", &declared(&content, 600), LIMIT, long).await.unwrap_err();
    assert!(matches!(given, UploadError::TooLong { .. }), "{given}");
    assert_eq!(uploads.offset("p", &Digest::of(&content)).await, Some((600, 1_000)));
    let rest = Body::from(content[600..].to_vec());
    assert!(whole(&uploads, declared(&content, 600), rest).await == content);
}

#[tokio::test]
async fn one_writer_at_a_time_and_a_caller_that_leaves_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = Uploads::open(folder.path()).unwrap();
    let content = content(10_000);
    let (feed, fed) = futures_channel();
    let slow = tokio::spawn({
        let (uploads, declared) = (uploads.clone(), declared(&content, 0));
        async move { uploads.receive("p", &declared, LIMIT, fed).await }
    });
    feed.send(Ok(Bytes::copy_from_slice(&content[..6_000]))).unwrap();
    while uploads.shelf.desk().busy.is_empty() {
        tokio::task::yield_now().await;
    }
    let given = uploads.receive("p", &declared(&content, 0), LIMIT, Body::empty()).await.unwrap_err();
    assert!(matches!(given, UploadError::Busy { .. }), "{given}");
    // Another project's upload of the same content is its own.
    assert!(uploads.receive("q", &declared(&content, 0), LIMIT, Body::empty()).await.is_ok());
    slow.abort();
    drop(feed);
    while !uploads.shelf.desk().busy.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(uploads.offset("p", &Digest::of(&content)).await, Some((6_000, 10_000)));
}

type Feed = tokio::sync::mpsc::UnboundedSender<Result<Bytes, std::io::Error>>;

fn futures_channel() -> (Feed, Body) {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let stream = futures_util::stream::poll_fn(move |context| receiver.poll_recv(context));
    (sender, Body::from_stream(stream))
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_is_given_up_and_keeps_its_prefix() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = Uploads::open(folder.path()).unwrap().patient(Duration::from_secs(60));
    let content = content(10_000);
    let first = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::copy_from_slice(&content[..10]))]);
    let never = Body::from_stream(first.chain(futures_util::stream::pending()));
    let given = uploads.receive("p", &declared(&content, 0), LIMIT, never).await.unwrap_err();
    assert!(matches!(given, UploadError::Slow { offset: 10, ms: 60_000 }), "{given}");
    assert_eq!(uploads.offset("p", &Digest::of(&content)).await, Some((10, 10_000)));
}

#[tokio::test]
async fn the_old_and_the_many_make_room() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = Uploads::open(folder.path()).unwrap();
    for number in 0..PARTIALS_MAX + 9 {
        let content = content(1_000 + number);
        uploads.receive("p", &declared(&content, 0), LIMIT, Body::from(content[..9].to_vec())).await.unwrap();
    }
    // The last one came after the sweep of its own request.
    assert!(files(folder.path()) <= PARTIALS_MAX + 1);
    uploads.sweep();
    assert_eq!(files(folder.path()), PARTIALS_MAX);
    let later = SystemTime::now() + PARTIAL_AGE_MAX + Duration::from_secs(1);
    uploads.shelf.sweep(&uploads.shelf.root.join(project_key("p").to_string()), later);
    assert_eq!(files(folder.path()), 0);
}

#[tokio::test]
async fn what_a_crash_left_complete_is_removed_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = Uploads::open(folder.path()).unwrap();
    let content = content(10);
    let given = uploads.receive("p", &declared(&content, 0), LIMIT, Body::from(content.clone())).await.unwrap();
    assert!(matches!(given, Received::Whole(_)));
    drop(Uploads::open(folder.path()).unwrap());
    assert_eq!(files(folder.path()), 0);
}
