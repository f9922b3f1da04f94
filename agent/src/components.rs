//! Kernels and inputs by content: fetched once, verified, compiled in a child, kept. Large inputs come piece by piece:
//! [`crate::stock`].
//!
//! Several shards may want the same thing at once; one task gets it for all of them, and goes on when the shard that
//! asked first is taken back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use forge_contract::duty::{Duty, Examination};
use forge_contract::limits::{COMPONENT_BYTES_MAX, INPUT_BYTES_MAX};
use forge_contract::task::Task;
use forge_contract::{Digest, Failure, FailureCode};
use forge_sandbox::cache::Cache;
use forge_sandbox::{Compiler, Inputs, engine_profile};
use tokio::sync::{Semaphore, watch};

use crate::stock::Stock;
use crate::transfer::Source;

/// Bytes of code and inputs kept in memory.
const KEPT_BYTES_MAX: usize = 512 << 20;
/// Things kept, refusals of the compiler included.
const ENTRIES_MAX: usize = 256;
/// Largest input that a worker is given whole, bytes; of a larger one it is given what it reads.
const WHOLE_BYTES_MAX: u64 = 1 << 20;
/// Components compiled at once: each may take gigabytes.
const COMPILATIONS_MAX: usize = 1;

type Found = Result<Bytes, Failure>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Want {
    /// Native code of a component.
    Code(Digest),
    /// An input's bytes.
    Input(Digest),
}

#[derive(Default)]
struct Shelf {
    entries: HashMap<Want, Entry>,
    clock: u64,
}

struct Entry {
    found: watch::Receiver<Option<Found>>,
    used: u64,
}

/// What this agent has at hand.
pub(crate) struct Components {
    shelf: Mutex<Shelf>,
    stock: Arc<Stock>,
    workshop: Arc<Workshop>,
}

/// How things are got.
struct Workshop {
    source: Source,
    compiler: Compiler,
    compilations: Semaphore,
    cache: Cache,
}

impl Components {
    pub fn new(source: Source, compiler: Compiler, cache: Cache) -> Self {
        let stock = Stock::new(source.clone());
        let workshop = Workshop { source, compiler, compilations: Semaphore::new(COMPILATIONS_MAX), cache };
        Self { shelf: Mutex::default(), stock, workshop: Arc::new(workshop) }
    }

    /// The native code of a task's component.
    pub async fn code(&self, task: &Task) -> Found {
        let (component, bytes) = (task.component, task.component_bytes);
        self.get(Want::Code(component), move |workshop| async move { workshop.code(component, bytes).await }).await
    }

    /// The inputs a task declares, in its order, and the fragment to check where that is its duty. Of large inputs
    /// nothing is fetched yet.
    pub async fn inputs(&self, task: &Task) -> Result<Inputs, Failure> {
        let mut inputs = Inputs::none();
        for input in &task.inputs {
            match input.bytes {
                bytes if bytes <= WHOLE_BYTES_MAX => inputs.add(input, self.input(input.digest, bytes).await?),
                bytes if bytes <= INPUT_BYTES_MAX => inputs.supply(input, self.stock.lot(input.digest, bytes)),
                bytes => {
                    let detail = format!("the input '{}' has {bytes} bytes, more than {INPUT_BYTES_MAX}", input.name);
                    return Err(Failure::new(FailureCode::AgentFetch, detail));
                }
            }
        }
        if let Duty::Check(Examination { found, .. }) = &task.duty {
            inputs.set_found(found, self.input(found.digest, found.bytes).await?);
        }
        Ok(inputs)
    }

    async fn input(&self, digest: Digest, bytes: u64) -> Found {
        self.get(Want::Input(digest), move |workshop| async move { workshop.input(digest, bytes).await }).await
    }

    /// Forgets code that the engine refused, in memory and on disk.
    pub fn spoil(&self, component: &Digest) {
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.entries.remove(&Want::Code(*component));
        if let Err(error) = self.workshop.cache.remove(&engine_profile(), component) {
            tracing::warn!(%component, %error, "refused code stays in the cache");
        }
    }

