//! Taking a backup.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use forge_contract::Digest;
use forge_lifecycle::trail::Tip;

use super::manifest::{FileLine, Manifest, Stood};
use super::{BLOBS, BackupError, DATABASE, KEYS, MANIFEST, at, hub_in, restore};
use crate::store::StoreError;
use crate::store::sqlite::Snapshot;

/// Where links to objects are held while they are copied; in the data directory, since links do not leave a file system.
const STAGE: &str = "backup-stage";
/// Held while a backup is taken: two would clear each other's stage.
const LOCK: &str = "backup.lock";
/// Read at once while a file is copied.
const PIECE_BYTES: usize = 1 << 20;

/// A backup that was taken.
#[derive(Clone, Debug)]
pub struct Taken {
    /// What is in it.
    pub manifest: Manifest,
}

/// Takes a backup of a hub's data into a new directory; `linked` shares the files of objects instead of copying them.
///
/// # Errors
/// See [`BackupError`]; nothing is left behind then.
pub async fn take(data: &Path, into: &Path, linked: bool) -> Result<Taken, BackupError> {
    let hub = hub_in(data)?;
    let lock = std::fs::File::options().create(true).truncate(false).write(true).open(hub.join(LOCK));
    let lock = lock.map_err(at(&hub.join(LOCK)))?;
    lock.lock().map_err(at(&hub.join(LOCK)))?;
    let draft = begin(into)?;
    let stage = if linked { draft.join(BLOBS) } else { hub.join(STAGE) };
    // Of an earlier one that was killed.
    clear(&stage)?;
    let filled = fill(&hub, &draft, &stage).await;
    if !linked {
        clear(&stage)?;
    }
    let done = filled.and_then(|manifest| finish(&draft, into).map(|()| manifest));
    if done.is_err() {
        clear(&draft)?;
    }
    Ok(Taken { manifest: done? })
}

