//! Tests of the core through its public surface, in virtual time and without sockets.

mod acks;
mod calls;
mod channels;
mod closing;
mod confirms;
mod connecting;
mod consumers;
mod contents;
mod diagrams;
mod draining;
mod faults;
mod hostile;
mod intake;
mod legal;
mod limits;
mod messages;
mod opening;
mod peer;
mod returns;
mod stats;
mod timing;
mod unsettled;
mod uri;
mod whole;
