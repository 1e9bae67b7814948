//! What only a real RabbitMQ can show, and peers that do as they are told.

mod encrypted;
mod examples;
mod peers;
mod recorded;
