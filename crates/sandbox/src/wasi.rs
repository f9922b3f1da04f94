//! The harmless part of WASI, linked by `kernel` from wasmtime-wasi one interface at a time: output into the log, an empty
//! environment, exit. What is not linked does not exist for a kernel: no clock, entropy, file or socket.
//!
//! Every answer is a constant, so a kernel learns nothing from it; the only pollable is a stream that is always ready,
//! and no clock can make another. Streams come from this module and not from a `WasiCtx`, whose builder reads the
//! machine's entropy.

use wasmtime::component::{HasData, Resource, ResourceTable};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{WasiCliCtx, WasiCliCtxView};
use wasmtime_wasi::p2::bindings::cli::{stderr, stdout};
use wasmtime_wasi::p2::{DynOutputStream, OutputStream, Pollable, StreamError, StreamResult};

use crate::bounds::HANDLES_MAX;
use crate::log::{PRINTED_BYTES_MAX, SharedLog};
use crate::trap::PrintedTooMuch;

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
const WRITE_BYTES: usize = 1 << 16;

/// WASI's side of one unit.
pub(crate) struct Wasi {
    table: ResourceTable,
    cli: WasiCliCtx,
    output: Output,
}

impl Wasi {
    pub(crate) fn new(log: &SharedLog) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(usize::try_from(HANDLES_MAX).unwrap_or(usize::MAX));
        log.begin_unit();
        Self { table, cli: WasiCliCtx::default(), output: Output(log.clone()) }
    }

    pub(crate) fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }

    pub(crate) fn printing(&mut self) -> Printing<'_> {
        Printing { table: &mut self.table, output: &self.output }
    }

    pub(crate) fn cli(&mut self) -> WasiCliCtxView<'_> {
        WasiCliCtxView { ctx: &mut self.cli, table: &mut self.table }
    }
}

/// Standard output and standard error alike: both go to one log.
#[derive(Clone)]
struct Output(SharedLog);

#[async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

impl OutputStream for Output {
    fn write(&mut self, bytes: bytes::Bytes) -> StreamResult<()> {
        if self.0.lock().write(&bytes) {
            return Ok(());
        }
        Err(StreamError::Trap(wasmtime::Error::new(PrintedTooMuch { limit: PRINTED_BYTES_MAX })))
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES)
    }
}

/// Runs `work` where wasmtime-wasi finds a runtime when a kernel prints: without one it would start a pool of threads,
/// which the cage forbids. This one has no thread, timer or socket of its own.
pub(crate) fn with_runtime<T>(work: impl FnOnce() -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let _entered = runtime.as_ref().map(tokio::runtime::Runtime::enter);
    work()
}

/// The two interfaces that open a stream.
pub(crate) struct Printing<'a> {
    table: &'a mut ResourceTable,
    output: &'a Output,
}

impl Printing<'_> {
    fn open(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        let stream: DynOutputStream = Box::new(self.output.clone());
        Ok(self.table.push(stream)?)
    }
}

impl stdout::Host for Printing<'_> {
    fn get_stdout(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        self.open()
    }
}

impl stderr::Host for Printing<'_> {
    fn get_stderr(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        self.open()
    }
}

pub(crate) struct HasPrinting;

impl HasData for HasPrinting {
    type Data<'a> = Printing<'a>;
}

pub(crate) struct HasTable;

impl HasData for HasTable {
    type Data<'a> = &'a mut ResourceTable;
}
