//! Pools of connections: the same tests on every platform, on the model and on RabbitMQ.

/// Compiles the tests for a platform. On asynchronous ones `wait` awaits; on threads the call has blocked already.
macro_rules! on {
    ($name:ident, $adapter:ident, |$future:ident| $run:expr, ($($wait:tt)*), ($($handle:tt)*)) => {
        #[path = "."]
        mod $name {
            mod api {
                pub(crate) use $adapter::{Channel, Connector};

                pub(crate) fn run($future: impl Future<Output = ()>) {
                    $run
                }

                macro_rules! wait {
                    ($call:expr) => { $call $($wait)* };
                }

                /// The body of a handler.
                macro_rules! handle {
                    ($body:block) => { $($handle)* $body };
                }

                pub(crate) use {handle, wait};
            }
            #[path = "requests.rs"]
            mod requests;
            #[path = "suite.rs"]
            mod suite;
        }
    };
}

on!(on_async_std, amqp_async_std, |future| async_std::task::block_on(future), (.await), (async move));
on!(on_smol, amqp_smol, |future| smol::block_on(future), (.await), (async move));
on!(on_threads, amqp_blocking, |future| amqp_blocking::runtime::Threads.block_on(future), (), ());
on!(
    on_tokio_current_thread,
    amqp_tokio,
    |future| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(future);
    },
    (.await),
    (async move)
);
on!(
    on_tokio_multi_thread,
    amqp_tokio,
    |future| tokio::runtime::Runtime::new().unwrap().block_on(future),
    (.await),
    (async move)
);
