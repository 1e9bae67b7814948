//! `Vhost`: a virtual host of a RabbitMQ, for one test.

use std::process::Command;
use std::sync::Mutex;
use std::{env, fmt};

use amqp_async::{Channel, Delivery, Error as ClientError, QueueDeclare};
#[cfg(feature = "threads")]
use amqp_blocking::Connector;
use amqp_testkit::RabbitMq;
use serde::Serialize;
use serde::de::DeserializeOwned;

#[cfg(feature = "threads")]
use super::fixture::blocked;
use super::fixture::{Fixture, Pace, awaited, methods};
use crate::app::{App, report::Report};
use crate::ids;
use crate::limits::{VHOST_PATIENCE, VHOST_POLL};
use crate::message::Message;
use crate::platform::{Asynchronous, Platform};
use crate::sync::lock;

/// A virtual host of a RabbitMQ that runs, for one test. It is created with all permissions, and deleted when it is dropped, with
/// everything in it.
///
/// Methods panic when something fails, or when nothing happens within 60 s: they are for tests. Creation and deletion block the
/// thread for as long as `rabbitmqctl` takes, about a second each. On threads, with
/// `amqp_blocking::Connector`, all methods block, and are not asynchronous: `Vhost::create_on_threads`.
///
/// ```no_run
/// use amqp_app::prelude::*;
/// use amqp_app::testing::Vhost;
/// use amqp_testkit::RabbitMq;
/// use amqp_tokio::Connector;
///
/// # async fn example() {
/// let broker = RabbitMq::start().unwrap();
/// let vhost = Vhost::create(&broker, Connector::new).await;
/// for queue in ["orders", "answers"] {
///     vhost.queue(queue).await;
/// }
/// let handler = async |Json(order): Json<u32>| Message::new((order + 1).to_string()).to_queue("answers");
/// vhost.run(App::new(vhost.platform()).consume("orders", handler)).await;
/// vhost.send("orders", &7).await;
/// assert_eq!(vhost.expect::<u32>("answers").await, 8);
/// assert_eq!(vhost.stop().await.handled, 1);
/// # }
/// ```
#[derive(Debug)]
pub struct Vhost<'a, P> {
    fixture: Fixture<P>,
    /// The channel on which queues are looked up.
    lookups: Mutex<Option<Channel>>,
    host: Host<'a>,
}

impl<'a, P: Asynchronous> Vhost<'a, P> {
    /// Creates a virtual host on a node, and connects a client of the test. Takes a function that makes a connector of a URI,
    /// such as `amqp_tokio::Connector::new`.
    pub async fn create<E: fmt::Debug>(
        broker: &'a RabbitMq,
        connect: impl Fn(&str) -> Result<P, E>,
    ) -> Self {
        Self::on(Host::create(Node::of(broker)), connect).await
    }

    methods!(P, Delivery, awaited, async);
}

impl<P: Asynchronous> Vhost<'static, P> {
    /// Creates a virtual host on the node that variables of the environment name, and connects a client of the test.
    ///
    /// | variable | meaning | default |
    /// | --- | --- | --- |
    /// | `AMQP_HOSTNAME` | the host of the node | `localhost` |
    /// | `AMQP_PORT` | its port | 5672 |
    /// | `AMQP_USERNAME`, `AMQP_PASSWORD` | the user of the test | `guest` |
    /// | `AMQP_RABBITMQCTL` | the command with its arguments, split at spaces | `rabbitmqctl` |
    /// | `AMQP_VIRTUALHOST` | the virtual host to use, which is not deleted | a new one |
    pub async fn from_environment<E: fmt::Debug>(connect: impl Fn(&str) -> Result<P, E>) -> Self {
        Self::on(Host::of_variables(|name| env::var(name).ok()), connect).await
    }
}

/// The same on threads: the methods block the calling thread.
#[cfg(feature = "threads")]
impl<'a> Vhost<'a, Connector> {
    /// Creates a virtual host on a node, and connects a client of the test. Takes a function that makes a connector of a URI,
    /// such as `amqp_blocking::Connector::new`.
    pub fn create_on_threads<E: fmt::Debug>(
        broker: &'a RabbitMq,
        connect: impl Fn(&str) -> Result<Connector, E>,
    ) -> Self {
        blocked!(Self::on(Host::create(Node::of(broker)), connect))
    }

    methods!(Connector, amqp_blocking::Delivery, blocked);
}

#[cfg(feature = "threads")]
impl Vhost<'static, Connector> {
    /// Creates a virtual host on the node that variables of the environment name, as on other platforms, and connects a client
    /// of the test.
    pub fn from_environment_on_threads<E: fmt::Debug>(
        connect: impl Fn(&str) -> Result<Connector, E>,
    ) -> Self {
        blocked!(Self::on(Host::of_variables(|name| env::var(name).ok()), connect))
    }
}

impl<'a, P: Platform> Vhost<'a, P> {
    async fn on<E: fmt::Debug>(host: Host<'a>, connect: impl Fn(&str) -> Result<P, E>) -> Self {
        let pace = Pace { patience: VHOST_PATIENCE, poll: VHOST_POLL };
        let fixture = Fixture::connect(connect, &host.uri(), pace).await;
        Self { fixture, lookups: Mutex::default(), host }
    }

