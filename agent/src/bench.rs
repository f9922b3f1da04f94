//! Seats for workers: at most N shards run at once, each in a caged process that serves one job.
//!
//! A worker that ended a shard keeps its code for the next shard of its job. A seat that turns to another job gets a
//! fresh worker; spares are spawned and caged beforehand, so the change costs no process start.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forge_contract::{Digest, JobId};
use forge_sandbox::{CageLevel, CageReport, Worker, WorkerError};
use tokio::sync::{mpsc, oneshot};

/// How often others of the same job may go before one that waits.
const PASSED_MAX: u32 = 16;
/// Wait between attempts to spawn a worker where the machine refuses.
const SPAWN_PAUSE: Duration = Duration::from_millis(500);

/// Workers that wait to be used: one in the channel and one at its door.
const SPARES: usize = 2;

/// What a worker is bound to: it never sees another job, nor another component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bond {
    pub job: JobId,
    pub component: Digest,
}

/// A worker with its code, waiting for its job's next shard.
#[derive(Debug)]
struct Bound {
    bond: Bond,
    worker: Worker,
}

/// All seats.
pub(crate) struct Bench {
    state: Mutex<State>,
    spares: tokio::sync::Mutex<mpsc::Receiver<Result<Worker, WorkerError>>>,
}

#[derive(Default)]
struct State {
    /// Seats nobody sits on, with the worker that was used there last.
    free: Vec<Option<Bound>>,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    bond: Bond,
    passed: u32,
    seat: oneshot::Sender<Seat>,
}

/// The right to run one shard at a time. Dropped, the seat is free again.
pub(crate) struct Seat {
    bench: Arc<Bench>,
    bound: Option<Bound>,
}

impl Bench {
    /// A bench of `seats` seats and the cage its workers are in. Spawns the first worker, and keeps spares from then on.
    ///
    /// # Errors
    /// Why the first worker could not be spawned or caged.
    pub async fn set_up(
        seats: u32,
        program: PathBuf,
        args: Vec<OsString>,
        level: CageLevel,
    ) -> Result<(Arc<Self>, CageReport), WorkerError> {
        let first = Worker::spawn(&program, &args, level).await?;
        let cage = first.cage().clone();
        let (fill, spares) = mpsc::channel(SPARES - 1);
        tokio::spawn(async move {
            let mut next = Ok(first);
            loop {
                let failed = next.is_err();
                if fill.send(next).await.is_err() {
                    return;
                }
                if failed {
                    tokio::time::sleep(SPAWN_PAUSE).await;
                }
                next = Worker::spawn(&program, &args, level).await;
            }
        });
        let free = (0..seats).map(|_| None).collect();
        let state = Mutex::new(State { free, waiting: VecDeque::new() });
        Ok((Arc::new(Self { state, spares: tokio::sync::Mutex::new(spares) }), cage))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A seat, preferably with a worker of this bond. Cancel-safe: a seat given meanwhile is freed.
    pub async fn seat(self: &Arc<Self>, bond: Bond) -> Seat {
        let waiting = {
            let mut state = self.state();
            match state.free_for(bond) {
                Some(bound) => return Seat { bench: self.clone(), bound },
                None => {
                    let (seat, given) = oneshot::channel();
                    state.waiting.push_back(Waiting { bond, passed: 0, seat });
                    given
                }
            }
        };
        match waiting.await {
            Ok(seat) => seat,
            // The sender is dropped only with the bench, which this call holds.
            Err(_) => core::future::pending().await,
        }
    }

    /// Passes a seat on to the next in line, or frees it.
    fn release(self: &Arc<Self>, bound: Option<Bound>) {
        let next = {
            let mut state = self.state();
            match state.next_for(bound.as_ref().map(|bound| bound.bond)) {
                Some(next) => next,
                None => {
                    state.free.push(bound);
                    return;
                }
            }
        };
        // One that waits no more drops the seat it is sent, which comes here again.
        drop(next.seat.send(Seat { bench: self.clone(), bound }));
    }
}

impl State {
    /// A free seat: with the right worker, else with none, else any.
    fn free_for(&mut self, bond: Bond) -> Option<Option<Bound>> {
        let right = |bound: &Option<Bound>| bound.as_ref().is_some_and(|bound| bound.bond == bond);
        let at = self.free.iter().position(right).or_else(|| self.free.iter().position(Option::is_none));
        let at = at.or_else(|| self.free.len().checked_sub(1))?;
        Some(self.free.swap_remove(at))
    }

