//! Starts a private RabbitMQ node, prints its URI, and stops it when standard input ends.
use std::io::Read;

fn main() {
    let node = amqp_testkit::RabbitMq::start().unwrap_or_else(|error| panic!("{error}"));
    println!("{}", node.uri());
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}
