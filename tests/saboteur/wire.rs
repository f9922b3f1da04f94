//! Lies in how an answer is sent: whose it is, how often, whether it is one at all.

use anyhow::Result;
use forge_contract::LeaseId;
use forge_contract::report::Report;
use forge_protocol::message::ReportHead;
use forge_protocol::{Identity, frame};
use forge_tests::dice::Dice;

use crate::manner::Manner;

/// The key of somebody who is no agent.
const SOMEBODY: [u8; 32] = [0xb0; 32];
/// Bytes of noise.
const NOISE_BYTES: usize = 300;

/// What goes onto a lease's stream.
pub fn bytes(manner: Manner, identity: &Identity, mut report: Report) -> Result<Vec<u8>> {
    match manner {
        Manner::Garbage => return Ok(noise(report.lease.0)),
        // Numbers rise by one over all agents: the one before is most likely another's.
        Manner::Stolen => report.lease = LeaseId(report.lease.0.saturating_sub(1)),
        _ => {}
    }
    let somebody = Identity::from_seed(&SOMEBODY);
    let signer = if manner == Manner::Signature { &somebody } else { identity };
    let signature = signer.sign_statement(&report.statement());
    let (head, fragment) = ReportHead::split(report, signature);
    let mut bytes = frame::encode(&head)?;
    bytes.extend_from_slice(&fragment);
    Ok(if manner == Manner::Twice { bytes.repeat(2) } else { bytes })
}

/// Bytes that mean nothing.
pub fn noise(seed: u64) -> Vec<u8> {
    let mut dice = Dice::new(seed);
    std::iter::repeat_with(|| dice.draw().to_le_bytes()).flatten().take(NOISE_BYTES).collect()
}
