//! The arguments of handlers, and handlers that acknowledge their message themselves.

use amqp_app::prelude::*;
use amqp_async::ConnectError;

use crate::at::{At, Log, Make, beside, header, on_model, on_rabbitmq, source, text, until};

on_model! {
    a_payload_has_the_format_of_its_content_type
    arguments_come_in_any_order
    an_argument_that_cannot_be_read_fails_the_message_or_is_none
    pu_9_a_handler_that_takes_the_delivery_acknowledges_it
    a_delivery_is_given_back_when_another_argument_fails
    functions_that_block_have_a_thread
}

on_rabbitmq! {
    a_payload_has_the_format_of_its_content_type
}

#[derive(serde::Deserialize, serde::Serialize)]
struct Order {
    id: u64,
}

async fn a_payload_has_the_format_of_its_content_type<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("formats").await;
    let handler = async |Payload(order): Payload<Order>, State(log): State<Log>| {
        log.add(order.id.to_string());
    };
    let report = beside(at.app().consume(source(queue.as_str()), handler), async |_| {
        let order = |id| Order { id };
        for message in [
            Message::json(&order(1)).unwrap(),
            Message::json(&order(2)).unwrap().content_type("Application/vnd.order+JSON; v=1"),
            Message::json(&order(3)).unwrap().property(|properties| properties.content_type = None),
            Message::cbor(&order(4)).unwrap(),
            Message::cbor(&order(5)).unwrap().content_type("application/order+cbor"),
            Message::msgpack(&order(6)).unwrap(),
            Message::msgpack(&order(7)).unwrap().content_type("application/x-msgpack"),
        ] {
            client.publish(message.to_queue(&queue)).await;
        }
        at.log.reach(7).await;
        let xml = Message::cbor(&order(8)).unwrap().content_type("text/xml");
        client.publish(xml.to_queue(&queue)).await;
        let parked = client.expect(&format!("{queue}.parked")).await;
        let reason = header(&parked, "retry-error").unwrap();
        for named in ["\"text/xml\"", "application/json", "application/cbor", "application/msgpack"]
        {
            assert!(reason.contains(named), "{reason}");
        }
    })
    .await;
    let mut lines = at.log.lines();
    lines.sort_unstable();
    assert_eq!(lines, ["1", "2", "3", "4", "5", "6", "7"]);
    assert_eq!((report.handled, report.parked, report.retried), (7, 1, 0));
}

async fn arguments_come_in_any_order<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("arguments").await;
    let handler = async |Attempt(attempt): Attempt,
                         Json(order): Json<Order>,
                         Headers(headers): Headers,
                         State(log): State<Log>,
                         properties: Properties,
                         Redelivered(redelivered): Redelivered,
                         Payload(again): Payload<Order>,
                         QueueName(queue): QueueName,
                         MessageId(id): MessageId,
                         Body(body): Body,
                         Deadline(deadline): Deadline,
                         context: Context<Log>| {
        assert_eq!((order.id, again.id, &body[..]), (7, 7, &b"{\"id\":7}"[..]));
        assert_eq!((attempt, redelivered, deadline.is_some()), (1, false, true));
        assert_eq!(properties.message_id, id);
        assert_eq!(context.queue(), queue);
        log.add(format!("{} {}", id.unwrap(), headers.get("a").unwrap().as_str().unwrap()));
    };
    let consume = source(queue.as_str()).timeout(Duration::from_secs(60));
    let report = beside(at.app().consume(consume, handler), async |_| {
        let order = Message::json(&Order { id: 7 }).unwrap().message_id("m").header("a", "b");
        client.publish(order.to_queue(&queue)).await;
        at.log.reach(1).await;
    })
    .await;
    assert_eq!((at.log.lines(), report.handled), (vec!["m b".to_owned()], 1));
}

