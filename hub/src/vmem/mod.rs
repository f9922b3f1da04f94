//! Arrays by name: taken in as `.npy` or Arrow, kept as one canonical `.npy` file each, given out whole or in part.
//!
//! Nothing here holds an array in memory: bodies go to a file first, and parts are read run by run.

mod arrow;
mod convert;
mod format;
mod part;
mod pipe;
mod receive;

pub(crate) use arrow::holds as arrow_holds;
pub use convert::{ArrayError, Taken, convert};
pub use format::Format;
pub use part::{Part, write};
pub use pipe::stream;
pub use receive::receive;
