//! What the broker has after each kind of loss is what was declared: as `rabbitmqctl` lists it.

use std::time::Duration;

use amqp_testkit::{Direction, Fault, RabbitMq};

use super::Lossy;
use super::api::{
    At, BasicConsume, BasicQos, CloseCause, Config, ConnectionEvent, ExchangeBind, ExchangeDeclare,
    ExchangeDelete, Heartbeat, QueueBind, QueueDeclare, QueueDelete, on_rabbitmq, on_tokio,
};
use crate::support::{fragile, sleep};

on_rabbitmq! {
    r16_rabbitmq_has_what_was_declared_after_a_loss
}

on_tokio! {
    r16_rabbitmq_has_what_was_declared_after_each_kind_of_loss
}

/// What names begin with that this test declares.
const PREFIX: &str = "recorded";

/// The exchanges, queues, bindings and consumers of this test, one a line. The queue that the broker has named has its
/// place in it, and no name.
fn listed(node: &RabbitMq, named: &str) -> Vec<String> {
    let listings = [
        "list_exchanges name type durable auto_delete internal arguments",
        "list_queues name durable auto_delete exclusive arguments",
        "list_bindings source_name destination_name destination_kind routing_key arguments",
        "list_consumers queue_name consumer_tag ack_required prefetch_count active arguments",
    ];
    let mut lines = Vec::new();
    for listing in listings {
        let arguments: Vec<&str> = listing.split(' ').collect();
        for line in node.ctl(&arguments).unwrap().lines() {
            let line = line.replace(named, &format!("{PREFIX}-by-broker"));
            if line.contains(PREFIX) {
                lines.push(format!("{} {}", arguments[0], line.replace('\t', " ")));
            }
        }
    }
    lines.sort_unstable();
    lines
}

async fn r16_rabbitmq_has_what_was_declared_after_a_loss(at: At) {
    // The listings block some adapters for longer than a short heartbeat allows.
    has_what_was_declared_after(at, Heartbeat::Server, &["reset", "close"]).await;
}

async fn r16_rabbitmq_has_what_was_declared_after_each_kind_of_loss(at: At) {
    let losses = ["end", "silence", "restart", "crash"];
    has_what_was_declared_after(at, Heartbeat::Seconds(2), &losses).await;
}

async fn has_what_was_declared_after(at: At, heartbeat: Heartbeat, losses: &[&str]) {
    let node = fragile();
    let configure = |config: Config| config.heartbeat(heartbeat);
    let mut lossy = Lossy::open(&at.to(node.uri()), configure).await;
    let channel = lossy.channel().await;
    let [source, middle, plain, quorum, exclusive, gone] =
        ["source", "middle", "plain", "quorum", "exclusive", "gone"]
            .map(|it| format!("{PREFIX}-{it}"));
    let declare = ExchangeDeclare::topic(&source).durable();
    channel.exchange_declare(declare).await.unwrap();
    channel.exchange_declare(ExchangeDeclare::fanout(&middle).auto_delete()).await.unwrap();
    channel.exchange_bind(ExchangeBind::new(&middle, &source, "kept.#")).await.unwrap();
    let declare = QueueDeclare::new(&plain).durable().max_length(100);
    channel.queue_declare(declare).await.unwrap();
    channel.queue_declare(QueueDeclare::quorum(&quorum)).await.unwrap();
    channel.queue_declare(QueueDeclare::new(&exclusive).exclusive()).await.unwrap();
    channel.queue_declare(QueueDeclare::new(&gone).durable()).await.unwrap();
    let mut named = channel.queue_declare(QueueDeclare::new("").exclusive()).await.unwrap().queue;
    for queue in [&plain, &exclusive, &named] {
        channel.queue_bind(QueueBind::new(queue, &middle, "")).await.unwrap();
    }
    let weighted = QueueBind::new(&quorum, &source, "weighted").argument("weight", 7);
    channel.queue_bind(weighted).await.unwrap();
    let unbound = QueueBind::new(&plain, "amq.topic", "unbound");
    channel.queue_bind(unbound.clone()).await.unwrap();
    channel.queue_unbind(unbound).await.unwrap();
    channel.queue_delete(QueueDelete::new(&gone)).await.unwrap();
    channel.basic_qos(BasicQos::new(5)).await.unwrap();
    let mut consumers = Vec::new();
    for consume in [
        BasicConsume::new(&plain).consumer_tag("first").priority(3),
        BasicConsume::new(&plain).prefetch(9),
        BasicConsume::new(&quorum).consumer_tag("second"),
        BasicConsume::new(&named).no_ack(),
    ] {
        consumers.push(channel.basic_consume(consume).await.unwrap());
    }
    let declared = listed(&node, &named);
    // Two exchanges, four queues and four consumers; their bindings, with those to the default exchange.
    let count = |what: &str| declared.iter().filter(|line| line.starts_with(what)).count();
    let counts = ["list_exchanges", "list_queues", "list_bindings", "list_consumers"].map(count);
    assert_eq!(counts, [2, 4, 9, 4], "{declared:#?}");
    // Definitions reach the disk a while after they are answered.
    node.ctl(&["eval", "mnesia:dump_log()."]).unwrap();

    for loss in losses {
        match *loss {
            "end" => lossy.proxy.inject(Direction::ToClient, Fault::Cut),
            "reset" => lossy.proxy.inject(Direction::ToBroker, Fault::Reset),
            "silence" => {
                for direction in [Direction::ToBroker, Direction::ToClient] {
                    lossy.proxy.inject(direction, Fault::Pause);
                }
            }
            "close" => drop(node.ctl(&["close_all_connections", "because"]).unwrap()),
            "restart" => node.restart().unwrap(),
            _ => {
                node.kill().unwrap();
                node.launch().unwrap();
            }
        }
        let cause = lossy.is_lost().await;
        match *loss {
            "silence" => assert!(matches!(cause, CloseCause::HeartbeatTimeout { .. }), "{cause:?}"),
            "close" => assert!(matches!(cause, CloseCause::ByBroker(_)), "{cause:?}"),
            // A busy node that stops may be gone before it has written a close.
            "restart" => assert!(
                matches!(cause, CloseCause::ByBroker(_) | CloseCause::Transport(_)),
                "{cause:?}"
            ),
            _ => assert!(matches!(cause, CloseCause::Transport(_)), "{loss}: {cause:?}"),
        }
        let (events, failed) = lossy.is_recovered_after().await;
        assert_eq!(failed, [], "{loss}");
        let [ConnectionEvent::QueueRenamed { from, to }] = &events[..] else {
            panic!("{events:?}")
        };
        assert_eq!(**from, *named, "{loss}");
        named = to.to_string();
        // The broker may notice the end of the old connection later.
        let mut present = listed(&node, &named);
        for _ in 0..20 {
            if present == declared {
                break;
            }
            sleep(Duration::from_millis(200)).await;
            present = listed(&node, &named);
        }
        assert_eq!(present, declared, "{loss}");
    }
    drop(consumers);
    for queue in [&plain, &quorum] {
        channel.queue_delete(QueueDelete::new(queue)).await.unwrap();
    }
    channel.exchange_delete(ExchangeDelete::new(&source)).await.unwrap();
    lossy.connection.close().await;
}
