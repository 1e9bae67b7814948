//! The settings of a connector in one table. Each sets a value of [`Config`](amqp_core::Config).
//!
//! The connectors of all adapters have their methods from this table.

/// Methods that pass a value to the method of `Config` with the same name, for a type with a method
/// `configure`.
#[doc(hidden)]
#[macro_export]
macro_rules! connector_settings {
    () => {
        $crate::connector_settings! {
            /// Sets the only host: a name, or an IPv4 or IPv6 address without brackets. The default is
            /// `localhost`. The port stays as it is.
            host(host: impl Into<std::sync::Arc<str>>);

            /// Sets the hosts, in the order in which they are tried by default, all on the port that is set. An
            /// empty list is refused when connecting.
            hosts(hosts: impl IntoIterator<Item = impl Into<std::sync::Arc<str>>>);

            /// Sets the port of every host. The default is 5672.
            port(port: u16);

            /// Sets the hosts with a port each, in the order in which they are tried by default. An empty list is
            /// refused when connecting.
            endpoints(endpoints: impl IntoIterator<Item = $crate::Endpoint>);

            /// Sets the virtual host. The default is `/`. It is not percent-encoded.
            virtual_host(name: impl Into<String>);

            /// Sets the authentication mechanisms, in order, and their secrets. The default is user `guest` with
            /// password `guest`, by the mechanism PLAIN.
            credentials(credentials: $crate::Credentials);

            /// Sets the files that TLS trusts and presents, for `amqps` hosts. By default it trusts what the
            /// platform trusts, and presents no certificate.
            tls_settings(settings: $crate::TlsSettings);

            /// Sets the options of TCP sockets: keepalive, buffers, the local address. By default they are
            /// those of the operating system. They do not apply to streams that the application connects itself.
            tcp_options(options: $crate::TcpOptions);

            /// Sets the heartbeat interval (<https://www.rabbitmq.com/docs/heartbeats>). The default is the
            /// broker's: 60 s.
            heartbeat(heartbeat: $crate::Heartbeat);

            /// Sets the maximum number of channels, 1 to 65,535. The default is 2,047. A lower limit of the
            /// broker takes precedence.
            channel_max(channels: u16);

            /// Sets the maximum size of a frame, 4,096 to 131,072 bytes. The default is 131,072. A lower
            /// limit of the broker takes precedence.
            frame_max(bytes: u32);

            /// Sets the maximum size of the frame of the login, which has the password or token: 4,096 to
            /// 131,072 bytes. The default is 16,384. RabbitMQ's own limit, `initial_frame_max`, is 4,096 bytes,
            /// and 8,192 since RabbitMQ 4.1.
            initial_frame_max(bytes: u32);

            /// Sets the name that RabbitMQ's tools show for the connection. By default it has none.
            connection_name(name: &str);

            /// Sets a client property, in place of the default of that name. `capabilities` cannot be
            /// replaced: they are what this client can do.
            client_property(name: &str, value: impl Into<$crate::FieldValue>);

            /// Sets the locale: the language of the broker's texts. The default is `en_US`, which is the only one
            /// that RabbitMQ has.
            locale(locale: impl Into<String>);

            /// Sets the order in which the hosts are tried. The default is the order of the list.
            host_order(order: $crate::HostOrder);

            /// Sets how often the list of hosts is tried until a connection is open: 1 to 65,535 cycles. The
            /// default is 1. Each cycle looks up the hosts again. All cycles together have the
            /// [connect timeout](Self::connect_timeout).
            connection_attempts(cycles: u16);

            /// Sets the delay between two cycles of [attempts](Self::connection_attempts). The default is 2 s.
            retry_delay(delay: std::time::Duration);

            /// Sets the timeout of connecting as a whole, over all hosts, addresses and cycles. The default is
            /// 30 s.
            connect_timeout(timeout: std::time::Duration);

            /// Sets the timeout of one address, from fetching credentials and dialling to the end of the
            /// handshake, and of looking up one host. It is at least 1 ms. The default is 10 s.
            address_timeout(timeout: std::time::Duration);

            /// Sets how long a call waits for its reply. The default is 30 s.
            call_timeout(timeout: std::time::Duration);

            /// Sets how long a close waits for the broker's reply. The default is 10 s.
            close_timeout(timeout: std::time::Duration);

            /// Sets how long the broker may block publishes before the connection ends. By default there is
            /// no limit (<https://www.rabbitmq.com/docs/connection-blocked>).
            blocked_timeout(timeout: std::time::Duration);

            /// Sets how long the [hooks](Self::on_connect) of one transport may take together. The default is 30 s.
            hook_timeout(timeout: std::time::Duration);

            /// Sets what happens when the open connection is lost. By default every loss is recovered
            /// ([`Recovery::automatic`]($crate::Recovery::automatic)).
            recovery(recovery: $crate::Recovery);
        }
    };
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*);)*) => {
        $(
            $(#[$doc])*
            #[must_use]
            pub fn $name(self, $($argument: $type),*) -> Self {
                self.configure(|config| config.$name($($argument),*))
            }
        )*
    };
}
