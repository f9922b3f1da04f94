//! How long to wait before the next attempt: twice as long each time, and by chance, so that agents which lost their
//! hub together do not come back together.

use std::time::Duration;

/// Longest wait before the first attempt after a loss.
const FIRST: Duration = Duration::from_millis(100);
/// Longest wait of all.
const LONGEST: Duration = Duration::from_secs(30);
/// Patience with one attempt: short at first, since a hub that restarts is soon there.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most patience with one attempt.
const PATIENCE_MAX: Duration = Duration::from_secs(10);

/// The state of trying again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// A hub took the agent in: halfway to a start-over. A hub that is restarted often is soon back; one that takes in
    /// and breaks off in a loop is still met ever more slowly while it is away.
    pub fn ease(&mut self) {
        self.failures /= 2;
    }

    /// Starts over: the last session was a good one.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// How long the next attempt may take.
    pub fn patience(&self) -> Duration {
        grown(PATIENCE, self.failures, PATIENCE_MAX)
    }

    /// The wait before the next attempt. `chance` is uniform over all 32-bit numbers.
    pub fn wait(&mut self, chance: u32) -> Duration {
        let longest = grown(FIRST, self.failures, LONGEST);
        self.failures = self.failures.saturating_add(1);
        // At least a tenth: a chance near zero must not make a tight loop.
        let share = 0.1 + 0.9 * f64::from(chance) / f64::from(u32::MAX);
        longest.mul_f64(share)
    }
}

fn grown(first: Duration, times: u32, most: Duration) -> Duration {
    first.saturating_mul(1u32.checked_shl(times).unwrap_or(u32::MAX)).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_a_bound_and_start_over() {
        let mut backoff = Backoff::default();
        let longest: Vec<u128> = (0..10).map(|_| backoff.wait(u32::MAX).as_millis()).collect();
        assert_eq!(longest, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000]);
        assert_eq!(backoff.patience(), PATIENCE_MAX);
        for _ in 0..100 {
            assert!(backoff.wait(0) >= LONGEST / 10 && backoff.wait(u32::MAX) <= LONGEST);
        }
        backoff.failures = 7;
        backoff.ease();
        assert_eq!(backoff.wait(u32::MAX).as_millis(), 800);
        backoff.reset();
        assert_eq!(backoff.wait(0), Duration::from_millis(10));
        assert_eq!(backoff.patience(), PATIENCE * 2);
    }
}
