//! What connections cost, by a counting allocator. It counts the whole process, so these tests have
//! a process of their own and run one after another.

use adapter_tokio::{Connection, Publish, QueueDeclare, connect};
use amqp_testkit::RabbitMq;
use amqp_testkit::alloc::{Counting, counting, live_bytes};

#[global_allocator]
static ALLOCATOR: &Counting = counting();

const CONNECTIONS: usize = 20;
const CHANNELS: usize = 200;

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn memory_and_threads() {
    let broker = RabbitMq::start().unwrap_or_else(|error| panic!("{error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        idle(&broker.uri()).await;
        steady(&broker.uri()).await;
    });
}

/// T16: at most 16 KiB for an idle connection, 512 bytes for an idle channel, no thread.
async fn idle(uri: &str) {
    // The first connection pays for what the runtime sets up once.
    let first = connect(uri).await.unwrap();
    let (bytes, running) = (live_bytes(ALLOCATOR), threads());
    let mut connections: Vec<Connection> = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        connections.push(connect(uri).await.unwrap());
    }
    let each = (live_bytes(ALLOCATOR) - bytes) as usize / CONNECTIONS;
    println!("{each} bytes for an idle connection");
    assert!(each <= 16 << 10, "{each} bytes for an idle connection");
    assert_eq!(threads(), running);

    let mut channels = Vec::with_capacity(CHANNELS);
    let bytes = live_bytes(ALLOCATOR);
    for _ in 0..CHANNELS {
        channels.push(first.open_channel().await.unwrap());
    }
    let each = (live_bytes(ALLOCATOR) - bytes) as usize / CHANNELS;
    println!("{each} bytes for an idle channel");
    assert!(each <= 512, "{each} bytes for an idle channel");

    for connection in connections.into_iter().chain([first]) {
        connection.close().await;
    }
}

/// M6: publishing with confirms keeps nothing.
async fn steady(uri: &str) {
    let connection = connect(uri).await.unwrap();
    let channel = connection.open_channel().await.unwrap();
    let queue = QueueDeclare::new("steady").exclusive().argument("x-max-length", 1);
    channel.queue_declare(queue).await.unwrap();
    let publisher = channel.confirm_select().await.unwrap();
    let publish = async |count: u32| {
        for _ in 0..count / 100 {
            let mut confirms = Vec::with_capacity(100);
            for _ in 0..100 {
                let publish = Publish::new("", "steady", b"sixteen bytes...").mandatory();
                confirms.push(publisher.send(publish).await.unwrap());
            }
            for confirm in confirms {
                confirm.await.unwrap();
            }
        }
    };
    publish(10_000).await;
    let before = live_bytes(ALLOCATOR);
    publish(100_000).await;
    let grown = live_bytes(ALLOCATOR) - before;
    println!("{grown} bytes more after 100,000 publishes");
    assert!(grown < 16 << 10, "{grown} bytes more after 100,000 publishes");
    connection.close().await;
}
