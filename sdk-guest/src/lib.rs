//! What a kernel written in Rust needs, and nothing of the host.
//!
//! A kernel implements [`Kernel`], names its type in [`export_kernel!`](crate::export_kernel) and is built as a `cdylib` for
//! `wasm32-unknown-unknown`. It must be a pure function of its [`Task`]: the sandbox offers no clock, no entropy
//! and no file, and every unit runs in a fresh instance.
//!
//! Randomness comes from [`rng::Generator`] alone.

pub mod distribution;
pub mod folded;
pub mod input;
pub mod lanes;
pub mod npy;
pub mod rng;

/// The bindings of `wit/kernel.wit`.
#[allow(missing_docs, unsafe_code)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        world: "kernel",
        pub_export_macro: true,
        generate_all,
        default_bindings_module: "forge_sdk_guest::bindings",
    });
}

pub use bindings::exports::forgepool::kernel::unit::{
    Bucket, Distribution, Extrema, Failure, Fragment, Guest, Histogram, Interval, Items, Matrix, Moments, Named,
    Number, Part, Rectangle, Rows, Segment, Slice, Task, Tile,
};
pub use bindings::forgepool::kernel::inputs;
pub use serde;
pub use serde_json;

/// A kernel: one unit of work to one fragment.
///
/// **Determinism**: the answer depends on the task and the declared inputs alone.
pub trait Kernel {
    /// Computes one unit. Called once per fresh instance.
    ///
    /// # Errors
    /// A deterministic refusal: every machine must give the same.
    fn execute(task: &Task) -> Result<Fragment, Failure>;
}

/// Exports a [`Kernel`], named in the same module, as the component's `unit` interface.
#[macro_export]
macro_rules! export_kernel {
    ($kernel:ident) => {
        // Native builds of a kernel are for tests and measurements: they have nothing to export.
        #[cfg(target_arch = "wasm32")]
        mod forge_export {
            struct Export;

            impl $crate::Guest for Export {
                fn execute(task: $crate::Task) -> Result<$crate::Fragment, $crate::Failure> {
                    <super::$kernel as $crate::Kernel>::execute(&task)
                }
            }

            $crate::bindings::export!(Export with_types_in $crate::bindings);
        }
    };
}

/// Reads the task's arguments into the kernel's own type.
///
/// # Errors
/// `Failure::arguments` with the reader's words where the JSON is not of that type.
pub fn arguments<'a, T: serde::Deserialize<'a>>(task: &'a Task) -> Result<T, Failure> {
    serde_json::from_str(&task.args).map_err(|e| Failure::Arguments(e.to_string()))
}

/// The task's slice where it is a run of items.
///
/// # Errors
/// `Failure::other` for any other slice: the manifest's split is not `range`.
pub fn items(task: &Task) -> Result<Items, Failure> {
    match task.slice {
        Slice::Items(items) => Ok(items),
        _ => Err(Failure::Other("the slice is not a run of items".into())),
    }
}

/// The task's slice where it is a rectangle of the output matrix.
///
/// # Errors
/// `Failure::other` for any other slice: the manifest's split is not `tiles`.
pub fn rectangle(task: &Task) -> Result<Rectangle, Failure> {
    match task.slice {
        Slice::Rectangle(rectangle) => Ok(rectangle),
        _ => Err(Failure::Other("the slice is not a rectangle".into())),
    }
}

/// The unit's own generator: ChaCha8 with the stage key and the unit's index as stream.
///
/// # Errors
/// `Failure::other` where the seed is not 32 bytes.
pub fn generator(task: &Task) -> Result<rng::Generator, Failure> {
    let key: [u8; 32] =
        task.seed.as_slice().try_into().map_err(|_| Failure::Other("the seed is not 32 bytes".into()))?;
    Ok(rng::Generator::new(&key, task.index))
}

// Behind everything else: the lines above are named in panics, and those are in the bytes of every kernel.
#[cfg(feature = "checks")]
pub mod checks;
