//! The verbs of a job, pure and in order: admit (and the trial of what was admitted), plan, dispatch, verify, reduce,
//! then artifact, replay, ledger, books and settle.
//!
//! **Invariant**: nothing here reads a clock, a file, a socket or a random number. Time is an argument, effects are
//! returned as [`action::Action`]s, and the same events in the same order give the same actions. Who computed what ends
//! at [`verify`]: [`reduce`] takes fragments in unit order and cannot see an agent.
//!
//! [`pool::Pool`] strings all of it: one `apply(now, event, &mut actions)` over every job and every agent.

pub mod admit;
pub mod plan;
pub mod trial;
pub mod verify;

pub mod member;
pub mod settings;

pub mod action;
pub mod event;

pub mod books;
pub mod converge;
pub mod ledger;
pub mod reduce;
pub mod settle;

pub mod dispatch;
mod turns;

pub mod job;
pub mod pool;

pub mod artifact;
pub mod bundle;
pub mod key;
pub mod replay;
pub mod trail;

/// Milliseconds on a clock that the caller owns. It never goes back within a process.
pub type Millis = u64;