    async fn get<F, G>(&self, want: Want, make: F) -> Found
    where
        F: FnOnce(Arc<Workshop>) -> G,
        G: Future<Output = Found> + Send + 'static,
    {
        let mut found = self.entry(want, make);
        let outcome = found.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
        let outcome =
            outcome.unwrap_or_else(|| Err(Failure::new(FailureCode::AgentFetch, "the transfer was given up")));
        // A refusal by the compiler is final; what the machine or the network did may be different next time.
        if outcome.as_ref().is_err_and(|failure| failure.code != FailureCode::AgentCompile) {
            self.shelf.lock().unwrap_or_else(PoisonError::into_inner).entries.remove(&want);
        }
        outcome
    }

    fn entry<F, G>(&self, want: Want, make: F) -> watch::Receiver<Option<Found>>
    where
        F: FnOnce(Arc<Workshop>) -> G,
        G: Future<Output = Found> + Send + 'static,
    {
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.clock += 1;
        let now = shelf.clock;
        if let Some(entry) = shelf.entries.get_mut(&want) {
            entry.used = now;
            return entry.found.clone();
        }
        shelf.make_room();
        let (tell, found) = watch::channel(None);
        shelf.entries.insert(want, Entry { found: found.clone(), used: now });
        let making = make(self.workshop.clone());
        tokio::spawn(async move { tell.send_replace(Some(making.await)) });
        found
    }
}

impl Shelf {
    /// Drops what was not used for longest while there is too much. What a shard still uses, it holds itself; what is
    /// still on its way stays.
    fn make_room(&mut self) {
        loop {
            let settled = || self.entries.iter().filter_map(|(want, entry)| Some((want, entry, entry.bytes()?)));
            let kept: usize = settled().map(|(.., bytes)| bytes).sum();
            if kept <= KEPT_BYTES_MAX && self.entries.len() < ENTRIES_MAX {
                return;
            }
            let Some(oldest) = settled().min_by_key(|(_, entry, _)| entry.used).map(|(want, ..)| *want) else { return };
            self.entries.remove(&oldest);
        }
    }
}

impl Entry {
    /// Bytes it keeps in memory; `None` while it is on its way.
    fn bytes(&self) -> Option<usize> {
        self.found.borrow().as_ref().map(|found| found.as_ref().map_or(0, Bytes::len))
    }
}

impl Workshop {
    async fn code(&self, component: Digest, bytes: u64) -> Found {
        let profile = engine_profile();
        match self.cache.get(&profile, &component) {
            Ok(Some(code)) => return Ok(code.into()),
            Ok(None) => {}
            Err(error) => tracing::warn!(%component, %error, "the code cache cannot be read"),
        }
        let component_bytes = self.source.whole(component, bytes.min(COMPONENT_BYTES_MAX)).await?;
        let code = {
            let _turn = self.compilations.acquire().await;
            self.compiler.compile(&component_bytes).await?
        };
        tracing::info!(%component, code_bytes = code.len(), "compiled a component");
        if let Err(error) = self.cache.put(&profile, &component, &code) {
            tracing::warn!(%component, %error, "the code cache cannot be written");
        }
        Ok(code.into())
    }

    async fn input(&self, digest: Digest, bytes: u64) -> Found {
        self.source.whole(digest, bytes.min(INPUT_BYTES_MAX)).await.map(Bytes::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(used: u64, found: Option<Found>) -> Entry {
        Entry { found: watch::channel(found).1, used }
    }

    fn want(number: u64) -> Want {
        Want::Code(Digest::of(&number.to_le_bytes()))
    }

    #[test]
    fn the_oldest_make_room_and_what_is_on_its_way_stays() {
        let mut shelf = Shelf::default();
        let half = Bytes::from(vec![0; KEPT_BYTES_MAX / 2 + 1]);
        shelf.entries.insert(want(0), entry(0, None));
        for used in 1..4 {
            shelf.entries.insert(want(used), entry(used, Some(Ok(half.clone()))));
        }
        shelf.make_room();
        let kept =
            |shelf: &Shelf| (0..4).filter(|number| shelf.entries.contains_key(&want(*number))).collect::<Vec<_>>();
        assert_eq!(kept(&shelf), [0, 3]);
    }

    #[test]
    fn refusals_are_remembered_up_to_a_number() {
        let mut shelf = Shelf::default();
        for number in 0..2000 {
            shelf.make_room();
            let refusal = Failure::new(FailureCode::AgentCompile, "no");
            shelf.entries.insert(want(number), entry(number, Some(Err(refusal))));
        }
        assert_eq!(shelf.entries.len(), ENTRIES_MAX);
        assert!(shelf.entries.contains_key(&want(1999)));
    }
}
