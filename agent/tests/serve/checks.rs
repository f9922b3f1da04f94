//! Leases that ask for a check of what another agent found.

use forge_contract::duty::{Challenge, Duty, Examination, FoundRef};
use forge_contract::fragment::{Fragment, Part};
use forge_contract::limits::UnitLimits;
use forge_contract::manifest::{PartKind, PartSpec};
use forge_contract::report::{Finding, Outcome};
use forge_contract::task::{Cut, InputRef, Task};
use forge_contract::{Digest, FailureCode, JobId};

use crate::hub::{Hub, noop, task};
use crate::process::Agent;

/// Rows and columns of every matrix.
const SIDE: usize = 8;

/// A square matrix in a `.npy` file, which the hub then has.
fn matrix(hub: &Hub, name: &str, number: impl Fn(usize) -> f64) -> InputRef {
    let text = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({SIDE}, {SIDE}), }}");
    let mut bytes = b"\x93NUMPY\x01\0\x76\0".to_vec();
    bytes.extend(format!("{text:<117}\n").bytes());
    (0..SIDE * SIDE).for_each(|cell| bytes.extend(number(cell).to_le_bytes()));
    let reference = InputRef { name: name.into(), digest: Digest::of(&bytes), bytes: bytes.len() as u64 };
    hub.record.put(reference.digest, bytes);
    reference
}

/// One tile of a product.
fn product(hub: &Hub) -> Task {
    let inputs = vec![
        matrix(hub, "a", |cell| 1.0 / (cell as f64 + 0.7)),
        matrix(hub, "b", |cell| (cell as f64 * 1.3) % 7.0 - 3.0),
    ];
    let [a, b] = [0, 1].map(|index: usize| inputs[index].digest);
    Task {
        job: JobId::from_bits(3),
        profile: "dgemm".into(),
        stage: "multiply".into(),
        args: format!(r#"{{"a":"{a}","alpha":1,"b":"{b}","beta":0,"k":8,"m":8,"n":8}}"#),
        cut: Cut::Tiles { rows: 8, columns: 8, tile_rows: 512, tile_columns: 512 },
        unit_count: 1,
        limits: UnitLimits { fuel: 1_000_000_000, memory_bytes: 16 << 20, output_bytes: 4096 },
        parts: vec![PartSpec { name: "c".into(), kind: PartKind::Tile, counts_items: false, shown: true, unit: None }],
        inputs,
        ..task(hub, include_bytes!("../../../workloads/dist/gemm@1.wasm").to_vec())
    }
}

/// The same task, to check these bytes.
fn check(task: &Task, found: &[u8]) -> Task {
    let found = FoundRef { digest: Digest::of(found), bytes: found.len() as u64 };
    Task { duty: Duty::Check(Examination { found, challenge: Challenge([9; 32]) }), ..task.clone() }
}

#[tokio::test]
async fn what_another_agent_found_is_fetched_and_checked() {
    let mut hub = Hub::new();
    let _agent = Agent::start(&hub);
    hub.joined().await;
    let product = product(&hub);
    hub.grant(&product);
    let completed = hub.report().await.outcome.completed().unwrap();

    let honest = check(&product, &completed.fragment);
    hub.record.put(Digest::of(&completed.fragment), completed.fragment.clone());
    hub.grant(&honest);
    let report = hub.report().await;
    assert_eq!(report.task, honest.key_digest());
    assert_ne!(report.task, product.key_digest());
    let Outcome::Checked(checked) = report.outcome else { panic!("{report:?}") };
    let [verdict] = checked.units.as_slice() else { panic!("{checked:?}") };
    assert!(matches!(verdict.finding, Finding::Sound { error } if error < 1e-5), "{verdict:?}");
    assert!(verdict.fuel > 0);

    let mut forged = Fragment::decode(&completed.fragment).unwrap();
    let Part::Tiles(tiles) = &mut forged.parts[0].part else { panic!() };
    tiles[0].values[8 * 13 + 6] ^= 8;
    let forged = forged.encode();
    hub.record.put(Digest::of(&forged), forged.clone());
    hub.grant(&check(&product, &forged));
    let Outcome::Checked(checked) = hub.report().await.outcome else { panic!() };
    let Finding::Wrong { reason } = &checked.units[0].finding else { panic!("{checked:?}") };
    assert!(reason.starts_with("cell (1, 5) is "), "{reason}");
}

#[tokio::test]
async fn a_check_that_cannot_be_made_fails_its_lease_alone() {
    let mut hub = Hub::new();
    let _agent = Agent::start(&hub);
    hub.joined().await;
    let product = product(&hub);
    hub.grant(&check(&product, b"nobody has this"));
    assert_eq!(hub.failure().await.code, FailureCode::AgentFetch);
    // A kernel without checks.
    let noop = noop(&hub);
    hub.grant(&noop);
    let completed = hub.report().await.outcome.completed().unwrap();
    hub.record.put(Digest::of(&completed.fragment), completed.fragment.clone());
    hub.grant(&check(&noop, &completed.fragment));
    assert_eq!(hub.failure().await.code, FailureCode::AgentProtocol);
    hub.grant(&noop);
    assert!(matches!(hub.report().await.outcome, Outcome::Completed(_)));
}
