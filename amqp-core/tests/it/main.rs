//! Tests of the core through its public surface, in virtual time and without sockets.

mod acks;
mod calls;
mod channels;
mod closing;
mod confirms;
mod connecting;
mod consumers;
mod contents;
mod cycles;
mod diagrams;
mod draining;
mod faults;
mod hostile;
mod legal;
mod limits;
mod messages;
mod opening;
mod peer;
mod reading_pauses;
mod returns;
mod settings;
mod stats;
mod timing;
mod unacked;
mod uri;
mod whole;
