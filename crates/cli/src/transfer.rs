//! Files to and from a hub: by digest, in one go or in several, with progress.

use std::fs::File;
use std::io::{IsTerminal as _, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use forge_contract::Digest;
use futures_util::StreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::client::{Client, ClientError};
use crate::{number, screen};

/// Bytes read from a file at a time.
const CHUNK_BYTES: usize = 256 << 10;
/// Attempts without a byte of progress before a transfer is given up.
const ATTEMPTS_MAX: u32 = 5;
/// Pause before the next attempt; doubles with each.
const PAUSE: Duration = Duration::from_millis(200);
/// Smaller transfers show no progress.
const SHOWN_BYTES_MIN: u64 = 8 << 20;
/// Where there is no terminal, a line each time at least this share is new: 1/8.
const PLAIN_STEPS: u64 = 8;

/// A file's content address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// BLAKE3 of the bytes.
    pub digest: Digest,
    /// Size, bytes.
    pub bytes: u64,
}

/// Whether an upload was needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The bytes went over the line, or what was missing of them did.
    Now,
    /// The project had this content.
    Before,
}

/// How far a transfer is: a bar on a terminal, lines elsewhere, nothing for small ones.
struct Progress {
    bar: Option<ProgressBar>,
    what: String,
    total: u64,
    told: u64,
    quiet: bool,
}

impl Progress {
    fn new(what: String, total: u64, quiet: bool) -> Self {
        let mut progress = Self { bar: None, what, total: 0, told: 0, quiet };
        progress.of(total);
        progress
    }

    /// There is so much of it, which may be known late.
    fn of(&mut self, total: u64) {
        self.total = total;
        let (shown, what) = (!self.quiet && total >= SHOWN_BYTES_MIN, self.what.clone());
        if !shown || self.bar.is_some() || !std::io::stderr().is_terminal() {
            return;
        }
        self.bar = Some({
            let template = "  {bar:20.cyan/black} {bytes}/{total_bytes} · {bytes_per_sec} · {wide_msg}";
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(total).with_style(style.progress_chars("█▉▊▋▌▍▎▏ ")).with_message(what)
        });
    }

