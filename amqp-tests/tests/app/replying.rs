//! What handlers send: confirmed and mandatory before their message is acknowledged.

use std::collections::BTreeSet;

use amqp_app::prelude::*;

use crate::at::{
    At, Log, Make, beside, header, on_model, on_rabbitmq, source, text, unique, until,
};

on_model! {
    gr_5_gr_14_gr_15_replies_have_the_ids_of_their_request
    gr_16_what_is_sent_deep_down_goes_with_the_replies_and_only_on_success
    u_1_a_request_is_acknowledged_behind_its_replies
    u_5_a_message_that_reaches_no_queue_parks_its_request
    a_reply_goes_to_its_requester
    pu_7_a_missing_exchange_takes_no_other_confirms_with_it
}

on_rabbitmq! {
    gr_5_gr_14_gr_15_replies_have_the_ids_of_their_request
    gr_16_what_is_sent_deep_down_goes_with_the_replies_and_only_on_success
    u_5_a_message_that_reaches_no_queue_parks_its_request
    a_reply_goes_to_its_requester
    pu_7_a_missing_exchange_takes_no_other_confirms_with_it
}

async fn gr_5_gr_14_gr_15_replies_have_the_ids_of_their_request<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("requests").await;
    let answers = client.queue("answers").await;
    let to = answers.clone();
    let handler = move |Text(text): Text| {
        let [first, second] =
            ["a", "b"].map(|it| Message::new(format!("{text}{it}")).to_queue(&to));
        let second = second.message_id("mine").correlation_id("its").priority(7);
        let second = second.content_type("text/plain").header("colour", "blue");
        std::future::ready([first, second])
    };
    let report = beside(at.app().consume(source(queue.as_str()), handler), async |_| {
        let request = Message::new("1").message_id("r").header("references", "q");
        client.publish(request.to_queue(&queue)).await;
        client.send(&queue, "2").await;
        let mut seen = Vec::new();
        for _ in 0..4 {
            let delivery = client.expect(&answers).await;
            let properties = delivery.properties().unwrap();
            let (id, correlation) = (properties.message_id.unwrap(), properties.correlation_id);
            assert_eq!(properties.delivery_mode, Some(2));
            assert!(properties.timestamp.is_some());
            let set = (properties.content_type, properties.priority, header(&delivery, "colour"));
            let expected = (Some("text/plain".to_owned()), Some(7), Some("blue".to_owned()));
            assert_eq!(set, if id == "mine" { expected } else { (None, None, None) });
            seen.push((text(&delivery), id, correlation, header(&delivery, "references")));
            delivery.ack().unwrap();
        }
        let [first, second, third, fourth] = seen.try_into().unwrap();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(first, ("1a".into(), "r#0".into(), some("r"), some("q\nr")));
        assert_eq!(second, ("1b".into(), "mine".into(), some("its"), some("q\nr")));
        // A request without an id: a new one, and nothing that refers to it.
        assert_eq!((third.0.as_str(), third.2, third.3), ("2a", None, None));
        assert!(third.1.len() > 20, "{}", third.1);
        assert_eq!((fourth.0.as_str(), fourth.1.as_str()), ("2b", "mine"));
    })
    .await;
    assert_eq!(report.handled, 2);
}

async fn gr_16_what_is_sent_deep_down_goes_with_the_replies_and_only_on_success<P: Make>(
    at: At<P>,
) {
    let client = at.client().await;
    let queue = client.queue("requests").await;
    let answers = client.queue("answers").await;
    let to = answers.clone();
    let handler = move |Text(text): Text, outgoing: Outgoing| {
        outgoing.send(Message::new(format!("{text} deep")).to_queue(&to));
        let reply = Message::new(format!("{text} reply")).to_queue(&to);
        let failed = text == "fail";
        async move { if failed { Err(Failure::permanent("no")) } else { Ok(reply) } }
    };
    beside(at.app().consume(source(queue.as_str()), handler), async |_| {
        client.send(&queue, "fail").await;
        client.send(&queue, "go").await;
        assert_eq!(client.bodies(&answers, 2).await, ["go reply", "go deep"]);
    })
    .await;
    assert_eq!(client.ready(&answers).await, 0);
    assert_eq!(client.ready(&format!("{queue}.parked")).await, 1);
}

