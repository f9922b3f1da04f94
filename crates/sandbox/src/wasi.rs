//! The harmless part of WASI: output into the log, an empty environment, exit.
//!
//! Written here and not taken from wasmtime-wasi: its synchronous form starts a thread pool inside the cage, its context
//! reads the machine's entropy, and neither meters what a kernel prints. Every answer below is a constant, so a kernel
//! learns nothing from it. The one pollable is a stream that is always ready; no clock can make another.

use wasmtime::component::{ComponentType, Linker, LinkerInstance, Lower, Resource, ResourceType};

use crate::kernel::{FUEL_PER_HOSTCALL, HostState, charge, fuel_of};
use crate::trap::Exited;

/// The interfaces that exist, without their version: any 0.2 release of them links.
pub const INTERFACES: [&str; 7] = [
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stdout",
    "wasi:cli/stderr",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
];

/// What a stream says it can take at once, bytes.
const WRITE_BYTES: u64 = 1 << 16;
/// Stands for standard output and standard error alike: both go to one log.
enum OutputStream {}
enum InputStream {}
enum IoError {}
enum Pollable {}

#[derive(ComponentType, Lower)]
#[component(variant)]
enum StreamError {
    #[component(name = "last-operation-failed")]
    #[expect(dead_code, reason = "part of the interface's type; the log never fails")]
    LastOperationFailed(Resource<IoError>),
    #[component(name = "closed")]
    Closed,
}

type Written = (Result<(), StreamError>,);

pub(crate) fn link(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    link_error(&mut linker.instance("wasi:io/error@0.2.0")?)?;
    link_poll(&mut linker.instance("wasi:io/poll@0.2.0")?)?;
    link_streams(&mut linker.instance("wasi:io/streams@0.2.0")?)?;
    link_output(&mut linker.instance("wasi:cli/stdout@0.2.0")?, "get-stdout")?;
    link_output(&mut linker.instance("wasi:cli/stderr@0.2.0")?, "get-stderr")?;
    link_environment(&mut linker.instance("wasi:cli/environment@0.2.0")?)?;
    link_exit(&mut linker.instance("wasi:cli/exit@0.2.0")?)
}

/// A resource that counts against the unit's handles.
fn resource<R: 'static>(instance: &mut LinkerInstance<'_, HostState>, name: &str) -> wasmtime::Result<()> {
    instance.resource(name, ResourceType::host::<R>(), |mut store, _| {
        store.data_mut().drop_handle();
        Ok(())
    })
}

fn link_error(instance: &mut LinkerInstance<'_, HostState>) -> wasmtime::Result<()> {
    resource::<IoError>(instance, "error")?;
    instance.func_wrap("[method]error.to-debug-string", |mut store, (_,): (Resource<IoError>,)| {
        charge(&mut store, FUEL_PER_HOSTCALL)?;
        Ok((String::new(),))
    })
}

fn link_poll(instance: &mut LinkerInstance<'_, HostState>) -> wasmtime::Result<()> {
    resource::<Pollable>(instance, "pollable")?;
    instance.func_wrap("[method]pollable.ready", |mut store, (_,): (Resource<Pollable>,)| {
        charge(&mut store, FUEL_PER_HOSTCALL)?;
        Ok((true,))
    })?;
    instance.func_wrap("[method]pollable.block", |mut store, (_,): (Resource<Pollable>,)| {
        charge(&mut store, FUEL_PER_HOSTCALL)
    })?;
    instance.func_wrap("poll", |mut store, (all,): (Vec<Resource<Pollable>>,)| {
        charge(&mut store, fuel_of(all.len() as u64))?;
        let count = u32::try_from(all.len())?;
        Ok(((0..count).collect::<Vec<u32>>(),))
    })
}

