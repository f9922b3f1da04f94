//! Compiled code on disk: an optimisation of this machine for itself, never a way in.

use std::io::{self, Read as _, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use cap_std::fs::{Dir, OpenOptions};
use forge_contract::Digest;

use crate::code::CODE_BYTES_MAX;

const MAGIC: &[u8; 8] = b"fpcode1\n";
const HEADER_BYTES: usize = 40;

/// Code by (engine profile, component), in one directory of one's own.
///
/// Entries are bound to their key, processor architecture and operating system by a digest over all of them, so a torn,
/// swapped or renamed file is a miss. It does not defend against someone who can write the directory: they own the
/// agent's files, and could as well replace its program.
#[derive(Debug)]
pub struct Cache {
    dir: Dir,
    temporary: AtomicU64,
    bytes_max: u64,
}

impl Cache {
    /// A cache in this directory, which nobody else may write.
    #[must_use]
    pub fn open(dir: Dir) -> Self {
        Self { dir, temporary: AtomicU64::new(0), bytes_max: u64::MAX }
    }

    /// The same, of at most this many bytes: what was used least recently makes room.
    #[must_use]
    pub fn bounded(mut self, bytes_max: u64) -> Self {
        self.bytes_max = bytes_max;
        self
    }

    /// The code of a component; `None` where there is none, or what is there is damaged (it is then removed).
    ///
    /// # Errors
    /// The file system's, other than that there is no such file.
    pub fn get(&self, profile: &Digest, component: &Digest) -> io::Result<Option<Vec<u8>>> {
        let name = name(profile, component);
        let file = match self.dir.open(&name) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // When it was used last; a file system that keeps no times evicts in another order, no more.
        let file = file.into_std();
        let _ = file.set_modified(SystemTime::now());
        let size_max = (CODE_BYTES_MAX + HEADER_BYTES) as u64;
        let mut bytes = Vec::new();
        if file.metadata()?.len() <= size_max {
            file.take(size_max).read_to_end(&mut bytes)?;
        }
        match code_of(bytes, profile, component) {
            Some(code) => Ok(Some(code)),
            None => {
                self.remove(profile, component)?;
                Ok(None)
            }
        }
    }

    /// Keeps the code of a component, unless it alone exceeds the cache. A reader sees all of it or none.
    ///
    /// # Errors
    /// The file system's.
    pub fn put(&self, profile: &Digest, component: &Digest, code: &[u8]) -> io::Result<()> {
        if (code.len() + HEADER_BYTES) as u64 > self.bytes_max {
            // It would put out everything else, and then itself.
            return self.remove(profile, component);
        }
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        let temporary = format!("new-{}-{number}", std::process::id());
        let written = self.write(&temporary, profile, component, code);
        let placed = written.and_then(|()| self.dir.rename(&temporary, &self.dir, name(profile, component)));
        if placed.is_err() {
            let _ = self.dir.remove_file(&temporary);
        }
        placed?;
        self.evict()
    }

    /// Removes what was used least recently, and what an interrupted write left, until the rest fits.
    fn evict(&self) -> io::Result<()> {
        if self.bytes_max == u64::MAX {
            return Ok(());
        }
        let (mut entries, mut total) = (Vec::new(), 0u64);
        for entry in self.dir.entries()? {
            let entry = entry?;
            // One that is gone meanwhile takes no room.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_file() {
                let used = metadata.modified().map_or(SystemTime::UNIX_EPOCH, cap_std::time::SystemTime::into_std);
                total = total.saturating_add(metadata.len());
                entries.push((used, entry.file_name(), metadata.len()));
            }
        }
        entries.sort();
        for (_, name, bytes) in entries {
            if total <= self.bytes_max {
                break;
            }
            self.dir.remove_file(name)?;
            total = total.saturating_sub(bytes);
        }
        Ok(())
    }

    /// Forgets the code of a component: for code that the engine refuses.
    ///
    /// # Errors
    /// The file system's, other than that there is no such file.
    pub fn remove(&self, profile: &Digest, component: &Digest) -> io::Result<()> {
        match self.dir.remove_file(name(profile, component)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn write(&self, name: &str, profile: &Digest, component: &Digest, code: &[u8]) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        let mut file = self.dir.open_with(name, &options)?;
        file.write_all(MAGIC)?;
        file.write_all(seal(profile, component, code).as_bytes())?;
        file.write_all(code)?;
        let file = file.into_std();
        // By the clock that `get` uses: the file system's own is coarser, so that a new entry could look old.
        let _ = file.set_modified(SystemTime::now());
        file.sync_all()
    }
}

/// The code in an entry's bytes, if the entry is whole and of this key.
fn code_of(mut bytes: Vec<u8>, profile: &Digest, component: &Digest) -> Option<Vec<u8>> {
    let code = bytes.get(HEADER_BYTES..)?;
    let whole = bytes.get(..8)? == MAGIC && bytes.get(8..HEADER_BYTES)? == seal(profile, component, code).as_bytes();
    whole.then(|| bytes.split_off(HEADER_BYTES))
}

fn seal(profile: &Digest, component: &Digest, code: &[u8]) -> Digest {
    let mut bytes = Vec::with_capacity(192);
    bytes.extend_from_slice(profile.as_bytes());
    bytes.extend_from_slice(component.as_bytes());
    bytes.extend_from_slice(Digest::of(code).as_bytes());
    bytes.extend_from_slice(machine().as_bytes());
    Digest::tagged("forgepool v1 cached code", &bytes)
}

fn name(profile: &Digest, component: &Digest) -> String {
    format!("{component}.{}.{}.code", profile.short(), machine())
}

fn machine() -> String {
    format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let place = tempfile::tempdir().unwrap();
        let dir = Dir::open_ambient_dir(place.path(), cap_std::ambient_authority()).unwrap();
        (place, Cache::open(dir))
    }

    #[test]
    fn what_was_put_comes_back_and_nothing_else_does() {
        let (_place, cache) = cache();
        let (profile, other) = (Digest::of(b"profile"), Digest::of(b"other"));
        let component = Digest::of(b"component");
        assert_eq!(cache.get(&profile, &component).unwrap(), None);
        cache.put(&profile, &component, b"code").unwrap();
        assert_eq!(cache.get(&profile, &component).unwrap().unwrap(), b"code");
        assert_eq!(cache.get(&other, &component).unwrap(), None);
        assert_eq!(cache.get(&profile, &other).unwrap(), None);
        cache.remove(&profile, &component).unwrap();
        assert_eq!(cache.get(&profile, &component).unwrap(), None);
    }

    #[test]
    fn the_least_recently_used_make_room() {
        let (place, cache) = cache();
        let cache = cache.bounded(3 * (100 + HEADER_BYTES as u64));
        let profile = Digest::of(b"profile");
        let component = |number: u8| Digest::of(&[number]);
        let age = |number: u8, seconds: u64| {
            let file = std::fs::File::open(place.path().join(name(&profile, &component(number)))).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).unwrap();
        };
        for number in 0..3 {
            cache.put(&profile, &component(number), &[number; 100]).unwrap();
            age(number, u64::from(number));
        }
        // Read, so no longer the oldest.
        assert!(cache.get(&profile, &component(0)).unwrap().is_some());
        cache.put(&profile, &component(3), &[3; 100]).unwrap();
        let kept: Vec<bool> = (0..4).map(|n| cache.get(&profile, &component(n)).unwrap().is_some()).collect();
        assert_eq!(kept, [true, false, true, true]);
        // One that is larger than the whole cache stays out of it.
        cache.put(&profile, &component(9), &[9; 1000]).unwrap();
        assert!(cache.get(&profile, &component(9)).unwrap().is_none());
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 3);
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_a_miss() {
        let (place, cache) = cache();
        let (profile, component) = (Digest::of(b"profile"), Digest::of(b"component"));
        cache.put(&profile, &component, b"some code").unwrap();
        let path = place.path().join(name(&profile, &component));
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            std::fs::write(&path, &changed).unwrap();
            assert_eq!(cache.get(&profile, &component).unwrap(), None, "byte {at}");
            assert!(!path.exists());
            std::fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(cache.get(&profile, &component).unwrap(), None, "cut at {at}");
        }
        std::fs::write(&path, &whole).unwrap();
        assert!(cache.get(&profile, &component).unwrap().is_some());
    }

    #[test]
    fn an_entry_of_another_component_under_this_name_is_a_miss() {
        let (place, cache) = cache();
        let (profile, a, b) = (Digest::of(b"profile"), Digest::of(b"a"), Digest::of(b"b"));
        cache.put(&profile, &a, b"code of a").unwrap();
        std::fs::rename(place.path().join(name(&profile, &a)), place.path().join(name(&profile, &b))).unwrap();
        assert_eq!(cache.get(&profile, &b).unwrap(), None);
    }
}
