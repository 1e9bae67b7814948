//! Requests and their replies, for one platform.

use std::time::Duration;

use amqp_app::{Json, Member, Message, Pool, Reply, RequestError, Requester};
use amqp_async::{ExchangeDeclare, QueueBind, QueueDeclare};

use super::api::{Connector, handle, run, wait};
use crate::support::{ends, unique};

mod on_model {
    #[test]
    fn requests_get_their_replies() {
        super::run(super::requests_get_their_replies(crate::support::model().uri()));
    }
}

mod on_rabbitmq {
    #[test]
    fn requests_get_their_replies() {
        super::run(super::requests_get_their_replies(crate::support::rabbitmq().uri()));
    }
}

const LONG: Duration = Duration::from_secs(50);

async fn responder(
    member: &Member<Connector>,
    queue: &str,
    factor: u64,
) -> amqp_app::Listening<Connector> {
    let handler = move |Json(number): Json<u64>| handle!({ Reply(Json(number * factor)) });
    wait!(member.consume_with(queue, handler)).unwrap()
}

/// A requester has one channel, until its last clone is dropped.
async fn channels_are_shared(member: &Member<Connector>, queue: &str) {
    // The responders open theirs with their first replies.
    let requester = Requester::new(member);
    let request = || Message::json(&1).unwrap().to_queue(queue);
    wait!(requester.request(request(), LONG)).unwrap();
    let channels = member.stats().channels;
    for _ in 0..3 {
        wait!(requester.clone().request(request(), LONG)).unwrap();
    }
    assert_eq!(member.stats().channels, channels);
    drop(requester);
    while member.stats().channels >= channels {
        crate::support::sleep(Duration::from_millis(5)).await;
    }
}

async fn requests_get_their_replies(uri: String) {
    let pool = wait!(Pool::new(Connector::new(&ends(&uri)).unwrap(), 2).connect()).unwrap();
    let member = wait!(pool.connection()).unwrap();
    let channel = wait!(member.open_channel()).unwrap();
    let exchange = unique("factors");
    wait!(channel.exchange_declare(ExchangeDeclare::fanout(&exchange).auto_delete())).unwrap();
    let (mut queues, mut responders) = (Vec::new(), Vec::new());
    for factor in 1..4 {
        let queue = unique("factor");
        wait!(channel.queue_declare(QueueDeclare::new(&queue).exclusive())).unwrap();
        wait!(channel.queue_bind(QueueBind::new(&queue, &exchange, ""))).unwrap();
        responders.push(responder(&member, &queue, factor).await);
        queues.push(queue);
    }
    channels_are_shared(&member, &queues[0]).await;
    for requester in [Requester::new(&member), Requester::on(&pool)] {
        for number in 0..10 {
            let request = Message::json(&number).unwrap().to_queue(&queues[2]);
            let response = wait!(requester.request(request, LONG)).unwrap();
            assert_eq!(response.json::<u64>().unwrap(), number * 3);
            assert_eq!(response.payload::<u64>().unwrap(), number * 3);
            assert!(response.header("references").is_some());
        }
        let request = Message::json(&7).unwrap().to(&exchange, "");
        let replies = wait!(requester.request_many(request, 3, LONG)).unwrap();
        let mut products: Vec<_> = replies.iter().map(|it| it.json::<u64>().unwrap()).collect();
        products.sort_unstable();
        assert_eq!(products, [7, 14, 21]);
        let nowhere = Message::new("").to_queue(unique("nowhere"));
        let error = wait!(requester.request(nowhere, LONG)).unwrap_err();
        assert!(matches!(error, RequestError::Unroutable { .. }), "{error:?}");
        // At the same time, from threads of their own.
        let threads: Vec<_> = (0..8_u64)
            .map(|number| {
                let (requester, queue) = (requester.clone(), queues[1].clone());
                std::thread::spawn(move || {
                    run(async move {
                        let request = Message::json(&number).unwrap().to_queue(queue);
                        let response = wait!(requester.request(request, LONG)).unwrap();
                        assert_eq!(response.json::<u64>().unwrap(), number * 2);
                    });
                })
            })
            .collect();
        while !threads.iter().all(|it| it.is_finished()) {
            crate::support::sleep(Duration::from_millis(5)).await;
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!((requester.stats().waiting, requester.stats().late), (0, 0));
    }
    for responder in responders {
        wait!(responder.cancel()).unwrap();
    }
    wait!(pool.close());
}
