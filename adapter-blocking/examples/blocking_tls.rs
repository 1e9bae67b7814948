//! A connection over TLS that logs in by its client certificate (the mechanism EXTERNAL).
//!
//! `cargo run --example blocking_tls --features tls -- URI CA CERTIFICATE KEY`, such as
//! `amqps://broker.example ca.pem client.pem client.key`. The broker needs the plugin `rabbitmq_auth_mechanism_ssl`.

use amqp_blocking::{BasicGet, Connector, Credentials, Publish, QueueDeclare, TlsSettings};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [uri, ca, certificate, key] = arguments.as_slice() else {
        return Err("arguments: URI CA CERTIFICATE KEY".into());
    };
    let files = TlsSettings::default().ca_file(ca).client_certificate(certificate, key);
    let connection = Connector::new(uri)?
        .tls_settings(files)
        .credentials(Credentials::external())
        .connection_name("tls-example")
        .connect()?;

    let channel = connection.open_channel()?;
    let queue = channel.queue_declare(QueueDeclare::new("").exclusive())?;
    let publisher = channel.confirm_select()?;
    publisher.publish(Publish::to_queue(queue.name(), "encrypted").mandatory())?;
    let message = channel.basic_get(BasicGet::new(queue.name()))?.ok_or("no message")?;
    message.fault().map_or(Ok(()), Err)?;
    println!("{}", String::from_utf8_lossy(message.body()));
    message.ack()?;
    connection.close();
    Ok(())
}
