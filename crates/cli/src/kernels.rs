//! The kernels that come with the program: pinned components of `workloads/dist`.

use forge_contract::digest::Digest;

/// File name and bytes of every built-in component, in the order of their names.
pub const BUILT_IN: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/built_in.rs"));

/// `workloads/pins.toml` as it was at build time.
pub const PINS: &str = include_str!(concat!(env!("OUT_DIR"), "/pins.toml"));

/// Whether the pins name this digest.
#[must_use]
pub fn is_pinned(bytes: &[u8]) -> bool {
    PINS.contains(&Digest::of(bytes).to_string())
}

/// Name (`mc@1`) and digest of every built-in kernel.
pub fn named() -> impl Iterator<Item = (String, Digest)> {
    BUILT_IN.iter().map(|(name, bytes)| (name.trim_end_matches(".wasm").to_owned(), Digest::of(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_component_is_pinned() {
        for (name, bytes) in BUILT_IN {
            assert!(is_pinned(bytes), "{name} is not in workloads/pins.toml");
        }
    }
}
