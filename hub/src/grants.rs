//! What each session may fetch: what the leases it was given run and read, and nothing else.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use forge_contract::Digest;
use forge_contract::duty::Duty;
use forge_contract::task::Task;

/// Digests remembered for a session; the oldest make room. An agent fetches what a lease needs when it gets it.
const DIGESTS_MAX: usize = 4096;

/// What each session may fetch.
#[derive(Debug, Default)]
pub struct Grants {
    by_session: Mutex<HashMap<u64, Granted>>,
}

#[derive(Debug, Default)]
struct Granted {
    all: HashSet<Digest>,
    order: VecDeque<Digest>,
}

impl Granted {
    fn add(&mut self, digest: Digest) {
        if !self.all.insert(digest) {
            return;
        }
        self.order.push_back(digest);
        if self.order.len() > DIGESTS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.all.remove(&oldest);
        }
    }
}

impl Grants {
    fn sessions(&self) -> MutexGuard<'_, HashMap<u64, Granted>> {
        self.by_session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session is given a lease: it may fetch the component, the inputs, and what it is to check.
    pub fn lease(&self, session: u64, task: &Task) {
        let mut sessions = self.sessions();
        let granted = sessions.entry(session).or_default();
        granted.add(task.component);
        task.inputs.iter().for_each(|input| granted.add(input.digest));
        if let Duty::Check(examination) = &task.duty {
            granted.add(examination.found.digest);
        }
    }

    /// Whether a session was given a lease that needs this.
    #[must_use]
    pub fn allows(&self, session: u64, digest: &Digest) -> bool {
        self.sessions().get(&session).is_some_and(|granted| granted.all.contains(digest))
    }

    /// A session is over.
    pub fn end(&self, session: u64) {
        self.sessions().remove(&session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(n: usize) -> Digest {
        Digest::of(&n.to_le_bytes())
    }

    #[test]
    fn the_latest_are_remembered() {
        let mut granted = Granted::default();
        (0..DIGESTS_MAX).for_each(|n| granted.add(number(n)));
        granted.add(number(0));
        assert!(granted.all.contains(&number(0)), "once more is no more");
        granted.add(number(DIGESTS_MAX));
        assert!(!granted.all.contains(&number(0)) && granted.all.contains(&number(1)));
        assert_eq!((granted.all.len(), granted.order.len()), (DIGESTS_MAX, DIGESTS_MAX));
    }

    #[test]
    fn a_session_that_is_over_may_fetch_nothing() {
        let grants = Grants::default();
        grants.sessions().entry(7).or_default().add(number(1));
        assert!(grants.allows(7, &number(1)) && !grants.allows(7, &number(2)) && !grants.allows(8, &number(1)));
        grants.end(7);
        assert!(!grants.allows(7, &number(1)));
    }
}
