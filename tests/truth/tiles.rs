//! The cheap check of gemm@1 in the sandbox: honest tiles pass under every challenge, wrong ones do not.

use std::sync::Arc;

use forge_contract::Digest;
use forge_contract::duty::{Challenge, Duty, Examination, FoundRef};
use forge_contract::fragment::{Fragment, Part, Tile};
use forge_contract::report::{Finding, Outcome, UnitVerdict};
use forge_contract::task::{InputRef, Task};
use forge_sandbox::engine::Backend;
use forge_sandbox::local::{self, LocalKernel};
use forge_sandbox::{Inputs, ShardResult};
use forge_tests::dice::Dice;
use forge_tests::npy::{Matrix, Real};
use serde_json::json;

use crate::dist;

const KERNEL: &str = "gemm@1";

/// What is multiplied: shape, factors, matrices.
struct Product<T> {
    shape: (usize, usize, usize),
    factors: (f64, f64),
    a: Matrix<T>,
    b: Matrix<T>,
    c: Matrix<T>,
}

impl<T: Real> Product<T> {
    fn random(shape: (usize, usize, usize), factors: (f64, f64)) -> Self {
        let (m, n, k) = shape;
        let (a, b, c) = (Matrix::random(1, m, k), Matrix::random(2, k, n), Matrix::random(3, m, n));
        Self { shape, factors, a, b, c }
    }

    /// The same with every number changed.
    fn with(mut self, change: impl Fn(f64) -> f64) -> Self {
        for matrix in [&mut self.a, &mut self.b, &mut self.c] {
            matrix.values.iter_mut().for_each(|value| *value = T::nearest(change(value.double())));
        }
        self
    }
}

/// A unit of a product and what it gives.
struct Unit {
    kernel: Arc<LocalKernel>,
    task: Task,
    inputs: Inputs,
    honest: Fragment,
    /// Fuel of computing it.
    fuel: u64,
}

impl Unit {
    fn of<T: Real>(product: &Product<T>, unit: u64) -> Self {
        let kernel = dist::compiled(KERNEL, Backend::CraneliftSpeed);
        let ((m, n, k), (alpha, beta)) = (product.shape, product.factors);
        let mut files = vec![("a", product.a.file()), ("b", product.b.file())];
        let mut args = json!({"m": m, "n": n, "k": k, "alpha": alpha, "beta": beta});
        if beta != 0.0 {
            files.push(("c", product.c.file()));
        }
        let mut inputs = Inputs::none();
        let mut references = Vec::new();
        for (name, bytes) in files {
            let reference = InputRef { name: name.into(), digest: Digest::of(&bytes), bytes: bytes.len() as u64 };
            args[name] = reference.digest.to_string().into();
            inputs.add(&reference, bytes.into());
            references.push(reference);
        }
        let profile = if T::DESCR == "<f8" { "dgemm" } else { "sgemm" };
        let plan = dist::planned(&dist::contract(KERNEL, profile, &args, "TILES"), &dist::kernel(KERNEL));
        assert!(plan.stages[0].checks);
        let task = Task { first_unit: unit, unit_count: 1, inputs: references, ..dist::task_of(&plan, 0, unit) };
        let run = local::run_unit(&kernel, &task, unit, &inputs).unwrap();
        Self { kernel, task, inputs, honest: run.fragment, fuel: run.fuel }
    }

    fn run(&self, found: &Fragment, challenge: u64) -> ShardResult {
        let bytes = found.encode();
        let found = FoundRef { digest: Digest::of(&bytes), bytes: bytes.len() as u64 };
        let challenge = Challenge(*Digest::of(&challenge.to_le_bytes()).as_bytes());
        let mut inputs = self.inputs.clone();
        inputs.set_found(&found, bytes.into());
        let task = Task { duty: Duty::Check(Examination { found, challenge }), ..self.task.clone() };
        local::run_shard(&self.kernel, &task, &inputs, |_| ())
    }