/// The broker blocks the connection that publishes, once it has taken its first reply. The request of the second stays
/// unacknowledged until it is confirmed, while the connection that consumes goes on.
async fn u_1_a_request_is_acknowledged_behind_its_replies<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("requests").await;
    let answers = client.queue("answers").await;
    let to = answers.clone();
    let model = at.model.as_ref().unwrap();
    client.send(&queue, "1").await;
    client.send(&queue, "2").await;
    let handler = move |Text(text): Text, State(log): State<Log>| {
        log.add(text.as_str());
        std::future::ready(Message::new(text).to_queue(&to))
    };
    let report = beside(at.app().consume(source(queue.as_str()), handler), async |_| {
        at.log.reach(2).await;
        until("the first reply", async || model.ready(&answers) == Some(1)).await;
        until("the first ack", async || model.held().unacknowledged == 1).await;
        model.set_alarm(None);
        until("the second reply", async || model.ready(&answers) == Some(2)).await;
        until("the ack", async || model.held().unacknowledged == 0).await;
    });
    model.set_alarm(Some("memory"));
    assert_eq!(report.await.handled, 2);
}

async fn u_5_a_message_that_reaches_no_queue_parks_its_request<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("requests").await;
    let key = unique("nobody");
    let handler = move |Text(text): Text| {
        std::future::ready(match text.as_str() {
            "optional" => Message::new(text).to("amq.topic", &key).optional(),
            _ => Message::new(text).to("amq.topic", &key),
        })
    };
    let report = beside(at.app().consume(source(queue.as_str()), handler), async |_| {
        client.send(&queue, "optional").await;
        client.send(&queue, "mandatory").await;
        let parked = client.expect(&format!("{queue}.parked")).await;
        assert_eq!(text(&parked), "mandatory");
        let reason = header(&parked, "retry-error").unwrap();
        assert!(reason.contains("reached no queue") && reason.contains("nobody"), "{reason}");
        parked.ack().unwrap();
    })
    .await;
    assert_eq!((report.handled, report.unroutable, report.parked), (1, 1, 1));
}

async fn a_reply_goes_to_its_requester<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("rpc").await;
    let answers = client.queue("answers").await;
    let handler = async |Text(text): Text| Reply(format!("{text} to you"));
    let report = beside(at.app().consume(source(queue.as_str()), handler), async |_| {
        let request = |body: &str| Message::new(body.to_owned()).to_queue(&queue);
        client.publish(request("hello").reply_to(&answers).correlation_id("7")).await;
        let answer = client.expect(&answers).await;
        assert_eq!(text(&answer), "hello to you");
        assert_eq!(answer.properties().unwrap().correlation_id.as_deref(), Some("7"));
        answer.ack().unwrap();
        // The requester is gone: its request is done all the same.
        client.publish(request("gone").reply_to(unique("gone"))).await;
        // No requester is named: a mistake of the requester.
        client.publish(request("nameless")).await;
        assert_eq!(client.bodies(&format!("{queue}.parked"), 1).await, ["nameless"]);
    })
    .await;
    assert_eq!((report.handled, report.unroutable, report.parked), (2, 1, 1));
}

/// A publish to a missing exchange closes its channel. Half of the handlers do it, at once with the others.
async fn pu_7_a_missing_exchange_takes_no_other_confirms_with_it<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("mixed").await;
    let answers = client.queue("answers").await;
    let exchange = unique("late");
    client.channel.exchange_declare(ExchangeDeclare::fanout(&exchange)).await.unwrap();
    client.channel.queue_bind(QueueBind::new(&answers, &exchange, "")).await.unwrap();
    let (to, late) = (answers.clone(), exchange.clone());
    let handler = move |Text(text): Text, State(log): State<Log>| {
        log.add(&text);
        std::future::ready(match text.split(' ').next().unwrap() {
            "bad" => Message::new(text).to("no-such-exchange", "key"),
            "late" => Message::new(text).to(&late, ""),
            _ => Message::new(text).to_queue(&to),
        })
    };
    let consume = source(queue.as_str()).concurrency(8).on_failure(Retry::now(1));
    let report = beside(at.app().consume(consume, handler), async |_| {
        client.send(&queue, "late 0").await;
        assert_eq!(client.bodies(&answers, 1).await, ["late 0"]);
        // It was found a moment ago, and is gone now: the first publish to it closes the channel of all.
        client.channel.exchange_delete(ExchangeDelete::new(&exchange)).await.unwrap();
        for number in 0..20 {
            for kind in ["good", "bad", "late"] {
                client.send(&queue, format!("{kind} {number}")).await;
            }
        }
        let parking = format!("{queue}.parked");
        let (mut answered, mut parked) = (BTreeSet::new(), BTreeSet::new());
        while answered.len() < 20 {
            answered.extend(client.bodies(&answers, 1).await);
        }
        // A copy whose confirm was lost with its channel is sent again: it may be there twice.
        while parked.len() < 40 {
            parked.extend(client.bodies(&parking, 1).await);
        }
        assert!(answered.iter().all(|it| it.starts_with("good")), "{answered:?}");
        assert!(parked.iter().all(|it| !it.starts_with("good")), "{parked:?}");
    })
    .await;
    assert_eq!((report.handled, report.parked, report.retried), (21, 40, 0));
}