    /// Who sits next: the first in line of the worker's bond, unless the first of all was passed too often.
    fn next_for(&mut self, bond: Option<Bond>) -> Option<Waiting> {
        let first = self.waiting.front_mut()?;
        let same = bond.filter(|bond| first.bond != *bond && first.passed < PASSED_MAX);
        first.passed += 1;
        let at = same.and_then(|bond| self.waiting.iter().position(|waiting| waiting.bond == bond));
        self.waiting.remove(at.unwrap_or(0))
    }
}

impl Seat {
    /// A worker of this bond with its code loaded: the one that sits here, else a fresh one. It is the caller's: a
    /// caller that goes away in the middle of a run takes the worker with it.
    ///
    /// # Errors
    /// Why there is none. Spares that died while they waited are passed over.
    pub async fn take(&mut self, bond: Bond, code: &[u8]) -> Result<Worker, WorkerError> {
        // Where the bond is another, the old worker dies here: nothing of its job is left when the next begins.
        if let Some(bound) = self.bound.take().filter(|bound| bound.bond == bond) {
            return Ok(bound.worker);
        }
        let mut dead = 0;
        loop {
            match self.fresh(code).await {
                Err(WorkerError::Ended { .. }) if dead < SPARES => dead += 1,
                outcome => return outcome,
            }
        }
    }

    /// Keeps a worker that ended its run for the next shard of its bond.
    pub fn keep(&mut self, bond: Bond, worker: Worker) {
        self.bound = Some(Bound { bond, worker });
    }

    async fn fresh(&self, code: &[u8]) -> Result<Worker, WorkerError> {
        let spare = self.bench.spares.lock().await.recv().await;
        let mut worker = spare.unwrap_or_else(|| Err(WorkerError::Ended { how: "no more workers".into() }))?;
        worker.load(code).await?;
        Ok(worker)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.bench.release(self.bound.take());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn bond(job: u128) -> Bond {
        Bond { job: JobId::from_bits(job), component: Digest::of(b"component") }
    }

    fn state(jobs: impl IntoIterator<Item = u128>) -> State {
        let waiting = |job| Waiting { bond: bond(job), passed: 0, seat: oneshot::channel().0 };
        State { free: Vec::new(), waiting: jobs.into_iter().map(waiting).collect() }
    }

    fn next(state: &mut State, of: Option<u128>) -> u128 {
        state.next_for(of.map(bond)).unwrap().bond.job.bits()
    }

    #[test]
    fn a_worker_stays_with_its_job_while_others_wait_not_too_long() {
        let mut queue = state([1].into_iter().chain([2; 40]));
        let order: Vec<u128> = (0..18).map(|_| next(&mut queue, Some(2))).collect();
        assert_eq!(order.iter().position(|job| *job == 1), Some(usize::try_from(PASSED_MAX).unwrap()));
        assert_eq!(order.iter().filter(|job| **job == 2).count(), 17);
    }

    #[test]
    fn without_a_worker_of_its_job_the_first_in_line_sits() {
        let mut queue = state([1, 2, 1]);
        assert_eq!(next(&mut queue, None), 1);
        assert_eq!(next(&mut queue, Some(3)), 2);
        assert_eq!(next(&mut queue, Some(1)), 1);
        assert!(queue.next_for(Some(bond(1))).is_none());
    }

    #[test]
    fn free_seats_are_taken_until_none_is_left() {
        let mut state = State { free: vec![None, None], waiting: VecDeque::new() };
        assert!(state.free_for(bond(1)).is_some_and(|bound| bound.is_none()));
        assert!(state.free_for(bond(2)).is_some());
        assert!(state.free_for(bond(3)).is_none());
    }
}
