//! mc@1: Monte Carlo kernels.
//!
//! Profile `insurance.v1`: the aggregate loss of a policy year (see README.md for the model, its units and sources).
//! The generator and the order of its draws are frozen: the same version gives the same bits for ever.

mod chance;
mod exponential;
mod lognormal;
mod model;
mod poisson;
mod tables;

pub use model::Arguments;

use forge_sdk_guest::rng::Generator;
use forge_sdk_guest::{
    Distribution, Failure, Fragment, Kernel, Named, Part, Task, arguments, export_kernel, generator, items,
};

/// The kernel.
pub struct Mc;

impl Kernel for Mc {
    fn execute(task: &Task) -> Result<Fragment, Failure> {
        if task.profile != "insurance.v1" {
            return Err(Failure::Other("no such profile".into()));
        }
        let policy: Arguments = arguments(task)?;
        let loss = simulate(&policy, &mut generator(task)?, items(task)?.count)?;
        Ok(Fragment { parts: vec![Named { name: "loss".into(), part: Part::Distribution(loss) }] })
    }
}

export_kernel!(Mc);

/// The losses of one unit's policy years.
///
/// # Errors
/// `Failure::arguments` where an argument lies outside the range its schema gives.
pub fn simulate(policy: &Arguments, random: &mut Generator, years: u64) -> Result<Distribution, Failure> {
    policy.check()?;
    if years == 0 {
        return Err(Failure::Other("a unit has at least one year".into()));
    }
    Ok(model::Policy::new(policy).simulate(random, years))
}
