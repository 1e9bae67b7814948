//! What only a real RabbitMQ can show, and peers that do as they are told.

mod encrypted;
mod examples;
mod logins;
mod peers;
mod recorded;
mod tls_node;
