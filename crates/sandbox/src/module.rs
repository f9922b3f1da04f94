//! Core modules under the engine's settings: for comparing backends on generated code.
//!
//! Kernels are components; nothing of the product runs a bare module. Nothing here is caged: modules of one's own only.

use core::fmt;

use forge_contract::canon::Writer;
use forge_contract::{Digest, Failure, FailureCode};
use serde::{Deserialize, Serialize};
use wasmtime::{Engine, Extern, ExternType, Func, Instance, Module, Ref, Store, Val, ValType};

use crate::engine::{self, Backend};
use crate::limiter::Limiter;
use crate::local::on_own_thread;
use crate::{code, trap};

/// Fuel that is given to what runs before a call: a start function.
const START_FUEL: u64 = 100_000;

/// An engine of one backend, to compile many modules with.
pub struct Modules {
    engine: Engine,
}

/// A compiled module.
pub struct LocalModule {
    engine: Engine,
    module: Module,
}

/// What each call may use.
#[derive(Clone, Copy, Debug)]
pub struct CallLimits {
    /// Fuel of a call.
    pub fuel: u64,
    /// Linear memory of its instance, bytes.
    pub memory_bytes: u64,
}

/// One call of one exported function, in an instance of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The export; empty for the instantiation that did not succeed.
    pub export: String,
    /// Which of the fixed argument lists.
    pub arguments: u32,
    /// How it ended.
    pub ending: Ending,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// It returned.
    Completed {
        /// The results' bits, each 16 bytes in hexadecimal, most significant digit first.
        results: String,
        /// Digest of the exported memories, globals and tables afterwards.
        state: Digest,
        /// Fuel burned.
        fuel: u64,
    },
    /// The fuel did not suffice.
    Exhausted {
        /// Digest of the exported memories, globals and tables where it stopped.
        state: Digest,
    },
    /// It trapped or met a limit.
    Trapped {
        /// The kind.
        kind: String,
    },
    /// It ran out of stack or the machine out of memory: says nothing, for the depth differs between backends.
    NoVerdict,
}

impl fmt::Debug for LocalModule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LocalModule")
    }
}

impl Modules {
    /// An engine.
    ///
    /// # Errors
    /// `agent.compile` where this machine has none.
    pub fn new(backend: Backend) -> Result<Self, Failure> {
        let no_engine = |error: engine::EngineError| Failure::new(FailureCode::AgentCompile, error.to_string());
        Ok(Self { engine: engine::engine(backend).map_err(no_engine)? })
    }

    /// Compiles a module without imports.
    ///
    /// # Errors
    /// `agent.compile` where it is not valid for the engine.
    pub fn compile(&self, wasm: &[u8]) -> Result<LocalModule, Failure> {
        let compile = || Module::new(&self.engine, wasm).map_err(|error| code::refused(&error));
        Ok(LocalModule { engine: self.engine.clone(), module: on_own_thread(compile)? })
    }
}

impl LocalModule {
    /// Calls every exported function with each of `argument_lists` fixed argument lists, each call in an instance of
    /// its own.
    ///
    /// Order: of the module's exports, then of the argument lists; a failed instantiation ends the run.
    /// Determinism: a function of the module and the limits, but for `NoVerdict`.
    ///
    /// # Errors
    /// `agent.worker_lost` where there is no thread to run on.
    pub fn call_all(&self, limits: CallLimits, argument_lists: u32) -> Result<Vec<Call>, Failure> {
        on_own_thread(|| {
            let mut calls = Vec::new();
            for export in self.module.exports() {
                if !matches!(export.ty(), ExternType::Func(_)) {
                    continue;
                }
                for arguments in 0..argument_lists {
                    let called = self.call(export.name(), arguments, limits);
                    let ending = match called {
                        Ok(ending) => ending,
                        Err(ending) => {
                            calls.push(Call { export: String::new(), arguments, ending });
                            return Ok(calls);
                        }
                    };
                    calls.push(Call { export: export.name().to_owned(), arguments, ending });
                }
            }
            Ok(calls)
        })
    }

    /// One call; `Err` where the module could not be instantiated.
    fn call(&self, export: &str, arguments: u32, limits: CallLimits) -> Result<Ending, Ending> {
        let mut store = Store::new(&self.engine, Limiter::new(limits.memory_bytes));
        store.limiter(|limiter| limiter);
        let _ = store.set_fuel(START_FUEL);
        let instance = Instance::new(&mut store, &self.module, &[]);
        let refused = store.data().refused;
        let instance = instance.map_err(|error| match trap::of_instantiation(&error, refused) {
            failure if failure.code == FailureCode::AgentFuelExhausted => {
                Ending::Trapped { kind: "the start function has no fuel left".into() }
            }
            failure => without_state(&failure),
        })?;
        let Some(function) = instance.get_func(&mut store, export) else { return Ok(Ending::NoVerdict) };
        Ok(self.call_in(&mut store, &instance, function, arguments, limits.fuel))
    }

