//! examples/pricer: a European option under Black-Scholes by Monte Carlo, with delta, gamma and vega.
//!
//! See README.md for the model and its sources. Only arithmetic that is the same everywhere: IEEE operations, and `libm`'s
//! elementary functions compiled into the kernel.

mod moments;
mod normal;
mod option;

pub use option::{Arguments, Market, Side, Values};

use forge_sdk_guest::distribution::Collector;
use forge_sdk_guest::rng::Generator;
use forge_sdk_guest::{Failure, Fragment, Kernel, Named, Part, Task, arguments, export_kernel, generator, items};

use moments::Sums;

/// Observations of one block: sums are taken block by block, so it is part of the algorithm.
const BLOCK: usize = 1024;

/// The kernel.
pub struct Pricer;

impl Kernel for Pricer {
    fn execute(task: &Task) -> Result<Fragment, Failure> {
        let option: Arguments = arguments(task)?;
        Ok(simulate(&option, &mut generator(task)?, items(task)?.count))
    }
}

export_kernel!(Pricer);

/// One unit's observations: the parts of kernel.toml, in its order.
pub fn simulate(option: &Arguments, random: &mut Generator, samples: u64) -> Fragment {
    let market = Market::new(option);
    let (mut price, mut greeks) = (Collector::new(), [Sums::default(); 3]);
    let (mut paid, mut block) = (Vec::with_capacity(BLOCK), [const { Vec::new() }; 3]);
    let mut left = samples;
    while left > 0 {
        let count = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
        paid.clear();
        block.iter_mut().for_each(Vec::clear);
        for _ in 0..count {
            let found = observation(&market, option.antithetic, normal::quantile(random.next_open()));
            if found.price > 0.0 {
                paid.push(found.price);
            }
            for (values, value) in block.iter_mut().zip([found.delta, found.gamma, found.vega]) {
                values.push(value);
            }
        }
        price.add(&paid, count - paid.len());
        greeks.iter_mut().zip(&block).for_each(|(sums, values)| sums.add(values));
        left -= count as u64;
    }
    let [delta, gamma, vega] = greeks.map(|sums| Part::Moments(sums.finish()));
    let parts = [("price", Part::Distribution(price.finish())), ("delta", delta), ("gamma", gamma), ("vega", vega)];
    Fragment { parts: parts.into_iter().map(|(name, part)| Named { name: name.into(), part }).collect() }
}

fn observation(market: &Market, antithetic: bool, z: f64) -> Values {
    let found = market.values(z);
    if antithetic { found.mean(&market.values(-z)) } else { found }
}
