//! Lies in time: slow, late, silent.

use std::time::{Duration, Instant};

use crate::manner::Manner;

/// How long after its end a lease that was not taken back is answered late.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// Waits as the manner demands. False where there is to be no answer at all.
///
/// `taken_back` completes when the hub takes the lease back.
pub async fn wait(
    manner: Manner,
    (began, least, times): (Instant, Duration, u32),
    deadline: Duration,
    taken_back: impl Future<Output = ()>,
) -> bool {
    match manner {
        Manner::Silent => {
            taken_back.await;
            false
        }
        Manner::Late => {
            let _ = tokio::time::timeout(deadline + AFTERWARDS, taken_back).await;
            true
        }
        _ => {
            let slower = if manner == Manner::Slow { times } else { 1 };
            let until = began + least.max(began.elapsed()) * slower;
            // Over where the time comes first.
            tokio::time::timeout_at(until.into(), taken_back).await.is_err()
        }
    }
}
