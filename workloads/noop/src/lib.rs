//! noop@1: answers with the number of items it was given. Its cost is the platform's own.

use forge_sdk_guest::{Failure, Fragment, Kernel, Named, Part, Task, export_kernel, items};

/// The kernel.
pub struct Noop;

impl Kernel for Noop {
    fn execute(task: &Task) -> Result<Fragment, Failure> {
        let work = Part::Count(items(task)?.count);
        Ok(Fragment { parts: vec![Named { name: "work".into(), part: work }] })
    }
}

export_kernel!(Noop);
