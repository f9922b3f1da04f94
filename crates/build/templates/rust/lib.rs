//! {{label}}: the area of a disc by Monte Carlo. Put your own model in its place.

use forge_sdk_guest::distribution::Collector;
use forge_sdk_guest::{
    Failure, Fragment, Kernel, Named, Part, Task, arguments, export_kernel, generator, items, serde,
};

/// Values handed over at once. It is part of the algorithm: another size rounds the sums differently.
const BLOCK: usize = 1024;

/// What the kernel reads of `args`. The hub has checked them against kernel.toml and filled in the defaults.
#[derive(serde::Deserialize)]
#[serde(crate = "forge_sdk_guest::serde")]
struct Arguments {
    radius: f64,
}

/// The kernel.
pub struct Disc;

impl Kernel for Disc {
    /// One unit: as many samples as its slice says, from the unit's own generator, and nothing else.
    fn execute(task: &Task) -> Result<Fragment, Failure> {
        let Arguments { radius } = arguments(task)?;
        let mut random = generator(task)?;
        let mut collector = Collector::new();
        let mut left = items(task)?.count;
        let mut block = Vec::with_capacity(BLOCK);
        while left > 0 {
            block.clear();
            while left > 0 && block.len() < BLOCK {
                // The height of the circle over a uniform point, times four quarters.
                let u = random.next_open();
                block.push(4.0 * radius * radius * (1.0 - u * u).sqrt());
                left -= 1;
            }
            collector.add(&block, 0);
        }
        Ok(Fragment { parts: vec![Named { name: "area".into(), part: Part::Distribution(collector.finish()) }] })
    }
}

export_kernel!(Disc);

#[cfg(test)]
mod tests {
    use super::*;
    use forge_sdk_guest::{Items, Slice};

    /// A kernel is an ordinary function: test it natively, against what you know.
    #[test]
    fn the_mean_is_the_area() {
        let task = Task {
            profile: "disc.v1".into(),
            stage: "sample".into(),
            args: r#"{"radius":2.0,"samples":65536}"#.into(),
            index: 0,
            units: 1,
            slice: Slice::Items(Items { first: 0, count: 65_536 }),
            seed: vec![7; 32],
        };
        let fragment = Disc::execute(&task).expect("the arguments are good");
        let Some(Part::Distribution(area)) = fragment.parts.first().map(|named| &named.part) else { panic!("no area") };
        // Standard error: 4 r^2 sqrt(2/3 - (pi/4)^2) / sqrt(n) = 0.014.
        assert!((area.moments.mean - 4.0 * core::f64::consts::PI).abs() < 5.0 * 0.014);
    }
}
