//! How long shards took so far, in few numbers: when one counts as slow.

/// Buckets of an octave.
const PER_OCTAVE: u32 = 4;
/// Buckets: every 64-bit number has one.
const BUCKETS: usize = 256;
/// Answers until the tail says something; before, twice the mean does.
const ANSWERS_MIN: u64 = 20;

/// Times from grant to answer, by quarters of octaves.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    answers: u64,
    total_ms: u64,
    buckets: Box<[u32; BUCKETS]>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { answers: 0, total_ms: 0, buckets: Box::new([0; BUCKETS]) }
    }
}

impl Pace {
    /// Notes an answer.
    pub fn add(&mut self, took_ms: u64) {
        self.answers += 1;
        self.total_ms = self.total_ms.saturating_add(took_ms);
        if let Some(count) = self.buckets.get_mut(bucket(took_ms)) {
            *count = count.saturating_add(1);
        }
    }

    /// What 95 of 100 answers stayed within, milliseconds; twice the mean while there are few. `None` before the first.
    pub fn slow_ms(&self) -> Option<u64> {
        let mean = self.total_ms.checked_div(self.answers)?;
        if self.answers < ANSWERS_MIN {
            return Some(mean.saturating_mul(2));
        }
        let wanted = self.answers - self.answers / 20;
        let mut seen = 0;
        let at = self.buckets.iter().position(|count| {
            seen += u64::from(*count);
            seen >= wanted
        });
        at.map(end)
    }
}

fn bucket(ms: u64) -> usize {
    let ms = ms.max(1);
    let octave = ms.ilog2();
    let quarter = ((u128::from(ms) * u128::from(PER_OCTAVE)) >> octave) - u128::from(PER_OCTAVE);
    usize::try_from(u128::from(octave * PER_OCTAVE) + quarter).unwrap_or(usize::MAX)
}

/// The first whole number beyond a bucket.
fn end(bucket: usize) -> u64 {
    let bucket = u128::try_from(bucket).unwrap_or(u128::MAX);
    let (octave, quarter) = (bucket / u128::from(PER_OCTAVE), bucket % u128::from(PER_OCTAVE));
    let end = ((u128::from(PER_OCTAVE) + quarter + 1) << octave.min(100)).div_ceil(u128::from(PER_OCTAVE));
    u64::try_from(end).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_time_lies_below_the_end_of_its_bucket_and_not_below_that_of_the_one_before() {
        for ms in (1..5_000).chain([u64::MAX / 3, u64::MAX - 1]) {
            let at = bucket(ms);
            assert!(ms < end(at), "{ms} in {at}");
            assert!(at == 0 || ms >= end(at - 1) || ms < 4, "{ms} in {at}");
        }
        assert_eq!((bucket(0), bucket(u64::MAX)), (0, 255));
    }

    #[test]
    fn few_answers_speak_by_their_mean_and_many_by_their_tail() {
        let mut pace = Pace::default();
        assert_eq!(pace.slow_ms(), None);
        (0..19).for_each(|_| pace.add(100));
        assert_eq!(pace.slow_ms(), Some(200));
        // One in twenty is slow: the other nineteen say what is usual.
        for _ in 0..5 {
            pace.add(10_000);
            (0..19).for_each(|_| pace.add(100));
        }
        let slow = pace.slow_ms().unwrap();
        assert!((100..=125).contains(&slow), "{slow}");
        (0..30).for_each(|_| pace.add(10_000));
        assert!(pace.slow_ms().unwrap() > 10_000);
    }
}