/// A private directory beside the one to make.
///
/// # Errors
/// `Io`; `Taken` where there is something already.
pub(super) fn begin(into: &Path) -> Result<PathBuf, BackupError> {
    match std::fs::read_dir(into).map(|mut entries| entries.next().is_some()) {
        Ok(false) => {}
        Ok(true) => return Err(BackupError::Taken { path: into.to_owned() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(at(into)(error)),
    }
    let mut draft = into.as_os_str().to_owned();
    draft.push(".forgepool-partial");
    let draft = PathBuf::from(draft);
    // Of an earlier try that was killed.
    clear(&draft)?;
    make_private(&draft)?;
    Ok(draft)
}

/// Removes a directory and what is in it, if it is there.
///
/// # Errors
/// `Io`.
pub(super) fn clear(directory: &Path) -> Result<(), BackupError> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(at(directory)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn make_private(path: &Path) -> Result<(), BackupError> {
    std::fs::create_dir_all(path).map_err(at(path))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(at(path))?;
    }
    Ok(())
}

/// The draft takes its place.
///
/// # Errors
/// `Io`.
pub(super) fn finish(draft: &Path, into: &Path) -> Result<(), BackupError> {
    std::fs::rename(draft, into).map_err(at(into))?;
    let parent = into.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync(parent)
}

fn sync(directory: &Path) -> Result<(), BackupError> {
    std::fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(at(directory))
}

async fn fill(hub: &Path, draft: &Path, stage: &Path) -> Result<Manifest, BackupError> {
    let linked = stage.starts_with(draft);
    let mut files = Vec::new();
    for name in KEYS.into_iter().filter(|name| hub.join(name).exists()) {
        files.push(copy(&hub.join(name), draft, name)?);
    }
    // Twice: see the module's text. What comes in between is linked after the database, what goes is linked before.
    hold(hub, stage, linked).await?;
    let database = draft.join(DATABASE);
    let live = Snapshot::open(&hub.join(DATABASE)).await?;
    let copied = live.copy_into(&database).await;
    live.close().await;
    copied?;
    let at_ms = crate::clock::unix_ms();
    hold(hub, stage, linked).await?;

    let still = Snapshot::still(&database).await?;
    let told = examine(&still).await;
    still.close().await;
    let (schema, tip, named) = told?;
    restrict(&database)?;
    files.push(line_of(draft, DATABASE)?);
    let (from, to) = (stage.to_owned(), draft.to_owned());
    let objects = tokio::task::spawn_blocking(move || objects(&from, &to, linked)).await;
    let objects = objects.map_err(|_| StoreError::Closed)??;
    let there: BTreeSet<Digest> = objects.iter().map(|line| line.digest).collect();
    if let Some(digest) = named.iter().find(|digest| !there.contains(digest)) {
        return Err(BackupError::Object { digest: digest.to_string() });
    }
    files.extend(objects);
    let manifest = Manifest::new(at_ms, schema, Stood { seq: tip.seq, link: tip.link }, files);
    write(&draft.join(MANIFEST), manifest.text().as_bytes())?;
    sync(draft)?;
    let whole = draft.to_owned();
    tokio::task::spawn_blocking(move || restore::check(&whole)).await.map_err(|_| StoreError::Closed)?
}

/// What a copied database says: its schema, where its audit log stands, the objects it names.
async fn examine(copy: &Snapshot) -> Result<(i64, Tip, BTreeSet<Digest>), BackupError> {
    if let Some(reason) = copy.faults().await?.into_iter().next() {
        return Err(BackupError::Database { reason });
    }
    let tip = if copy.has_trail().await? { copy.trail().trail_tip().await? } else { Tip::default() };
    Ok((copy.schema().await?, tip, copy.named().await?))
}

/// Links every object that is there into the stage.
async fn hold(hub: &Path, stage: &Path, linked: bool) -> Result<(), BackupError> {
    let (from, to) = (hub.join(BLOBS), stage.to_owned());
    let held = tokio::task::spawn_blocking(move || {
        for (path, digest) in stored(&from)? {
            let name = place(&digest);
            let target = to.join(&name);
            if target.exists() {
                continue;
            }
            let parent = target.parent().unwrap_or(&to);
            std::fs::create_dir_all(parent).map_err(at(parent))?;
            match std::fs::hard_link(&path, &target) {
                Ok(()) => {}
                // Collected since it was listed: nothing names it.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) if linked && error.kind() == std::io::ErrorKind::CrossesDevices => {
                    return Err(BackupError::Apart { path: to });
                }
                Err(error) if linked => return Err(at(&target)(error)),
                // A file system without links: its objects are copied here, and again from here.
                Err(_) => {
                    std::fs::copy(&path, &target).map_err(at(&target))?;
                }
            }
        }
        Ok(())
    });
    held.await.map_err(|_| StoreError::Closed)?
}

/// Every object below a directory of blobs, by path; nothing where there is no such directory.
fn stored(blobs: &Path) -> Result<Vec<(PathBuf, Digest)>, BackupError> {
    let mut found = Vec::new();
    let entries = |path: &Path| match std::fs::read_dir(path) {
        Ok(entries) => entries.collect::<Result<Vec<_>, _>>().map_err(at(path)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(at(path)(error)),
    };
    for fan in entries(blobs)? {
        // `tmp` holds what is not written yet.
        if fan.file_name().len() != 2 {
            continue;
        }
        for file in entries(&fan.path())? {
            let digest = file.file_name().to_str().and_then(|name| name.parse::<Digest>().ok());
            found.extend(digest.map(|digest| (file.path(), digest)));
        }
    }
    Ok(found)
}

/// Where an object lies below a directory of blobs.
fn place(digest: &Digest) -> String {
    let text = digest.to_string();
    let fan = text.get(..2).unwrap_or("00");
    format!("{fan}/{text}")
}

/// Copies what is staged, or takes stock of what is linked already; every object must have its digest.
fn objects(stage: &Path, draft: &Path, linked: bool) -> Result<Vec<FileLine>, BackupError> {
    let mut lines = Vec::new();
    for (path, digest) in stored(stage)? {
        let name = format!("{BLOBS}/{}", place(&digest));
        let line = if linked { line_of(draft, &name)? } else { copy(&path, draft, &name)? };
        if line.digest != digest {
            return Err(BackupError::Damaged { path: name });
        }
        lines.push(line);
    }
    Ok(lines)
}

/// Copies a file to its name below `directory`, private and durable.
///
/// # Errors
/// `Io`.
pub(super) fn copy(from: &Path, directory: &Path, name: &str) -> Result<FileLine, BackupError> {
    let to = directory.join(name);
    let parent = to.parent().unwrap_or(directory);
    make_private(parent)?;
    let (mut source, mut target) = (std::fs::File::open(from).map_err(at(from))?, create(&to)?);
    let (mut hasher, mut bytes) = (blake3::Hasher::new(), 0);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = source.read(&mut piece).map_err(at(from))?;
        let Some(part) = piece.get(..read).filter(|part| !part.is_empty()) else { break };
        hasher.update(part);
        target.write_all(part).map_err(at(&to))?;
        bytes += read as u64;
    }
    target.sync_all().map_err(at(&to))?;
    sync(parent)?;
    let digest = Digest::from_bytes(*hasher.finalize().as_bytes());
    Ok(FileLine { path: name.to_owned(), bytes, digest })
}

/// What a file below `directory` is.
///
/// # Errors
/// `Io`.
pub(super) fn line_of(directory: &Path, name: &str) -> Result<FileLine, BackupError> {
    let path = directory.join(name);
    let mut hasher = blake3::Hasher::new();
    let file = std::fs::File::open(&path).map_err(at(&path))?;
    hasher.update_reader(&file).map_err(at(&path))?;
    let digest = Digest::from_bytes(*hasher.finalize().as_bytes());
    Ok(FileLine { path: name.to_owned(), bytes: hasher.count(), digest })
}

fn create(path: &Path) -> Result<std::fs::File, BackupError> {
    let mut options = std::fs::File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(at(path))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), BackupError> {
    let mut file = create(path)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(at(path))
}

/// SQLite makes its files as the mask says.
fn restrict(path: &Path) -> Result<(), BackupError> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(at(path))?;
    }
    Ok(())
}
