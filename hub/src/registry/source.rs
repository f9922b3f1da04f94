//! Kernels that come with the hub: from folders, or embedded in the program.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use forge_contract::Digest;
use forge_lifecycle::admit;
use forge_lifecycle::plan::Kernel;

use super::RegistryError;

/// Where built-in kernels come from.
#[derive(Clone, Debug)]
pub enum KernelSource {
    /// Every `*.wasm` of a folder; `pins.toml` in it or beside it names their digests, where there is one.
    Folder(PathBuf),
    /// Components in memory, with the text of their pins.
    Embedded {
        /// File name and bytes.
        components: Vec<(String, Bytes)>,
        /// The pins, TOML.
        pins: Option<String>,
    },
}

/// Reads and admits every kernel of a source.
///
/// Directly, without the child that uploads are parsed in: what the operator starts the hub with is as trusted as the
/// hub itself.
///
/// # Errors
/// The first file that cannot be read, is refused, or is not the pinned one.
pub(super) fn kernels(source: &KernelSource) -> Result<Vec<(Arc<Kernel>, Bytes)>, RegistryError> {
    let (components, pins) = read(source)?;
    components.into_iter().map(|(file, component)| admitted(&file, component, pins.as_ref())).collect()
}

fn admitted(file: &str, component: Bytes, pins: Option<&Pins>) -> Result<(Arc<Kernel>, Bytes), RegistryError> {
    let found = admit::inspect(&component).map_err(|source| RegistryError::Refused { file: file.into(), source })?;
    if let Some(pins) = pins {
        let pinned = pins.get(&(found.manifest.name.clone(), found.manifest.version));
        if pinned != Some(&found.digest) {
            let pinned = pinned.map_or_else(|| "nothing".into(), Digest::to_string);
            return Err(RegistryError::NotPinned { file: file.into(), found: found.digest, pinned });
        }
    }
    let kernel = Arc::new(Kernel { digest: found.digest, bytes: found.bytes, manifest: found.manifest });
    Ok((kernel, component))
}

/// The digest of each kernel by name and version.
type Pins = BTreeMap<(String, u32), Digest>;
/// Components by file name; their pins, where there are any.
type Read = (Vec<(String, Bytes)>, Option<Pins>);

fn read(source: &KernelSource) -> Result<Read, RegistryError> {
    match source {
        KernelSource::Embedded { components, pins } => {
            Ok((components.clone(), pins.as_deref().map(parse_pins).transpose()?))
        }
        KernelSource::Folder(folder) => read_folder(folder),
    }
}

fn read_folder(folder: &Path) -> Result<Read, RegistryError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| RegistryError::Io { path, source }
    };
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .map_err(io(folder))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "wasm"))
        .collect();
    files.sort();
    let mut components = Vec::with_capacity(files.len());
    for path in files {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        components.push((name, std::fs::read(&path).map_err(io(&path))?.into()));
    }
    let beside = [folder.join("pins.toml"), folder.parent().unwrap_or(folder).join("pins.toml")];
    let pins = match beside.iter().find(|path| path.exists()) {
        Some(path) => Some(parse_pins(&std::fs::read_to_string(path).map_err(io(path))?)?),
        None => None,
    };
    Ok((components, pins))
}

fn parse_pins(text: &str) -> Result<Pins, RegistryError> {
    #[derive(serde::Deserialize)]
    struct File {
        #[serde(default)]
        kernel: Vec<Pin>,
    }
    #[derive(serde::Deserialize)]
    struct Pin {
        name: String,
        version: u32,
        digest: Digest,
    }
    let file: File = toml::from_str(text).map_err(|error| RegistryError::Pins { reason: error.to_string() })?;
    Ok(file.kernel.into_iter().map(|pin| ((pin.name, pin.version), pin.digest)).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pins_name_digests() {
        let digest = Digest::of(b"a");
        let text = format!("[[kernel]]\nname = \"mc\"\nversion = 1\ndigest = \"{digest}\"\nbytes = 3\n");
        let pins = parse_pins(&text).unwrap();
        assert_eq!(pins.get(&("mc".into(), 1)), Some(&digest));
        assert!(matches!(parse_pins("= nothing"), Err(RegistryError::Pins { .. })));
        assert!(matches!(parse_pins(&text.replace('a', "x")), Err(RegistryError::Pins { .. })));
    }
}