    fn verdict(&self, found: &Fragment, challenge: u64) -> UnitVerdict {
        match self.run(found, challenge).outcome {
            Outcome::Checked(checked) => checked.units.into_iter().next().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn is_sound(&self, found: &Fragment, challenge: u64) -> bool {
        matches!(self.verdict(found, challenge).finding, Finding::Sound { .. })
    }

    #[track_caller]
    fn assert_sound(&self, challenge: u64) {
        let verdict = self.verdict(&self.honest, challenge);
        assert!(matches!(verdict.finding, Finding::Sound { error } if error <= 1e-6), "{verdict:?}");
    }

    fn numbers<T: Real>(&self) -> Vec<T> {
        T::read(&tile(&self.honest).values)
    }

    /// The honest fragment with other numbers.
    fn forged<T: Real>(&self, change: impl FnOnce(&mut [T])) -> Fragment {
        let mut numbers = self.numbers();
        change(&mut numbers);
        let mut values = Vec::new();
        numbers.iter().for_each(|number| number.write(&mut values));
        self.with_tile(|tile| tile.values = values)
    }

    fn with_tile(&self, change: impl FnOnce(&mut Tile)) -> Fragment {
        let mut found = self.honest.clone();
        let Part::Tiles(tiles) = &mut found.parts[0].part else { panic!() };
        change(&mut tiles[0]);
        found
    }
}

fn tile(fragment: &Fragment) -> &Tile {
    let Part::Tiles(tiles) = &fragment.parts[0].part else { panic!() };
    &tiles[0]
}

const CHANGED: (f64, f64) = (-1.5, 0.3);
const PLAIN: (f64, f64) = (1.0, 0.0);

fn honest_tiles_pass<T: Real>() {
    let shapes = [
        ((1, 1, 1), PLAIN),
        ((5, 6, 1), CHANGED),
        ((33, 7, 300), PLAIN),
        ((64, 61, 1025), CHANGED),
        ((40, 70, 2600), (0.1, 2.5)),
        ((20, 20, 30), (0.0, 2.0)),
        ((20, 20, 30), (0.0, 0.0)),
    ];
    for (shape, factors) in shapes {
        let unit = Unit::of(&Product::<T>::random(shape, factors), 0);
        (0..8).for_each(|challenge| unit.assert_sound(challenge));
    }
    // Four tiles, three of them cut by an edge.
    let product = Product::<T>::random((530, 515, 70), CHANGED);
    for unit in 0..4 {
        let unit = Unit::of(&product, unit);
        (0..3).for_each(|challenge| unit.assert_sound(challenge));
    }
}

#[test]
fn honest_tiles_pass_in_both_precisions() {
    honest_tiles_pass::<f64>();
    honest_tiles_pass::<f32>();
}

/// Rounding that goes one way, magnitudes whose squares leave the range, and cancellation: what an estimate alone would
/// call wrong, or could not judge.
fn honest_tiles_of_awkward_numbers_pass<T: Real>(huge: f64) {
    type Change = Box<dyn Fn(f64) -> f64>;
    let changes: [Change; 6] = [
        Box::new(|x| x.abs()),
        Box::new(|_| 1.0 / 3.0),
        Box::new(move |x| x * huge),
        Box::new(move |x| x / huge),
        Box::new(|x| if x > 0.7 { 1e6 * x } else { 1e-6 * x }),
        Box::new(|x| if x.abs() < 0.5 { 0.0 } else { x }),
    ];
    for change in changes {
        let unit = Unit::of(&Product::<T>::random((50, 40, 900), CHANGED).with(change), 0);
        (0..4).for_each(|challenge| unit.assert_sound(challenge));
        let forged = unit.forged::<T>(|numbers| {
            let sizes = numbers.iter().map(|number| number.double().abs()).filter(|size| size.is_finite());
            let largest = sizes.fold(0.0, f64::max);
            let value = numbers[77].double();
            numbers[77] = T::nearest(if value.is_finite() { value + largest / 10.0 } else { 1.0 });
        });
        assert_ne!(forged, unit.honest);
        assert!((0..4).all(|challenge| !unit.is_sound(&forged, challenge)));
    }
}

#[test]
fn awkward_numbers_pass_and_cannot_hide_a_lie() {
    honest_tiles_of_awkward_numbers_pass::<f64>(1e160);
    honest_tiles_of_awkward_numbers_pass::<f32>(1e19);
}

#[test]
fn infinities_and_nans_are_compared_by_their_bits() {
    let mut product = Product::<f64>::random((40, 30, 20), CHANGED);
    product.a.values[3 * 20 + 5] = f64::INFINITY;
    product.b.values[7 * 30 + 11] = f64::NAN;
    product.c.values[9 * 30 + 2] = f64::NEG_INFINITY;
    let unit = Unit::of(&product, 0);
    let numbers = unit.numbers::<f64>();
    assert!(numbers.iter().any(|x| x.is_nan()) && numbers.iter().any(|x| x.is_infinite()));
    (0..4).for_each(|challenge| unit.assert_sound(challenge));
    for (cell, lie) in [(0, f64::NAN), (5, f64::INFINITY), (3 * 30, 1.0), (11, 0.0), (9 * 30 + 2, f64::INFINITY)] {
        let forged = unit.forged::<f64>(|numbers| numbers[cell] = lie);
        assert!((0..4).all(|challenge| !unit.is_sound(&forged, challenge)), "{cell}");
    }
}

/// Every time, whatever the cell and the challenge: no entry of a random vector is small.
#[test]
fn one_entry_off_by_a_billionth_of_the_mean_is_refuted_every_time() {
    let unit = Unit::of(&Product::<f64>::random((512, 512, 1024), PLAIN), 0);
    let numbers = unit.numbers::<f64>();
    let mean = numbers.iter().map(|x| x.abs()).sum::<f64>() / numbers.len() as f64;
    let mut dice = Dice::new(1);
    for trial in 0..250 {
        let (cell, sign) = (dice.below(numbers.len() as u64) as usize, if trial % 2 == 0 { 1.0 } else { -1.0 });
        let forged = unit.forged::<f64>(|numbers| numbers[cell] += sign * 1e-9 * mean);
        let verdict = unit.verdict(&forged, trial);
        let Finding::Wrong { reason } = &verdict.finding else { panic!("trial {trial}: {verdict:?}") };
        let place = format!("cell ({}, {})", cell / 512, cell % 512);
        assert!(reason.starts_with(&place), "{reason}");
    }
}

#[test]
fn one_entry_of_singles_off_by_a_fiftieth_of_the_mean_is_refuted_every_time() {
    let unit = Unit::of(&Product::<f32>::random((300, 512, 1024), CHANGED), 0);
    let numbers = unit.numbers::<f32>();
    let mean = numbers.iter().map(|x| x.abs()).sum::<f32>() / numbers.len() as f32;
    let mut dice = Dice::new(2);
    for trial in 0..50 {
        let cell = dice.below(numbers.len() as u64) as usize;
        let forged = unit.forged::<f32>(|numbers| numbers[cell] += mean / 50.0);
        assert!(!unit.is_sound(&forged, trial), "trial {trial}");
    }
}

#[test]
fn what_is_swapped_repeated_or_left_out_is_refuted() {
    let unit = Unit::of(&Product::<f64>::random((60, 50, 400), CHANGED), 0);
    let lies: [fn(&mut [f64]); 6] = [
        |numbers| numbers.swap(7 * 50 + 3, 7 * 50 + 30),
        |numbers| numbers.swap(7 * 50 + 3, 8 * 50 + 3),
        |numbers| (0..50).for_each(|column| numbers.swap(4 * 50 + column, 5 * 50 + column)),
        |numbers| numbers.copy_within(0..50, 50),
        |numbers| numbers[2_950..].fill(0.0),
        |numbers| numbers.fill(0.0),
    ];
    for (index, lie) in lies.into_iter().enumerate() {
        let forged = unit.forged(lie);
        assert!((0..10).all(|challenge| !unit.is_sound(&forged, challenge)), "{index}");
    }
}

/// Another order of operations, another precision on the way: too small for any estimate, wrong all the same.
#[test]
fn low_bits_of_a_whole_tile_are_seen() {
    let unit = Unit::of(&Product::<f64>::random((60, 50, 400), PLAIN), 0);
    let last_bit = |x: f64| f64::from_bits(x.to_bits() ^ 1);
    let all = unit.forged::<f64>(|numbers| numbers.iter_mut().for_each(|x| *x = last_bit(*x)));
    assert!((0..20).all(|challenge| !unit.is_sound(&all, challenge)));
    // Half of them: two challenges in four thousand million miss it.
    let half = unit.forged::<f64>(|numbers| numbers.iter_mut().step_by(2).for_each(|x| *x = last_bit(*x)));
    assert!((0..20).all(|challenge| !unit.is_sound(&half, challenge)));
}

/// One in twenty: whether a cell that is computed again is among them depends on the challenge alone.
#[test]
fn what_is_looked_at_depends_on_the_challenge() {
    let unit = Unit::of(&Product::<f64>::random((60, 50, 400), PLAIN), 0);
    let few = unit.forged::<f64>(|numbers| {
        numbers.iter_mut().step_by(20).for_each(|x| *x = f64::from_bits(x.to_bits() ^ 1));
    });
    let seen: Vec<bool> = (0..60).map(|challenge| unit.is_sound(&few, challenge)).collect();
    assert_eq!(seen, (0..60).map(|challenge| unit.is_sound(&few, challenge)).collect::<Vec<_>>());
    // 0.95^32 = 0.19 of them miss it.
    let missed = seen.iter().filter(|sound| **sound).count();
    assert!((2..30).contains(&missed), "{missed}");
}

#[test]
fn a_tile_of_another_shape_place_or_type_is_wrong() {
    let unit = Unit::of(&Product::<f64>::random((8, 6, 20), PLAIN), 0);
    let lies = [
        unit.with_tile(|tile| tile.at.row = 1),
        unit.with_tile(|tile| (tile.at.rows, tile.at.columns) = (6, 8)),
        unit.with_tile(|tile| tile.number = forge_contract::fragment::Number::Int64),
        unit.with_tile(|tile| tile.values.truncate(8 * 47)),
        {
            let mut found = unit.honest.clone();
            found.parts[0].name = "d".into();
            found
        },
        Fragment { parts: vec![] },
    ];
    for lie in lies {
        let verdict = unit.verdict(&lie, 0);
        assert!(matches!(verdict.finding, Finding::Wrong { .. }), "{verdict:?}");
    }
}

#[test]
fn a_check_burns_a_twentieth_of_the_unit_at_most_and_the_same_under_every_backend() {
    for (single, shape) in [(false, (512, 512, 1024)), (true, (512, 512, 1024))] {
        let unit = if single {
            Unit::of(&Product::<f32>::random(shape, PLAIN), 0)
        } else {
            Unit::of(&Product::<f64>::random(shape, PLAIN), 0)
        };
        let verdict = unit.verdict(&unit.honest, 7);
        println!("check {} fuel, unit {}: {:.4}", verdict.fuel, unit.fuel, verdict.fuel as f64 / unit.fuel as f64);
        assert!(verdict.fuel * 20 <= unit.fuel, "{} of {}", verdict.fuel, unit.fuel);
    }
    let mut unit = Unit::of(&Product::<f64>::random((60, 50, 400), CHANGED), 0);
    let verdicts = Backend::ALL.map(|backend| {
        unit.kernel = dist::compiled(KERNEL, backend);
        unit.verdict(&unit.honest, 7)
    });
    assert!(verdicts.iter().all(|verdict| *verdict == verdicts[0]), "{verdicts:?}");
}

/// Regular places and few of them: a scale of rounding that is estimated from a part of a row would often miss them all.
fn tiles_with_patterns_are_not_computed_again<T: Real>() {
    type Pattern = fn(usize, usize) -> bool;
    let patterns: [Pattern; 8] = [
        |_, column| column % 4 == 1,
        |_, column| column % 8 == 7,
        |_, column| column % 16 == 3,
        |_, column| column % 32 == 30,
        |row, column| row.abs_diff(column) < 3,
        |row, column| row == column,
        |row, column| (row * 37 + 11) % 256 == column,
        |_, column| column < 50,
    ];
    for (number, pattern) in patterns.into_iter().enumerate() {
        let mut product = Product::<T>::random((256, 256, 1024), PLAIN);
        for matrix in [&mut product.a, &mut product.b] {
            let columns = matrix.columns;
            let zero = |(place, value): (usize, &mut T)| {
                if !pattern(place / columns, place % columns) {
                    *value = T::nearest(0.0);
                }
            };
            matrix.values.iter_mut().enumerate().for_each(zero);
        }
        let unit = Unit::of(&product, 0);
        for challenge in 0..4 {
            let verdict = unit.verdict(&unit.honest, challenge);
            assert!(matches!(verdict.finding, Finding::Sound { .. }), "pattern {number}: {verdict:?}");
            assert!(verdict.fuel * 10 <= unit.fuel, "pattern {number}: {} of {} fuel", verdict.fuel, unit.fuel);
        }
    }
}

#[test]
fn what_is_mostly_zero_costs_no_more_to_check() {
    tiles_with_patterns_are_not_computed_again::<f64>();
    tiles_with_patterns_are_not_computed_again::<f32>();
}
