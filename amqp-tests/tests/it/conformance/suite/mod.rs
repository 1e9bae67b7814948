//! The behaviours. Nothing here knows what it runs on.

use super::api;

mod alarms;
pub(super) mod at;
mod attempts;
mod beside;
mod channels;
mod ciphertext;
mod connecting;
mod consuming;
mod contract;
mod encrypted;
mod ending;
mod faults;
mod handles;
mod handshakes;
mod hooks;
mod kinds;
mod load;
mod logins;
mod mechanisms;
mod outcomes;
mod patience;
mod prefetching;
mod publishing;
mod recovery;
mod scopes;
mod threads;
mod topology;
mod transactions;
