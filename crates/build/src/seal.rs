//! WASI preview 1, sealed inside a component, for toolchains that import it whether or not it is used.

use crate::component::ComponentError;

/// The import module that is sealed.
pub(crate) const PREVIEW1: &str = "wasi_snapshot_preview1";

/// The sealing module; the encoder keeps of it what is imported.
pub(crate) fn module() -> Result<Vec<u8>, ComponentError> {
    wat::parse_str(include_str!("seal.wat")).map_err(|e| ComponentError::Text { reason: e.to_string() })
}
