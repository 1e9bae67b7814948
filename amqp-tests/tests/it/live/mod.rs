//! What only a real RabbitMQ can show, and what must not need one: refused and silent peers.

mod alarms;
mod connecting;
mod examples;
mod faults;
mod kinds;
mod outcomes;
mod peers;
mod recorded;
mod threads;
