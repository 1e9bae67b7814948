//! Logins: mechanisms, and credentials that are fetched.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::api::{
    At, ConnectError, ConnectFailure, Credentials, Endpoint, ProvidedCredentials, Publish,
};
use super::at::on_every_adapter;
use super::connecting::{fails, only_failure};
use crate::support::{exclusive, sleep, within};

on_every_adapter! {
    amqplain_logs_in_and_a_wrong_password_is_refused_once
    external_needs_a_client_certificate
    each_attempt_fetches_its_credentials
    credentials_that_expire_are_renewed
    a_provider_that_fails_fails_the_attempt
    a_stream_that_is_connected_waits_for_the_credentials
}

async fn amqplain_logs_in_and_a_wrong_password_is_refused_once(at: At) {
    let amqplain = Credentials::amqplain("guest", "guest");
    let connection = at.open(|config| config.credentials(amqplain)).await.unwrap();
    connection.close().await;

    let wrong = Credentials::amqplain("guest", "wrong").or(Credentials::plain("guest", "guest"));
    let endpoint = Endpoint::new("127.0.0.1", at.port());
    let twice = [endpoint.clone(), endpoint];
    let error = fails(&at, |config| config.endpoints(twice).credentials(wrong)).await;
    let ConnectFailure::Authentication(refused) = only_failure(&error) else { panic!("{error:?}") };
    assert_eq!(refused.code.code(), 403);
}

async fn external_needs_a_client_certificate(at: At) {
    let external = |config: super::api::Config| config.credentials(Credentials::external());
    let error = fails(&at, external).await;
    assert_eq!(error, ConnectError::NoClientCertificate);
    let tls = at.to(format!("amqps://localhost:{}", at.port()));
    let error = fails(&tls, external).await;
    assert_eq!(error, ConnectError::NoClientCertificate);
}

fn guest(password: &str) -> ProvidedCredentials {
    Credentials::plain("guest", password).into()
}

async fn each_attempt_fetches_its_credentials(at: At) {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let uri = format!("amqp://nobody:nothing@{closed},127.0.0.1:{}", at.port());
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let provider = move || {
        let first = counted.fetch_add(1, Ordering::SeqCst) == 0;
        Ok(guest(if first { "of the first attempt" } else { "guest" }))
    };
    let connection = within("a connection", at.to(uri).connect_providing(provider)).await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    connection.close().await;
}

/// RabbitMQ takes any new secret of a user whose password it knows itself.
async fn credentials_that_expire_are_renewed(at: At) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let provider = move || {
        counted.fetch_add(1, Ordering::SeqCst);
        Ok(guest("guest").valid_for(Duration::from_secs(1)))
    };
    let connection = at.connect_providing(provider).await.unwrap();
    within("two renewals", async {
        while asked.load(Ordering::SeqCst) < 3 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let channel = connection.open_channel().await.unwrap();
    let queue = channel.queue_declare(exclusive("renewed")).await.unwrap();
    let publisher = channel.confirm_select().await.unwrap();
    publisher.publish(Publish::to_queue(queue.name(), "still open")).await.unwrap();
    connection.close().await;
}

async fn a_provider_that_fails_fails_the_attempt(at: At) {
    let provider = || Err(io::Error::other("the token server is down"));
    let error = within("a failure", at.connect_providing(provider)).await.unwrap_err();
    let failure = only_failure(&error).to_string();
    assert_eq!(failure, "cannot fetch the credentials: the token server is down");

    let error = at.connect_providing(|| Ok(Credentials::external().into())).await.unwrap_err();
    let ConnectFailure::Credentials(cause) = only_failure(&error) else { panic!("{error:?}") };
    assert_eq!(*cause.message, *ConnectError::NoClientCertificate.to_string());
}

async fn a_stream_that_is_connected_waits_for_the_credentials(at: At) {
    let stream = std::net::TcpStream::connect(("127.0.0.1", at.port())).unwrap();
    let nobody = at.to(at.uri().replace("guest:guest", "nobody:nothing"));
    let connected = nobody.connect_over_providing(stream, || Ok(guest("guest")));
    let connection = within("a connection", connected).await.unwrap();
    connection.close().await;
}
