//! What a client sees of a broker. Each test runs against the model broker and against RabbitMQ, on
//! tokio's current-thread and multi-thread runtimes, so that neither can drift from the other.

mod channels;
mod consuming;
mod publishing;
mod raw;
mod scopes;
mod topology;

/// Turns `async fn name(uri: String)` into one test for each broker and runtime.
macro_rules! on_both_brokers {
    ($($name:ident)*) => {
        mod model {
            $(
                #[tokio::test]
                async fn $name() {
                    super::$name(crate::support::model().uri()).await;
                }
            )*
        }
        mod rabbitmq {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name(crate::support::rabbitmq_uri().await).await;
                }
            )*
        }
    };
}

use on_both_brokers;
