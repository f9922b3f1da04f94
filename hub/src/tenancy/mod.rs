//! Who may ask for what: keys in memory, rates, and the limits of a job.

pub mod key;
mod keyring;
pub mod quota;
mod rates;

pub use keyring::{Held, Keyring};
pub use rates::{Rates, TooFast};