    fn at(&mut self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
            return;
        }
        let shown = !self.quiet && self.total >= SHOWN_BYTES_MIN;
        if shown && bytes.saturating_sub(self.told).saturating_mul(PLAIN_STEPS) >= self.total {
            self.told = bytes;
            let (done, total) = (number::bytes(bytes), number::bytes(self.total));
            screen::remark(&format!("  {done} of {total} · {}\n", self.what));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Hashes a file without holding it in memory.
///
/// # Errors
/// It cannot be read.
pub fn content_of(path: &Path) -> Result<Content> {
    let mut file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    if file.metadata().is_ok_and(|about| about.is_dir()) {
        bail!("{} is a directory: name files", path.display());
    }
    let mut hasher = blake3::Hasher::new();
    let bytes = hash_into(&mut hasher, &mut file).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Content { digest: Digest::from_bytes(*hasher.finalize().as_bytes()), bytes })
}

fn hash_into(hasher: &mut blake3::Hasher, file: &mut File) -> std::io::Result<u64> {
    let (mut chunk, mut total) = (vec![0; CHUNK_BYTES], 0);
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(total),
            Ok(read) => {
                hasher.update(chunk.get(..read).unwrap_or_default());
                total += read as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Sends a file's content where the project does not have it, going on where an earlier attempt broke off.
///
/// # Errors
/// The hub's refusal, a connection that stays broken, a file that cannot be read.
pub async fn put(client: &Client, path: &Path, content: Content, quiet: bool) -> Result<Sent> {
    let blob = format!("/api/v0/blobs/{}", content.digest);
    if client.exists(&blob).await? {
        return Ok(Sent::Before);
    }
    let mut progress = Progress::new(path.display().to_string(), content.bytes, quiet);
    let (mut attempts, mut furthest) = (0, 0);
    loop {
        let offset = upload_offset(client, content).await?;
        if offset > furthest {
            (attempts, furthest) = (0, offset);
        }
        let error = match send(client, &blob, path, content, offset, &mut progress).await? {
            Ok(status) if status == StatusCode::ACCEPTED => None,
            Ok(_) => return Ok(Sent::Now),
            Err(error) if is_passing(&error) => Some(error),
            Err(error) => return Err(error.into()),
        };
        attempts += 1;
        if attempts >= ATTEMPTS_MAX {
            let error = error.map_or_else(|| anyhow::anyhow!("the file is shorter than it was"), Into::into);
            return Err(error.context(format!("{} was not sent; the same command goes on", path.display())));
        }
        tokio::time::sleep(PAUSE * (1 << attempts)).await;
    }
}

/// Whether the next attempt may do better.
fn is_passing(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } => true,
        ClientError::Refused(problem) => {
            ["request.offset", "request.in_progress", "request.timeout"].contains(&problem.code.as_str())
        }
        ClientError::Unexpected { .. } | ClientError::Trust(_) => false,
    }
}

async fn upload_offset(client: &Client, content: Content) -> Result<u64, ClientError> {
    match client.read(&format!("/api/v0/uploads/{}", content.digest)).await {
        Ok(state) => {
            let number = |name: &str| state.get(name).and_then(Value::as_u64);
            Ok(number("offset").filter(|_| number("bytes") == Some(content.bytes)).unwrap_or(0))
        }
        // Nothing of it is there; or the connection is broken, which the upload itself will meet.
        Err(ClientError::Refused(problem)) if problem.status == 404 => Ok(0),
        Err(ClientError::Unreachable { .. }) => Ok(0),
        Err(error) => Err(error),
    }
}

/// One request: the file from `offset` on.
async fn send(
    client: &Client,
    blob: &str,
    path: &Path,
    content: Content,
    offset: u64,
    progress: &mut Progress,
) -> Result<Result<StatusCode, ClientError>> {
    let unread = || format!("cannot read {}", path.display());
    let mut file = File::open(path).with_context(unread)?;
    file.seek(SeekFrom::Start(offset)).with_context(unread)?;
    let missing = content.bytes.saturating_sub(offset);
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let pieces = futures_util::stream::try_unfold((file, offset), move |(mut file, at)| {
        let tell = tell.clone();
        async move {
            let left = usize::try_from(content.bytes.saturating_sub(at)).unwrap_or(usize::MAX);
            let mut piece = vec![0; CHUNK_BYTES.min(left)];
            // A bounded read of a local file: as quick as handing it to another thread.
            let read = file.read(&mut piece)?;
            piece.truncate(read);
            let at = at + read as u64;
            // Nobody counts any more: the request is over.
            let _ = tell.send(at);
            std::io::Result::Ok((read > 0).then(|| (Bytes::from(piece), (file, at))))
        }
    });
    let request = client
        .request(Method::PUT, &format!("{blob}?bytes={}&offset={offset}", content.bytes))
        .header("content-type", "application/octet-stream")
        .header("content-length", missing)
        .body(reqwest::Body::wrap_stream(pieces));
    let answered = client.answer(request);
    tokio::pin!(answered);
    loop {
        tokio::select! {
            answer = &mut answered => return Ok(answer.map(|(status, _)| status)),
            Some(at) = told.recv() => progress.at(at),
        }
    }
}

/// Fetches content into a file: beside it first, and under its name once the digest is right.
///
/// # Errors
/// The hub's refusal, a connection that stays broken, other bytes than asked for, a file that cannot be written.
pub async fn get(client: &Client, digest: &Digest, path: &Path, quiet: bool) -> Result<u64> {
    let beside = part_of(path, digest)?;
    let unwritten = || format!("cannot write {}", beside.display());
    let mut file =
        File::options().read(true).write(true).create(true).truncate(false).open(&beside).with_context(unwritten)?;
    let mut hasher = blake3::Hasher::new();
    let mut at = hash_into(&mut hasher, &mut file).with_context(unwritten)?;
    let mut progress = Progress::new(path.display().to_string(), 0, quiet);
    let mut attempts = 0;
    loop {
        let before = at;
        match receive(client, digest, &mut file, &mut hasher, &mut at, &mut progress).await {
            Ok(()) => break,
            // The part beside is longer than the content, so it is not a part of it.
            Err(Broken::Refused(ClientError::Refused(problem))) if problem.status == 416 && at > 0 => break,
            Err(Broken::Refused(error)) if !is_passing(&error) => {
                if at == 0 {
                    drop(std::fs::remove_file(&beside));
                }
                return Err(error.into());
            }
            Err(Broken::Write(error)) => return Err(error).with_context(unwritten),
            Err(Broken::Refused(error)) => {
                attempts = if at > before { 1 } else { attempts + 1 };
                if attempts >= ATTEMPTS_MAX {
                    let what = format!("{} was not fetched whole; the same command goes on", path.display());
                    return Err(anyhow::Error::from(error).context(what));
                }
                tokio::time::sleep(PAUSE * (1 << attempts)).await;
            }
        }
    }
    let found = Digest::from_bytes(*hasher.finalize().as_bytes());
    if found != *digest {
        std::fs::remove_file(&beside).with_context(unwritten)?;
        bail!("what came has the digest {found}, asked was {digest}; it was thrown away: try again");
    }
    file.sync_all().with_context(unwritten)?;
    std::fs::rename(&beside, path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(at)
}

fn part_of(path: &Path, digest: &Digest) -> Result<PathBuf> {
    let name = path.file_name().with_context(|| format!("{} names no file", path.display()))?;
    let mut beside = std::ffi::OsString::from(".");
    beside.push(name);
    beside.push(format!(".{}.part", digest.short()));
    Ok(path.with_file_name(beside))
}

enum Broken {
    Refused(ClientError),
    Write(std::io::Error),
}

async fn receive(
    client: &Client,
    digest: &Digest,
    file: &mut File,
    hasher: &mut blake3::Hasher,
    at: &mut u64,
    progress: &mut Progress,
) -> Result<(), Broken> {
    let mut request = client.request(Method::GET, &format!("/api/v0/blobs/{digest}"));
    if *at > 0 {
        request = request.header("range", format!("bytes={at}-"));
    }
    let response = client.send(request).await.map_err(Broken::Refused)?;
    let response = client.refuse_errors(response).await.map_err(Broken::Refused)?;
    if response.status() != StatusCode::PARTIAL_CONTENT && *at > 0 {
        // The whole comes: what is here counts for nothing.
        (*at, *hasher) = (0, blake3::Hasher::new());
        file.set_len(0).map_err(Broken::Write)?;
    }
    file.seek(SeekFrom::Start(*at)).map_err(Broken::Write)?;
    let total = *at + response.content_length().unwrap_or(0);
    progress.of(total);
    let mut body = response.bytes_stream();
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|cause| Broken::Refused(client.unreachable(cause)))?;
        file.write_all(&piece).map_err(Broken::Write)?;
        hasher.update(&piece);
        *at += piece.len() as u64;
        progress.at(*at);
    }
    Ok(())
}
