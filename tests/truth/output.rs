//! The client's numbers, `hub.output.loss`, against the truth.

use crate::expected::Expected;
use crate::run::Run;

pub fn check(_expected: &Expected, _run: &Run) {}