    fn call_in(
        &self,
        store: &mut Store<Limiter>,
        instance: &Instance,
        function: Func,
        arguments: u32,
        fuel: u64,
    ) -> Ending {
        let ty = function.ty(&*store);
        let params: Vec<Val> = ty.params().enumerate().map(|(at, ty)| argument(&ty, arguments, at)).collect();
        let mut results = vec![Val::I32(0); ty.results().len()];
        let _ = store.set_fuel(fuel);
        let called = function.call(&mut *store, &params, &mut results);
        let refused = store.data().refused;
        match called {
            Ok(()) => Ending::Completed {
                results: results.iter().map(|value| format!("{:032x}", bits(value))).collect(),
                state: self.state(store, instance),
                fuel: fuel.saturating_sub(store.get_fuel().unwrap_or(0)),
            },
            Err(error) => match trap::failure(&error, refused) {
                failure if failure.code == FailureCode::AgentFuelExhausted => {
                    Ending::Exhausted { state: self.state(store, instance) }
                }
                failure => without_state(&failure),
            },
        }
    }

    /// The digest of what a module exports of its state.
    fn state(&self, store: &mut Store<Limiter>, instance: &Instance) -> Digest {
        let mut w = Writer::new();
        for export in self.module.exports() {
            w.str(export.name());
            match instance.get_export(&mut *store, export.name()) {
                Some(Extern::Memory(memory)) => w.digest(&Digest::of(memory.data(&*store))),
                Some(Extern::Global(global)) => w.bytes(&bits(&global.get(&mut *store)).to_le_bytes()),
                Some(Extern::Table(table)) => {
                    let size = table.size(&*store);
                    w.u64(size);
                    for at in 0..size {
                        w.u8(table.get(&mut *store, at).map_or(2, |held| u8::from(held.is_null())));
                    }
                }
                _ => {}
            }
        }
        Digest::of(&w.into_bytes())
    }
}

fn without_state(failure: &Failure) -> Ending {
    match failure.code {
        FailureCode::AgentStackOverflow | FailureCode::AgentWorkerLost => Ending::NoVerdict,
        _ => Ending::Trapped { kind: failure.to_string() },
    }
}

/// The fixed arguments: small numbers in the first list, and in the others what arithmetic finds hard.
#[expect(clippy::cast_possible_truncation, reason = "the low half is as good an argument as any")]
fn argument(ty: &ValType, list: u32, at: usize) -> Val {
    const HARD: [u64; 8] = [
        0x7ff0_0000_0000_0001,
        0x8000_0000_8000_0000,
        0xffff_ffff_ffff_ffff,
        0x7fef_ffff_7f7f_ffff,
        0x0000_0001_0000_0001,
        0xfff8_dead_ffc0_beef,
        0x41e0_0000_4f00_0000,
        0x0010_0000_0080_0000,
    ];
    let pick = at.wrapping_add(list as usize) % HARD.len();
    let hard = HARD.get(pick).copied().unwrap_or(0);
    let small = at as u64 + 1;
    let easy = list == 0;
    match ty {
        ValType::I32 => Val::I32(if easy { small as u32 } else { hard as u32 }.cast_signed()),
        ValType::I64 => Val::I64(if easy { small } else { hard }.cast_signed()),
        ValType::F32 => Val::F32(if easy { (small as f32).to_bits() } else { hard as u32 }),
        ValType::F64 => Val::F64(if easy { (small as f64).to_bits() } else { hard }),
        ValType::V128 => {
            let word = u128::from(if easy { small } else { hard });
            Val::V128((word << 64 | word.rotate_left(32)).into())
        }
        ValType::Ref(ty) => Val::null_ref(ty.heap_type()),
    }
}

/// A value's bits; of a reference, whether it is there.
fn bits(value: &Val) -> u128 {
    match value {
        Val::I32(x) => u128::from(x.cast_unsigned()),
        Val::I64(x) => u128::from(x.cast_unsigned()),
        Val::F32(x) => u128::from(*x),
        Val::F64(x) => u128::from(*x),
        Val::V128(x) => x.as_u128(),
        other => u128::from(other.ref_().is_some_and(|held| !Ref::is_null(&held))),
    }
}
