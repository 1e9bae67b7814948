//! What the tests share.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use amqp_async::core::{Error, QueueDeclare};
use amqp_testkit::{ModelBroker, RabbitMq};
use smol::lock::{Mutex, MutexGuard};

use crate::tls_server::TlsServer;

/// The RabbitMQ that all tests share; its guard removes it when the process ends.
pub(crate) fn rabbitmq() -> &'static RabbitMq {
    static NODE: LazyLock<RabbitMq> =
        LazyLock::new(|| RabbitMq::start().unwrap_or_else(|error| panic!("{error}")));
    &NODE
}

/// A RabbitMQ that may be disturbed, by one test at a time. It is to be left as it was found.
pub(crate) fn fragile() -> MutexGuard<'static, RabbitMq> {
    static NODE: LazyLock<Mutex<RabbitMq>> =
        LazyLock::new(|| Mutex::new(RabbitMq::start().unwrap_or_else(|error| panic!("{error}"))));
    // Every test has a thread of its own.
    NODE.lock_blocking()
}

/// The RabbitMQ that is tested against, as `(major, minor)`.
pub(crate) fn rabbitmq_version() -> (u32, u32) {
    static VERSION: LazyLock<(u32, u32)> = LazyLock::new(|| {
        let version = rabbitmq().ctl(&["version"]).unwrap();
        let mut parts = version.trim().split('.').map(|part| part.parse().unwrap());
        (parts.next().unwrap(), parts.next().unwrap())
    });
    *VERSION
}

/// The version that a broker behaves as: the model is like RabbitMQ 3.10.
pub(crate) fn version(port: u16) -> (u32, u32) {
    if port == model().port() { (3, 10) } else { rabbitmq_version() }
}

/// The model broker that all tests share.
pub(crate) fn model() -> &'static ModelBroker {
    static BROKER: LazyLock<ModelBroker> = LazyLock::new(|| ModelBroker::start().unwrap());
    &BROKER
}

/// The same, behind TLS.
pub(crate) fn model_over_tls() -> &'static TlsServer {
    static SERVER: LazyLock<TlsServer> = LazyLock::new(|| TlsServer::trusted(model().port()));
    &SERVER
}

/// The port in a broker's URI.
pub(crate) fn port(uri: &str) -> u16 {
    let (_, rest) = uri.rsplit_once(':').unwrap();
    rest.split('/').next().unwrap().parse().unwrap()
}

/// A URI of connections that end when they are lost, unless it says otherwise. Most tests look at that end; those of
/// recovery set their policy.
pub(crate) fn ends(uri: &str) -> String {
    match uri {
        _ if uri.contains("recovery=") => uri.to_owned(),
        _ if uri.contains('?') => format!("{uri}&recovery=never"),
        _ => format!("{uri}?recovery=never"),
    }
}

/// A name that no other test uses.
pub(crate) fn unique(name: &str) -> String {
    static NAMES: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}", NAMES.fetch_add(1, Ordering::Relaxed))
}

/// A queue that goes with its connection.
pub(crate) fn exclusive(name: &str) -> QueueDeclare {
    QueueDeclare::new(unique(name)).exclusive()
}

/// The reply code of a broker's refusal.
#[track_caller]
pub(crate) fn code(error: &Error) -> u16 {
    error.reply_code().unwrap_or_else(|| panic!("not refused by the broker: {error:?}")).code()
}

/// The threads of this process that bear this name.
pub(crate) fn threads_named(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|it| it.trim() == name).count()
}

/// The open sockets that are connected to this port of 127.0.0.1. One that was closed has no inode, even while the system
/// still keeps it.
pub(crate) fn sockets_to(port: u16) -> usize {
    let peer = format!("0100007F:{port:04X}");
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let sockets = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    sockets.filter(|fields| fields[2] == peer && fields[9] != "0").count()
}

/// Sleeps, on any runtime.
pub(crate) async fn sleep(time: Duration) {
    smol::Timer::after(time).await;
}

/// Lets others have their turn, on any runtime.
pub(crate) async fn yield_now() {
    smol::future::yield_now().await;
}

/// The output if it comes within `time`, on any runtime.
pub(crate) async fn timeout<F: IntoFuture>(time: Duration, future: F) -> Option<F::Output> {
    let future = future.into_future();
    smol::future::or(async { Some(future.await) }, async {
        sleep(time).await;
        None
    })
    .await
}

/// Fails the test if `future` takes longer than anything should.
pub(crate) async fn within<F: IntoFuture>(what: &str, future: F) -> F::Output {
    let patience = Duration::from_secs(60);
    timeout(patience, future).await.unwrap_or_else(|| panic!("{what}: nothing within 60 s"))
}