    /// Returns the platform of the application: its connections go to the virtual host.
    pub fn platform(&self) -> P {
        self.fixture.platform.clone()
    }

    /// Returns the name of the virtual host.
    pub fn name(&self) -> &str {
        &self.host.name
    }

    /// Returns the URI of the virtual host, for further connections.
    pub fn uri(&self) -> String {
        self.host.uri()
    }

    /// A queue that is not declared closes the channel. The next look opens another one.
    async fn has_one(&self, queue: &str) -> Result<bool, ClientError> {
        let kept = lock(&self.lookups).take();
        let channel = match kept {
            Some(channel) => channel,
            None => self.fixture.connection.open_channel().await?,
        };
        let declared = channel.queue_declare(QueueDeclare::passive(queue)).await?;
        *lock(&self.lookups) = Some(channel);
        Ok(declared.message_count > 0)
    }
}

/// How a node is administered.
#[derive(Debug)]
enum Ctl<'a> {
    Of(&'a RabbitMq),
    /// A command and its first arguments.
    Command(Vec<String>),
}

#[derive(Debug)]
struct Node<'a> {
    /// The URI without a virtual host.
    base: String,
    user: String,
    ctl: Ctl<'a>,
}

impl<'a> Node<'a> {
    fn of(broker: &'a RabbitMq) -> Self {
        Self {
            base: format!("amqp://guest:guest@127.0.0.1:{}", broker.port()),
            user: "guest".into(),
            ctl: Ctl::Of(broker),
        }
    }

    fn ctl(&self, arguments: &[&str]) -> Result<(), String> {
        match &self.ctl {
            Ctl::Of(broker) => broker.ctl(arguments).map(drop).map_err(|error| error.to_string()),
            Ctl::Command(command) => {
                let (program, first) = command.split_first().ok_or("no command")?;
                let output = Command::new(program).args(first).args(arguments).output();
                let output = output.map_err(|error| format!("{program}: {error}"))?;
                let text = String::from_utf8_lossy(&output.stderr);
                let status = output.status;
                if status.success() { Ok(()) } else { Err(format!("{program}: {status}: {text}")) }
            }
        }
    }
}

/// A virtual host, which is deleted when this is dropped, if it was created.
#[derive(Debug)]
struct Host<'a> {
    node: Node<'a>,
    name: String,
    is_created: bool,
}

impl<'a> Host<'a> {
    fn create(node: Node<'a>) -> Self {
        let host = Self { node, name: format!("test-{}", ids::unique()), is_created: true };
        let (name, user) = (host.name.as_str(), host.node.user.as_str());
        let grant = ["set_permissions", "-p", name, user, ".*", ".*", ".*"];
        for arguments in [&["add_vhost", name][..], &grant] {
            let done = host.node.ctl(arguments);
            done.unwrap_or_else(|error| panic!("virtual host {name:?}: {error}"));
        }
        host
    }

    fn uri(&self) -> String {
        format!("{}/{}", self.node.base, encoded(&self.name))
    }
}

impl Host<'static> {
    fn of_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let or = |name, default: &str| variable(name).unwrap_or_else(|| default.to_owned());
        let user = or("AMQP_USERNAME", "guest");
        let login = format!("{}:{}", encoded(&user), encoded(&or("AMQP_PASSWORD", "guest")));
        let address = format!("{}:{}", or("AMQP_HOSTNAME", "localhost"), or("AMQP_PORT", "5672"));
        let command = or("AMQP_RABBITMQCTL", "rabbitmqctl");
        let ctl = Ctl::Command(command.split_whitespace().map(str::to_owned).collect());
        let node = Node { base: format!("amqp://{login}@{address}"), user, ctl };
        match variable("AMQP_VIRTUALHOST") {
            Some(name) => Self { node, name, is_created: false },
            None => Self::create(node),
        }
    }
}

impl Drop for Host<'_> {
    fn drop(&mut self) {
        if self.is_created {
            // The broker may have ended, and with it everything.
            drop(self.node.ctl(&["delete_vhost", &self.name]));
        }
    }
}

/// Text in a URI: what is not a letter or a digit of ASCII is written as its bytes.
fn encoded(text: &str) -> String {
    let encoded = text.bytes().map(|byte| match byte {
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' => {
            char::from(byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    });
    encoded.collect()
}

#[cfg(test)]
mod tests {
    use super::Host;

    #[test]
    fn variables_name_a_broker_elsewhere() {
        let variables = |name: &str| match name {
            "AMQP_HOSTNAME" => Some("broker".to_owned()),
            "AMQP_USERNAME" => Some("me@home".to_owned()),
            "AMQP_VIRTUALHOST" => Some("/test".to_owned()),
            _ => None,
        };
        let host = Host::of_variables(variables);
        assert_eq!(host.uri(), "amqp://me%40home:guest@broker:5672/%2Ftest");
    }
}