fn link_output(instance: &mut LinkerInstance<'_, HostState>, name: &str) -> wasmtime::Result<()> {
    instance.func_wrap(name, |mut store, ()| {
        charge(&mut store, FUEL_PER_HOSTCALL)?;
        store.data_mut().take_handle()?;
        Ok((Resource::<OutputStream>::new_own(0),))
    })
}

fn link_streams(instance: &mut LinkerInstance<'_, HostState>) -> wasmtime::Result<()> {
    resource::<InputStream>(instance, "input-stream")?;
    resource::<OutputStream>(instance, "output-stream")?;
    instance.func_wrap("[method]output-stream.check-write", |mut store, (_,): (Resource<OutputStream>,)| {
        charge(&mut store, FUEL_PER_HOSTCALL)?;
        Ok((Ok::<u64, StreamError>(WRITE_BYTES),))
    })?;
    for name in ["write", "blocking-write-and-flush"] {
        let name = format!("[method]output-stream.{name}");
        instance.func_wrap(&name, |mut store, (_, bytes): (Resource<OutputStream>, Vec<u8>)| {
            charge(&mut store, fuel_of(bytes.len() as u64))?;
            store.data_mut().log.write(&bytes);
            let written: Written = (Ok(()),);
            Ok(written)
        })?;
    }
    for name in ["flush", "blocking-flush"] {
        let name = format!("[method]output-stream.{name}");
        instance.func_wrap(&name, |mut store, (_,): (Resource<OutputStream>,)| {
            charge(&mut store, FUEL_PER_HOSTCALL)?;
            let flushed: Written = (Ok(()),);
            Ok(flushed)
        })?;
    }
    for name in ["write-zeroes", "blocking-write-zeroes-and-flush"] {
        let name = format!("[method]output-stream.{name}");
        instance.func_wrap(&name, |mut store, (_, count): (Resource<OutputStream>, u64)| {
            charge(&mut store, fuel_of(count))?;
            // Zeros say nothing in a log; the call is metered and answered.
            let written: Written = (Ok(()),);
            Ok(written)
        })?;
    }
    instance.func_wrap("[method]output-stream.subscribe", |mut store, (_,): (Resource<OutputStream>,)| {
        charge(&mut store, FUEL_PER_HOSTCALL)?;
        store.data_mut().take_handle()?;
        Ok((Resource::<Pollable>::new_own(0),))
    })?;
    for name in ["splice", "blocking-splice"] {
        let name = format!("[method]output-stream.{name}");
        instance.func_wrap(&name, |mut store, (_, _, _): (Resource<OutputStream>, Resource<InputStream>, u64)| {
            charge(&mut store, FUEL_PER_HOSTCALL)?;
            Ok((Err::<u64, StreamError>(StreamError::Closed),))
        })?;
    }
    Ok(())
}

fn link_environment(instance: &mut LinkerInstance<'_, HostState>) -> wasmtime::Result<()> {
    instance.func_wrap("get-environment", |mut store, ()| {
        charge(&mut store, FUEL_PER_HOSTCALL)?;
        Ok((Vec::<(String, String)>::new(),))
    })?;
    instance.func_wrap("get-arguments", |mut store, ()| {
        charge(&mut store, FUEL_PER_HOSTCALL)?;
        Ok((Vec::<String>::new(),))
    })?;
    instance.func_wrap("initial-cwd", |mut store, ()| {
        charge(&mut store, FUEL_PER_HOSTCALL)?;
        Ok((None::<String>,))
    })
}

fn link_exit(instance: &mut LinkerInstance<'_, HostState>) -> wasmtime::Result<()> {
    instance.func_wrap("exit", |_, (status,): (Result<(), ()>,)| -> wasmtime::Result<()> {
        Err(wasmtime::Error::new(Exited { code: u8::from(status.is_err()) }))
    })?;
    instance.func_wrap("exit-with-code", |_, (code,): (u8,)| -> wasmtime::Result<()> {
        Err(wasmtime::Error::new(Exited { code }))
    })
}
