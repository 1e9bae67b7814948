//! Metrics (feature `metrics`), by the facade `metrics`, with the names and attributes of OpenTelemetry's semantic conventions
//! for messaging systems. The guide's page "observing" lists them.
//!
//! Without the feature, `nothing.rs` takes the place of `recorded.rs`: the same types without fields, the same functions
//! without contents. So callers need no conditions, and nothing of it is left in their code.

#[cfg(not(feature = "metrics"))]
mod nothing;
#[cfg(feature = "metrics")]
mod recorded;

#[cfg(not(feature = "metrics"))]
pub(crate) use self::nothing::{Measures, Sending, Waiting, describe, sampled};
#[cfg(feature = "metrics")]
pub(crate) use self::recorded::{Measures, Sending, Waiting, describe, sampled};
