//! What a kernel needs that can check a unit for much less than it costs to compute it.
//!
//! Such a kernel implements [`Checked`] beside [`Kernel`], names its type in
//! [`export_checked_kernel!`](crate::export_checked_kernel) and says `checks = true` in its `kernel.toml`.

use crate::{Failure, Fragment, Kernel, Task};

/// The bindings of the interface `checks`; its tasks, fragments and failures are those of `unit`.
#[allow(missing_docs, unsafe_code)]
pub mod bindings {
    wit_bindgen::generate!({
        inline: "
            package forgepool:guest;
            world checks-only { export forgepool:kernel/checks@1.0.0; }
        ",
        path: "../wit",
        world: "forgepool:guest/checks-only",
        with: { "forgepool:kernel/unit@1.0.0": crate::bindings::exports::forgepool::kernel::unit },
        pub_export_macro: true,
        export_macro_name: "export_checks_only",
        disable_custom_section_link_helpers: true,
    });
}

pub use bindings::exports::forgepool::kernel::checks::{Guest, Verdict};

/// A kernel whose units can be checked.
///
/// **Determinism**: the verdict depends on its arguments and the declared inputs alone.
pub trait Checked: Kernel {
    /// Whether `found` is what `task` gives. Called once per fresh instance, within the unit's limits, on another machine
    /// than the one that computed the unit. The challenge was drawn after `found` was committed: randomness that whoever
    /// made `found` could not know.
    ///
    /// What the kernel itself would give must be [`Verdict::Sound`] under every challenge.
    ///
    /// # Errors
    /// A deterministic refusal, as of [`Kernel::execute`]: the unit has no answer that could be right.
    fn check(task: &Task, found: &Fragment, challenge: &[u8; 32]) -> Result<Verdict, Failure>;
}

/// Exports a [`Checked`] kernel, named in the same module, as the component's interfaces `unit` and `checks`.
#[macro_export]
macro_rules! export_checked_kernel {
    ($kernel:ident) => {
        $crate::export_kernel!($kernel);

        #[cfg(target_arch = "wasm32")]
        mod forge_export_checks {
            struct Export;

            impl $crate::checks::Guest for Export {
                fn check(
                    task: $crate::Task,
                    found: $crate::Fragment,
                    challenge: Vec<u8>,
                ) -> Result<$crate::checks::Verdict, $crate::Failure> {
                    let challenge: &[u8; 32] = challenge
                        .as_slice()
                        .try_into()
                        .map_err(|_| $crate::Failure::Other("the challenge is not 32 bytes".into()))?;
                    <super::$kernel as $crate::checks::Checked>::check(&task, &found, challenge)
                }
            }

            $crate::__export_forgepool_kernel_checks_1_0_0_cabi!(
                Export with_types_in $crate::checks::bindings::exports::forgepool::kernel::checks
            );
        }
    };
}
