//! Tests of the whole stand in `tests/`. This library has the [simulation](sim) of a session, the [world] in which asynchronous
//! clients run on a virtual clock, and the [ledger] of loads, and runs the code
//! blocks of the guide and of the READMEs. The guide's blocks import adapters, on which the guide's own crate cannot depend.

pub mod ledger;
pub mod sim;
pub mod world;

#[cfg(doctest)]
macro_rules! pages {
    ($($page:ident)*) => {
        $(
            #[doc = include_str!(concat!("../../amqp-async/src/guide/", stringify!($page), ".md"))]
            mod $page {}
        )*
    };
}

#[cfg(doctest)]
pages! {
    getting_started
    connecting
    tls
    publishing
    consuming
    acknowledging
    topology
    streams
    rpc
    shutdown
    logging
    testing
    errors
    reconnecting
    cancellation
    backpressure
    delivery_guarantees
    performance
    event_loop
    from_lapin
    from_pika
}

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}

#[cfg(doctest)]
#[doc = include_str!("../../adapter-blocking/README.md")]
mod readme_of_blocking {}

#[cfg(doctest)]
#[doc = include_str!("../../adapter-tokio/README.md")]
mod readme_of_tokio {}

#[cfg(doctest)]
#[doc = include_str!("../../amqp-testkit/README.md")]
mod readme_of_testkit {}
