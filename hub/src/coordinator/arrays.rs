//! Arrays by name, at both ends of a job: what its arguments named, and what its result becomes.

use forge_contract::array::{ArrayType, dtype, npy};
use forge_contract::vmem::Reference;

use super::Surroundings;
use super::array::Content;
use super::board::JobInfo;
use super::evidence::Gathered;
use crate::document::{VmemBlock, VmemLink, VmemRead};
use crate::store::StoreError;
use crate::store::data::NewArray;

/// The arrays of a result that the contract keeps by name. A replay and an erratum run keep none: their job did.
pub(super) fn of(info: &JobInfo, all: &Gathered) -> Result<Vec<NewArray>, StoreError> {
    if info.replay_of.is_some() || info.erratum.is_some() {
        return Ok(Vec::new());
    }
    let corrupt = || StoreError::Corrupt { what: "array of a result" };
    let names = info.plan.array_names(info.envelope.artifacts.vmem.as_ref()).map_err(|_| corrupt())?;
    let mut arrays = Vec::new();
    for (part, name) in names {
        let file = forge_lifecycle::reduce::artifact_name(&part);
        // Without a result there is no file, and nothing to keep.
        let Some(made) = all.made.iter().find(|made| made.entry.name == file) else { continue };
        let Content::Bytes(bytes) = &made.content else { return Err(corrupt()) };
        let header = npy::read(bytes).map_err(|_| corrupt())?;
        arrays.push(NewArray {
            project: info.project.to_string(),
            name,
            digest: made.entry.digest,
            bytes: made.entry.bytes,
            array: header.array,
            data_at: header.data_at,
            source: Some((info.job, part)),
            version: None,
        });
    }
    Ok(arrays)
}

/// Gives each array the version that it would become now.
pub(super) async fn number(around: &Surroundings, arrays: &mut [NewArray]) -> Result<(), StoreError> {
    let mut earlier: Vec<(String, u64)> = Vec::new();
    for array in arrays {
        let before = earlier.iter().rev().find(|(name, _)| *name == array.name).map(|(_, version)| *version);
        let version = match before {
            Some(version) => version + 1,
            None => around.store.next_version(&array.project, &array.name).await?,
        };
        array.version = Some(version);
        earlier.push((array.name.clone(), version));
    }
    Ok(())
}

/// What the answer says of arrays by name; nothing where the contract names none.
pub(super) fn block(info: &JobInfo, written: &[NewArray]) -> Option<VmemBlock> {
    let read = info.envelope.args.iter().filter_map(|(argument, value)| {
        let Reference { name, version, digest } = Reference::parse(value).ok()?;
        let (version, digest) = (version?, digest?.to_string());
        Some(VmemRead { argument: argument.clone(), name, version, digest })
    });
    let block = VmemBlock { read: read.collect(), written: written.iter().filter_map(link).collect() };
    (!block.read.is_empty() || !block.written.is_empty()).then_some(block)
}

fn link(array: &NewArray) -> Option<VmemLink> {
    let NewArray { name, digest, array: ArrayType { number, shape }, .. } = array;
    let ((_, part), version) = (array.source.as_ref()?, array.version?);
    Some(VmemLink {
        part: part.clone(),
        name: name.clone(),
        version,
        digest: digest.to_string(),
        dtype: dtype(*number).into(),
        shape: shape.clone(),
        url: format!("/api/v0/vmem/{name}/{version}"),
    })
}
