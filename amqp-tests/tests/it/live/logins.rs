//! Logins that only a RabbitMQ with TLS and its plugins can show, on every adapter.

use amqp_blocking::errors::ConnectFailure;
use amqp_blocking::{ConnectError, Credentials};

use super::tls_node::{LONG_PASSWORD, NODE};
use crate::demo_mechanism::Demo;
use crate::support::{rabbitmq, rabbitmq_version, within};

fn only_failure(error: &ConnectError) -> &ConnectFailure {
    let ConnectError::Failed { attempts } = error else { panic!("{error:?}") };
    assert_eq!(attempts.len(), 1, "{error}");
    &attempts[0].failure
}

/// Runs `$body` with `$connect`, which opens a connection of this adapter with these credentials.
macro_rules! logins {
    ($module:ident, $adapter:ident, $block_on:expr) => {
        mod $module {
            use super::*;

            async fn connect(
                label: &str,
                credentials: Credentials,
            ) -> Result<$adapter::Connection, ConnectError> {
                let connector = $adapter::Connector::new(&NODE.uri()).unwrap().tls(NODE.client());
                let connector = connector.credentials(credentials).connection_name(label);
                within("an answer", connector.connect()).await
            }

            #[test]
            fn pk_4_a_certificates_user_logs_in_by_external() {
                $block_on(async {
                    let label = concat!("external-", stringify!($module));
                    let connection = connect(label, Credentials::external()).await.unwrap();
                    assert_eq!(NODE.user_of(label), "certuser");
                    connection.close().await;
                });
            }

            #[test]
            fn each_mechanism_logs_in() {
                $block_on(async {
                    let label = concat!("each-", stringify!($module));
                    let amqplain = Credentials::amqplain("guest", "guest");
                    let connection = connect(label, amqplain).await.unwrap();
                    assert_eq!(NODE.user_of(label), "guest");
                    let tuning = connection.tuning();
                    assert_eq!((tuning.channel_max, tuning.frame_max), (64, 8_192));
                    connection.close().await;

                    let demo = Credentials::mechanism(Demo::new("guest", "guest"));
                    match connect(label, demo).await {
                        Ok(connection) => {
                            assert!(NODE.has_demo_mechanism);
                            drop(connection.close().await);
                        }
                        Err(error) => {
                            assert!(!NODE.has_demo_mechanism, "{error}");
                            let failure = only_failure(&error);
                            assert!(matches!(failure, ConnectFailure::NoSharedMechanism { .. }));
                        }
                    }
                });
            }

            /// As long as a token may be.
            #[test]
            fn a_password_of_8_kb_logs_in() {
                $block_on(async {
                    for login in [
                        Credentials::plain("long", &*LONG_PASSWORD),
                        Credentials::amqplain("long", &*LONG_PASSWORD),
                    ] {
                        let connection = connect("long", login).await.unwrap();
                        connection.close().await;
                    }
                });
            }

            #[test]
            fn a_user_without_permission_is_refused_with_530() {
                $block_on(async {
                    let nobody = Credentials::plain("nobody", "nothing");
                    let error = connect("nobody", nobody).await.unwrap_err();
                    let failure = only_failure(&error);
                    let ConnectFailure::VirtualHost(refused) = failure else { panic!("{error:?}") };
                    assert_eq!(refused.code.code(), 530);
                });
            }
        }
    };
}

logins!(on_tokio, amqp_tokio, |future| {
    tokio::runtime::Runtime::new().unwrap().block_on(future);
});
logins!(on_smol, amqp_smol, smol::block_on);
logins!(on_async_std, amqp_async_std, async_std::task::block_on);

/// The blocking adapter, as one that can be awaited.
mod blocking {
    use super::{ConnectError, Credentials};

    pub(super) struct Connector(pub(super) amqp_blocking::Connector);

    #[derive(Debug)]
    pub(super) struct Connection(amqp_blocking::Connection);

    impl Connector {
        pub(super) fn new(uri: &str) -> Result<Self, ConnectError> {
            amqp_blocking::Connector::new(uri).map(Self)
        }

        pub(super) fn tls(self, tls: amqp_tls::Rustls) -> Self {
            Self(self.0.tls(tls))
        }

        pub(super) fn credentials(self, credentials: Credentials) -> Self {
            Self(self.0.credentials(credentials))
        }

        pub(super) fn connection_name(self, name: &str) -> Self {
            Self(self.0.connection_name(name))
        }

        pub(super) async fn connect(self) -> Result<Connection, ConnectError> {
            smol::unblock(move || self.0.connect()).await.map(Connection)
        }
    }

    impl Connection {
        pub(super) fn tuning(&self) -> amqp_blocking::types::Tuning {
            self.0.tuning()
        }

        pub(super) async fn close(self) -> amqp_blocking::CloseCause {
            smol::unblock(move || self.0.close()).await
        }
    }
}

logins!(on_threads, blocking, smol::block_on);

/// RabbitMQ's own limit before the limits are negotiated (`initial_frame_max`). It resets the connection.
#[test]
fn a_login_that_is_too_long_for_rabbitmq_is_probably_refused() {
    let limit = if rabbitmq_version() < (4, 1) { 4_096 } else { 8_192 };
    // The client properties take some hundred bytes.
    for (size, fits) in [(limit - 1_000, true), (limit, false)] {
        let credentials = Credentials::plain("guest", "t".repeat(size));
        let connector = amqp_blocking::Connector::new(&rabbitmq().uri()).unwrap();
        let error = connector.credentials(credentials).connect().unwrap_err();
        match only_failure(&error) {
            ConnectFailure::Authentication(_) => assert!(fits, "{size} bytes"),
            ConnectFailure::ProbablyAuthentication(_) => assert!(!fits, "{size} bytes"),
            failure => panic!("{size} bytes: {failure:?}"),
        }
    }
}
