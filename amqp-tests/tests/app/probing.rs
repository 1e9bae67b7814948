//! Probes over HTTP, and what they see of an application.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};

use amqp_app::prelude::*;

use crate::at::{At, Make, beside, on_model, on_rabbitmq, source, until, within};

on_model! {
    probes_follow_the_application
    a_server_of_the_program_has_metrics_and_outlives_the_application
    an_address_that_is_taken_is_an_error_of_the_start
}

on_rabbitmq! {
    probes_follow_the_application
}

/// An address that is free, and that no outgoing connection gets.
fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let offset = (process::id() as u16)
            .wrapping_mul(64)
            .wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let address = SocketAddr::from(([127, 0, 0, 1], 20_000 + offset % 12_000));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: probe\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    Ok((head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned()))
}

async fn probes_follow_the_application<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("probed").await;
    let address = free_address();
    let file = format!("connection.url = \"{}\"\nhealth.listen = \"{address}\"", at.uri);
    let config: Config = file.parse().unwrap();
    let app = App::new(config.connector(P::to)).configure(&config).unwrap();
    let app = app.consume(source(queue.as_str()), async |_: Text| ());
    assert!(get(address, "/live").is_err(), "nothing listens before the start");
    beside(app, async |_| {
        let status = |path| get(address, path).map(|(status, _)| status).ok();
        until("ready", async || status("/ready") == Some(200)).await;
        assert_eq!(get(address, "/live").unwrap(), (200, "live\n".to_owned()));
        assert_eq!(status("/metrics"), Some(404));

        client.channel.queue_delete(QueueDelete::new(&queue)).await.unwrap();
        until("unready", async || status("/ready") == Some(503)).await;
        let (_, reason) = get(address, "/ready").unwrap();
        assert!(reason.starts_with(&format!("queue {queue:?}: not consumed: ")), "{reason}");
        assert_eq!(status("/live"), Some(200), "a queue that is missing restarts no process");

        client.channel.queue_declare(QueueDeclare::classic(&queue)).await.unwrap();
        until("ready again", async || status("/ready") == Some(200)).await;
    })
    .await;
    assert!(get(address, "/live").is_err(), "nothing listens after the end");
}

async fn a_server_of_the_program_has_metrics_and_outlives_the_application<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("probed").await;
    let app = at.app().consume(source(queue.as_str()), async |_: Text| ());
    let health = app.health();
    health.set_metrics(|| "amqp_app_ready 1\n".to_owned());
    let server = health.serve("127.0.0.1:0").unwrap();
    let address = server.address();
    assert_eq!(get(address, "/ready").unwrap(), (503, "not started\n".to_owned()));
    beside(app, async |_| {
        until("ready", async || get(address, "/ready").unwrap().0 == 200).await;
        assert_eq!(get(address, "/metrics").unwrap(), (200, "amqp_app_ready 1\n".to_owned()));
    })
    .await;
    assert_eq!(get(address, "/live").unwrap().0, 503);
    assert_eq!(get(address, "/metrics").unwrap().0, 200);
    server.stop();
    assert!(get(address, "/live").is_err());
}

async fn an_address_that_is_taken_is_an_error_of_the_start<P: Make>(at: At<P>) {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let config: Config = format!("health.listen = \"{address}\"").parse().unwrap();
    let app = at.app().configure(&config).unwrap();
    let error = within("the end", app.run(Shutdown::never())).await.unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with(&format!("cannot answer probes at {address}: ")), "{text}");
}
