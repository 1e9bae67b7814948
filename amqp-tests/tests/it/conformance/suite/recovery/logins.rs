//! Logins that are not valid any more when the connection is recovered.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use amqp_testkit::{Direction, Fault, Proxy};

use super::Lossy;
use super::api::{
    At, CloseCause, Config, ConnectError, ConnectFailure, ConnectionEvent, Credentials, Error,
    Publish, on_rabbitmq,
};
use super::at::{consumer_of, next};
use crate::support::{exclusive, rabbitmq, unique, within};

// The model knows one user, whose password does not change.
on_rabbitmq! {
    r12_a_login_that_is_revoked_ends_the_connection
    r12_a_provider_is_asked_again
}

/// A user of RabbitMQ whose password is `old`.
struct User(String);

impl User {
    fn add() -> Self {
        let name = unique("user");
        let node = rabbitmq();
        node.ctl(&["add_user", &name, "old"]).unwrap();
        node.ctl(&["set_permissions", &name, ".*", ".*", ".*"]).unwrap();
        Self(name)
    }

    fn change_password(&self) {
        rabbitmq().ctl(&["change_password", &self.0, "new"]).unwrap();
    }
}

async fn r12_a_login_that_is_revoked_ends_the_connection(at: At) {
    let user = User::add();
    let login = Credentials::plain(user.0.clone(), "old");
    let mut lossy = Lossy::open(&at, |config: Config| config.credentials(login)).await;
    let channel = lossy.channel().await;
    user.change_password();
    lossy.proxy.inject(Direction::ToClient, Fault::Cut);
    lossy.is_lost().await;
    let cause = within("the end", lossy.connection.closed()).await;
    let CloseCause::Connect(error) = &cause else { panic!("{cause:?}") };
    let ConnectError::Failed { attempts } = &**error else { panic!("{error:?}") };
    let [attempt] = &attempts[..] else { panic!("{attempts:?}") };
    assert!(matches!(attempt.failure, ConnectFailure::Authentication(_)), "{attempt:?}");
    assert_eq!(lossy.event().await, ConnectionEvent::Closed(cause.clone()));
    let error = channel.queue_declare(exclusive("revoked")).await.unwrap_err();
    assert_eq!(error, Error::Connection(cause));
    assert_eq!(lossy.proxy.accepted(), 2);
}

async fn r12_a_provider_is_asked_again(at: At) {
    let user = User::add();
    let password = Arc::new(Mutex::new("old"));
    let asked = Arc::new(AtomicUsize::new(0));
    let provider = {
        let (name, password, asked) = (user.0.clone(), Arc::clone(&password), Arc::clone(&asked));
        move || {
            asked.fetch_add(1, Ordering::SeqCst);
            Ok(Credentials::plain(name.clone(), *password.lock().unwrap()).into())
        }
    };
    let proxy = Proxy::start(at.port()).unwrap();
    let uri = at.by_port(proxy.port()).uri().to_owned();
    let at = at.to(format!("{uri}?recovery=automatic&recovery_delay=0.1"));
    let connection = at.connect_providing(provider).await.unwrap();
    let events = connection.events();
    let mut lossy = Lossy { proxy, connection, events };
    let channel = lossy.channel().await;
    let queue = channel.queue_declare(exclusive("provided")).await.unwrap();
    let mut consumer = consumer_of(&channel, queue.name()).await;
    user.change_password();
    *password.lock().unwrap() = "new";
    lossy.proxy.inject(Direction::ToClient, Fault::Cut);
    lossy.is_lost().await;
    assert_eq!(lossy.is_recovered().await, []);
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    channel.basic_publish(Publish::to_queue(queue.name(), "x")).await.unwrap();
    next(&mut consumer).await.ack().unwrap();
    lossy.connection.close().await;
}
