//! Pages on what is true of every handle: errors, dropping, waiting, and on event loops of your own.

#[doc = include_str!("errors.md")]
pub mod errors {}

#[doc = include_str!("cancellation.md")]
pub mod cancellation {}

#[doc = include_str!("backpressure.md")]
pub mod backpressure {}

#[doc = include_str!("event_loop.md")]
pub mod event_loop {}