async fn an_argument_that_cannot_be_read_fails_the_message_or_is_none<P: Make>(at: At<P>) {
    let client = at.client().await;
    let [strict, lenient] = [client.queue("strict").await, client.queue("lenient").await];
    let tolerant =
        async |order: Option<Json<Order>>, text: Result<Text, Failure>, State(log): State<Log>| {
            log.add(format!("{} {}", order.is_some(), text.is_ok()));
        };
    let app = at.app().consume(source(strict.as_str()), async |Payload(_): Payload<Order>| {});
    let report = beside(app.consume(source(lenient.as_str()), tolerant), async |_| {
        client.send(&strict, "no json").await;
        let yaml = Message::new("id: 7").content_type("application/yaml");
        client.publish(yaml.to_queue(&strict)).await;
        client.send(&lenient, "no json").await;
        let parked = format!("{strict}.parked");
        let reason = header(&client.expect(&parked).await, "retry-error").unwrap();
        assert!(reason.contains("expected"), "{reason}");
        let reason = header(&client.expect(&parked).await, "retry-error").unwrap();
        assert!(reason.contains("application/yaml"), "{reason}");
        at.log.reach(1).await;
    })
    .await;
    assert_eq!(at.log.lines(), ["false true"]);
    assert_eq!((report.handled, report.failed, report.parked, report.retried), (1, 2, 2, 0));
}

async fn pu_9_a_handler_that_takes_the_delivery_acknowledges_it<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("owned").await;
    let handler = async |delivery: Delivery, State(log): State<Log>| -> Result<(), Failure> {
        let (body, again) = (text(&delivery), delivery.redelivered());
        log.add(format!("{body} {again}"));
        match (body.as_str(), again) {
            ("ack", _) | (_, true) => delivery.ack()?,
            ("requeue", _) => delivery.requeue()?,
            // Dropped: it goes back into its queue.
            _ => return Err("the policy does not see this".into()),
        }
        Ok(())
    };
    let report = beside(at.app().consume(source(queue.as_str()), handler), async |_| {
        for (body, lines) in [("ack", 1), ("requeue", 3), ("drop", 5)] {
            client.send(&queue, body).await;
            at.log.reach(lines).await;
        }
        until("every ack", async || {
            at.model.as_ref().is_none_or(|model| model.held().unacknowledged == 0)
        })
        .await;
    })
    .await;
    assert_eq!(
        at.log.lines(),
        ["ack false", "requeue false", "requeue true", "drop false", "drop true"]
    );
    assert_eq!((report.handled, report.failed, report.parked), (4, 1, 0));
}

async fn a_delivery_is_given_back_when_another_argument_fails<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("torn").await;
    let handler = async |delivery: Delivery, Json(_): Json<Order>| delivery.ack();
    let report = beside(at.app().consume(source(queue.as_str()), handler), async |_| {
        client.send(&queue, "no json").await;
        assert_eq!(client.bodies(&format!("{queue}.parked"), 1).await, ["no json"]);
    })
    .await;
    assert_eq!((report.parked, report.failed), (1, 1));
}

async fn functions_that_block_have_a_thread<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("blocking").await;
    let (heard, caller) = (at.log.clone(), std::thread::current().id());
    let handler = move |Text(text): Text| -> Result<Message, ConnectError> {
        assert_ne!(std::thread::current().id(), caller);
        assert_ne!(text, "panic");
        heard.add(text.clone());
        Ok(Message::new(text).to_queue("answers"))
    };
    client.channel.queue_declare(QueueDeclare::classic("answers")).await.unwrap();
    let policy = Retry::none();
    let consume = source(queue.as_str()).on_failure(policy);
    let report = beside(at.app().consume(consume, blocking(handler)), async |_| {
        client.send(&queue, "one").await;
        client.send(&queue, "panic").await;
        assert_eq!(client.bodies("answers", 1).await, ["one"]);
        assert_eq!(client.bodies(&format!("{queue}.parked"), 1).await, ["panic"]);
    })
    .await;
    assert_eq!((report.handled, report.panicked, report.parked), (1, 1, 1));
    at.log.reach(1).await;
}
