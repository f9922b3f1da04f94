//! The kernel world as the host sees it: bindings of the exports, and the only imports that exist.

use bytes::Bytes;
use wasmtime::component::{ComponentType, Lower, Resource, ResourceType};
use wasmtime::component::{Linker, LinkerInstance};
use wasmtime::{Engine, StoreContextMut, Trap};
use wasmtime_wasi::cli::WasiCli;
use wasmtime_wasi::p2::bindings::cli::{environment, exit, stderr, stdout};
use wasmtime_wasi::p2::bindings::sync::io::{error, poll, streams};

use crate::bounds::{FUEL_PER_BYTE, FUEL_PER_HOSTCALL, FUEL_PER_OPEN, HANDLES_MAX};
use crate::inputs::{Input, Inputs};
use crate::limiter::Limiter;
use crate::log::SharedLog;
use crate::trap::{NotRead, TooManyHandles};
use crate::wasi::{HasPrinting, HasTable, Wasi};

pub(crate) mod bindings {
    wasmtime::component::bindgen!({
        inline: "
            package forgepool:sandbox;
            /// What the host calls. What it offers is linked by hand, so that it can meter each call.
            world called {
                export forgepool:kernel/unit@1.0.0;
                export forgepool:kernel/checks@1.0.0;
            }
        ",
        path: "../../wit",
        world: "forgepool:sandbox/called",
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

/// What the host holds for one unit.
pub(crate) struct HostState {
    pub(crate) limiter: Limiter,
    pub(crate) inputs: Inputs,
    pub(crate) wasi: Wasi,
    handles: u32,
}

impl HostState {
    pub(crate) fn new(memory_bytes: u64, inputs: Inputs, log: &SharedLog) -> Self {
        Self { limiter: Limiter::new(memory_bytes), inputs, wasi: Wasi::new(log), handles: 0 }
    }

    /// Counts a handle given to the unit.
    pub(crate) fn take_handle(&mut self) -> wasmtime::Result<()> {
        if self.handles >= HANDLES_MAX {
            return Err(wasmtime::Error::new(TooManyHandles { limit: HANDLES_MAX }));
        }
        self.handles += 1;
        Ok(())
    }

    /// Counts a handle given back.
    pub(crate) fn drop_handle(&mut self) {
        self.handles = self.handles.saturating_sub(1);
    }
}

/// The linker: `forgepool:kernel/inputs` and the harmless part of WASI. What is not here does not exist for a kernel.
///
/// # Errors
/// Where two definitions share a name, which a test excludes.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<HostState>> {
    let mut linker = Linker::new(engine);
    link_inputs(&mut linker.instance("forgepool:kernel/inputs@1.0.0")?)?;
    link_wasi(&mut linker)?;
    Ok(linker)
}

/// The harmless part of WASI, from wasmtime-wasi, one interface at a time.
fn link_wasi(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    error::add_to_linker::<HostState, HasTable>(linker, |state| state.wasi.table())?;
    poll::add_to_linker::<HostState, HasTable>(linker, |state| state.wasi.table())?;
    streams::add_to_linker::<HostState, HasTable>(linker, |state| state.wasi.table())?;
    stdout::add_to_linker::<HostState, HasPrinting>(linker, |state| state.wasi.printing())?;
    stderr::add_to_linker::<HostState, HasPrinting>(linker, |state| state.wasi.printing())?;
    environment::add_to_linker::<HostState, WasiCli>(linker, |state| state.wasi.cli())?;
    exit::add_to_linker::<HostState, WasiCli>(linker, |state| state.wasi.cli())
}

/// Takes `fuel` from the unit, as its own instructions do.
pub(crate) fn charge(store: &mut StoreContextMut<'_, HostState>, fuel: u64) -> wasmtime::Result<()> {
    let left = store.get_fuel()?;
    store.set_fuel(left.saturating_sub(fuel))?;
    if left < fuel { Err(Trap::OutOfFuel.into()) } else { Ok(()) }
}

/// Fuel of a host call that moves `bytes`.
pub(crate) fn fuel_of(bytes: u64) -> u64 {
    FUEL_PER_HOSTCALL.saturating_add(bytes.saturating_mul(FUEL_PER_BYTE))
}

/// A handle's number is the index of its input.
enum InputHandle {}

#[derive(ComponentType, Lower)]
#[component(variant)]
enum InputError {
    #[component(name = "undeclared")]
    Undeclared(String),
    #[component(name = "out-of-range")]
    OutOfRange(u64),
}

fn link_inputs(instance: &mut LinkerInstance<'_, HostState>) -> wasmtime::Result<()> {
    instance.resource("input", ResourceType::host::<InputHandle>(), |mut store, _| {
        store.data_mut().drop_handle();
        Ok(())
    })?;
    instance.func_wrap("open", |mut store, (name,): (String,)| {
        charge(&mut store, FUEL_PER_OPEN.saturating_add(name.len() as u64))?;
        let state = store.data_mut();
        let found = state.inputs.as_slice().iter().position(|input| input.name == name);
        let Some(index) = found.and_then(|index| u32::try_from(index).ok()) else {
            return Ok((Err(InputError::Undeclared(name)),));
        };
        state.take_handle()?;
        Ok((Ok(Resource::<InputHandle>::new_own(index)),))
    })?;
    instance.func_wrap("[method]input.size", |mut store, (this,): (Resource<InputHandle>,)| {
        charge(&mut store, FUEL_PER_HOSTCALL)?;
        Ok((input(store.data(), &this).map_or(0, |input| input.bytes),))
    })?;
    instance.func_wrap("[method]input.read", |mut store, (this, offset, len): (Resource<InputHandle>, u64, u32)| {
        let size = input(store.data(), &this).map_or(0, |input| input.bytes);
        if offset > size {
            charge(&mut store, FUEL_PER_HOSTCALL)?;
            return Ok((Err(InputError::OutOfRange(size)),));
        }
        let end = offset.saturating_add(u64::from(len)).min(size);
        charge(&mut store, fuel_of(end - offset))?;
        let bytes = match input(store.data(), &this) {
            Some(input) if end > offset => input.read(offset, usize::try_from(end - offset)?),
            _ => Ok(Bytes::new()),
        };
        Ok((Ok(bytes.map_err(|failure| wasmtime::Error::new(NotRead(failure)))?),))
    })
}

fn input<'a>(state: &'a HostState, handle: &Resource<InputHandle>) -> Option<&'a Input> {
    let index = usize::try_from(handle.rep()).ok()?;
    state.inputs.as_slice().get(index)
}
