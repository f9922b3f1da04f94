//! What stopped a unit, as a failure with a stable code.
//!
//! Determinism: codes and texts depend on the kernel and the engine's version, never on addresses, backtraces or the
//! machine, because a failure is compared between agents like any other answer.

use forge_contract::limits::DETAIL_BYTES_MAX;
use forge_contract::{Failure, FailureCode};
use wasmtime::Trap;
use wasmtime::component::ResourceTableError;
use wasmtime_wasi::I32Exit;

use crate::bounds::{HANDLES_MAX, INSTANCES_MAX};
use crate::limiter::Refused;

/// A unit printed more than it may.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the kernel printed more than {limit} bytes in one unit")]
pub(crate) struct PrintedTooMuch {
    pub(crate) limit: u64,
}

/// A unit holds more handles than allowed.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the kernel holds more than {limit} handles")]
pub(crate) struct TooManyHandles {
    pub(crate) limit: u32,
}

/// An input could not be read, which says nothing about the kernel.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotRead(pub(crate) Failure);

/// The failure behind an error of wasmtime, given what the limiter refused.
///
/// Where the kernel was stopped by a signal, the limiter or the meter, that is the code; an error without one comes from
/// reading the fragment out of the kernel's memory.
pub(crate) fn failure(error: &wasmtime::Error, refused: Option<Refused>) -> Failure {
    if let Some(refused) = refused {
        return of_limiter(refused);
    }
    if let Some(trap) = error.downcast_ref::<Trap>() {
        return of_trap(*trap);
    }
    if let Some(I32Exit(code)) = error.downcast_ref::<I32Exit>() {
        return Failure::new(FailureCode::AgentTrap, format!("the kernel called exit({code}) instead of returning"));
    }
    if let Some(printed) = error.downcast_ref::<PrintedTooMuch>() {
        return Failure::new(FailureCode::AgentOutputTooLarge, printed.to_string());
    }
    if let Some(ResourceTableError::Full) = error.downcast_ref::<ResourceTableError>() {
        return Failure::new(FailureCode::AgentTrap, TooManyHandles { limit: HANDLES_MAX }.to_string());
    }
    if let Some(NotRead(failure)) = error.downcast_ref::<NotRead>() {
        return failure.clone();
    }
    if let Some(handles) = error.downcast_ref::<TooManyHandles>() {
        return Failure::new(FailureCode::AgentTrap, handles.to_string());
    }
    let text = error.root_cause().to_string();
    if text.contains("fuel allocated for hostcalls has been exhausted") {
        return Failure::new(FailureCode::AgentOutputTooLarge, "the kernel handed the host more bytes than its limit");
    }
    Failure::new(FailureCode::AgentOutputInvalid, cut(format!("what the kernel handed over cannot be read: {text}")))
}

/// The failure behind an instantiation that went wrong before the kernel ran: a trap of its start function, a limit,
/// or the machine.
pub(crate) fn of_instantiation(error: &wasmtime::Error, refused: Option<Refused>) -> Failure {
    let of_unit = error.is::<Trap>() || error.is::<I32Exit>() || error.is::<TooManyHandles>() || error.is::<NotRead>();
    if refused.is_some() || of_unit {
        return failure(error, refused);
    }
    let text = error.root_cause().to_string();
    if text.contains("resource limit exceeded") {
        let detail = format!("it has more than {INSTANCES_MAX} instances, memories or tables");
        return Failure::new(FailureCode::AgentMemoryLimit, detail);
    }
    Failure::new(FailureCode::AgentWorkerLost, cut(text))
}

fn of_limiter(refused: Refused) -> Failure {
    let code = match refused {
        Refused::Memory { .. } | Refused::Table { .. } => FailureCode::AgentMemoryLimit,
        Refused::Machine => FailureCode::AgentWorkerLost,
    };
    Failure::new(code, refused.to_string())
}

fn of_trap(trap: Trap) -> Failure {
    let code = match trap {
        Trap::OutOfFuel => FailureCode::AgentFuelExhausted,
        Trap::StackOverflow => FailureCode::AgentStackOverflow,
        _ => FailureCode::AgentTrap,
    };
    Failure::new(code, trap.to_string())
}

/// Cuts a text at `DETAIL_BYTES_MAX`, between characters.
pub(crate) fn cut(mut text: String) -> String {
    if text.len() > DETAIL_BYTES_MAX {
        text.truncate(text.floor_char_boundary(DETAIL_BYTES_MAX));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_end_between_characters() {
        let text = cut("é".repeat(DETAIL_BYTES_MAX));
        assert_eq!(text.len(), DETAIL_BYTES_MAX);
        assert_eq!(cut(format!("x{text}")).len(), DETAIL_BYTES_MAX - 1);
    }

    #[test]
    fn a_machine_out_of_memory_blames_no_kernel() {
        let error = wasmtime::Error::new(Refused::Machine);
        assert_eq!(failure(&error, Some(Refused::Machine)).code, FailureCode::AgentWorkerLost);
    }
}
