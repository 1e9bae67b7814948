//! The guide: how to use the client, from a first program to delivery guarantees.
//!
//! | start here | publish and consume | run it | when things go wrong |
//! | --- | --- | --- | --- |
//! | [`getting_started`] | [`publishing`] | [`shutdown`] | [`errors`] |
//! | [`connecting`] | [`consuming`] | [`performance`] | [`cancellation`] |
//! | [`from_lapin`], [`from_pika`] | [`acknowledging`] | [`testing`] | [`backpressure`] |
//! | [`tls`], [`logging`] | [`topology`], [`streams`], [`rpc`] | [`event_loop`] | [`delivery_guarantees`], [`reconnecting`] |

// The code blocks import adapters, on which this crate cannot depend. The library of `amqp-tests` runs them.
macro_rules! pages {
    ($($page:ident)*) => {
        $(
            #[cfg_attr(not(doctest), doc = include_str!(concat!(stringify!($page), ".md")))]
            pub mod $page {}
        )*
    };
}

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
