//! Requests and their replies: at once from many tasks, with wrong ones among them, and through a connection that is cut at
//! each stage.

use amqp_app::prelude::*;
use amqp_app::{Blame, Pool, RequestError};
use amqp_proto::ShortStr;
use amqp_proto::method::{basic, queue};
use amqp_testkit::raw_connection::nested_headers;
use amqp_testkit::{Direction, Fault, Proxy, RawConnection};

use crate::at::{At, Make, beside, on_model, on_rabbitmq, sleep, source, text, unique, until};

on_model! {
    many_requests_share_a_channel_with_wrong_ones
    a_request_survives_a_cut_at_each_stage_or_says_what_may_have_happened
    a_late_reply_is_dropped_and_counted
    a_malformed_reply_is_the_error_of_its_request_alone
    a_requester_on_a_pool_takes_another_connection
}

on_rabbitmq! {
    many_requests_share_a_channel_with_wrong_ones
    a_request_survives_a_cut_at_each_stage_or_says_what_may_have_happened
    a_late_reply_is_dropped_and_counted
    a_malformed_reply_is_the_error_of_its_request_alone
    a_requester_on_a_pool_takes_another_connection
}

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(50);

async fn all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut outputs = Vec::new();
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        futures.retain_mut(|future| match future.as_mut().poll(cx) {
            std::task::Poll::Ready(output) => {
                outputs.push(output);
                false
            }
            std::task::Poll::Pending => true,
        });
        if futures.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    outputs
}

/// Requests to an exchange that is missing, and to no queue, do not disturb the others.
async fn many_requests_share_a_channel_with_wrong_ones<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("echo").await;
    let pool = Pool::new(at.platform.clone(), 1).connect().await.unwrap();
    let member = pool.connection().await.unwrap();
    let requester = Requester::new(&member);
    let handler = async |Text(text): Text| Reply(text);
    let consume = source(queue.as_str()).concurrency(8);
    let report = beside(at.app().consume(consume, handler), async |_| {
        let asking = all((0..100).map(|number| {
            let (requester, queue) = (requester.clone(), &queue);
            async move {
                let body = number.to_string();
                let request = Message::new(body.clone());
                let request = match number % 10 {
                    3 => request.to("no-such-exchange", "key"),
                    6 => request.to_queue("no-such-queue"),
                    _ => request.to_queue(queue),
                };
                (number, requester.request(request, LONG).await)
            }
        }));
        for (number, result) in asking.await {
            match (number % 10, result) {
                (3, Err(error @ RequestError::Refused { .. })) => {
                    assert_eq!(
                        (error.blame(), error.may_have_been_executed()),
                        (Blame::Requester, false)
                    );
                    assert!(error.to_string().contains("no-such-exchange"), "{error}");
                }
                (6, Err(error @ RequestError::Unroutable { .. })) => {
                    assert_eq!(
                        (error.blame(), error.may_have_been_executed()),
                        (Blame::Responder, false)
                    );
                    assert!(error.to_string().contains("no-such-queue"), "{error}");
                }
                (_, Ok(response)) => assert_eq!(response.text().unwrap(), number.to_string()),
                (_, other) => panic!("{number}: {other:?}"),
            }
        }
    })
    .await;
    assert_eq!(report.handled, 80);
    assert_eq!((requester.stats().waiting, requester.stats().late), (0, 0));
    let far = Requester::<P>::new(&member);
    let invalid = Message::new("").to("", "k".repeat(256));
    let error = far.request(invalid, LONG).await.unwrap_err();
    assert!(matches!(error, RequestError::Invalid(_)), "{error:?}");
    pool.close().await;
    let error = far.request(Message::new("").to_queue(&queue), LONG).await.unwrap_err();
    assert!(matches!(error, RequestError::Unavailable(_)), "{error:?}");
    assert_eq!(far.stats().waiting, 0);
}

/// The connection of the requester is cut before each frame of a request, from the opening of the channel to the reply. The
/// request is answered in the end, or says that it may have been executed; the next one is answered.
async fn a_request_survives_a_cut_at_each_stage_or_says_what_may_have_happened<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("staged").await;
    let app = at.app().consume(
        source(queue.as_str()),
        async |Text(text): Text, State(log): State<crate::at::Log>| {
            log.add(text.as_str());
            Reply(text)
        },
    );
    beside(app, async |_| {
        let mut answered = 0;
        for (direction, method) in [
            (Direction::ToBroker, "channel.open"),
            (Direction::ToClient, "channel.open-ok"),
            (Direction::ToBroker, "basic.consume"),
            (Direction::ToClient, "basic.consume-ok"),
            (Direction::ToBroker, "confirm.select"),
            (Direction::ToClient, "confirm.select-ok"),
            (Direction::ToBroker, "basic.publish"),
            (Direction::ToClient, "basic.ack"),
            (Direction::ToClient, "basic.deliver"),
        ] {
            let proxy = Proxy::start(at.port()).unwrap();
            proxy.before(direction, method, 1, Fault::Cut);
            let pool = Pool::new(P::to(&proxy.uri()), 1).connect().await.unwrap();
            let requester = Requester::on(&pool);
            let body = format!("{direction:?} {method}");
            let request = || Message::new(body.clone()).to_queue(&queue);
            let result = requester.request(request(), LONG).await;
            let executed = at.log.take().len();
            match result {
                Ok(response) => {
                    assert_eq!(response.text().unwrap(), body);
                    assert_eq!(executed, 1, "{body}");
                    answered += 1;
                }
                Err(error @ RequestError::Lost(_)) => {
                    assert!(error.may_have_been_executed(), "{body}: {error}");
                }
                Err(other) => panic!("{body}: {other:?}"),
            }
            until("the fault", async || proxy.faulted().len() == 1).await;
            let next = requester.request(request(), LONG).await.unwrap();
            assert_eq!(next.text().unwrap(), body);
            assert_eq!(requester.stats().waiting, 0, "{body}");
            until("what was executed", async || !at.log.lines().is_empty()).await;
            at.log.take();
            pool.close().await;
        }
        // Nothing is lost before it was sent.
        assert!(answered >= 6, "{answered}");
    })
    .await;
}

async fn a_late_reply_is_dropped_and_counted<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("late").await;
    let pool = Pool::new(at.platform.clone(), 1).connect().await.unwrap();
    let requester = Requester::on(&pool);
    // It expires long after its deadline.
    let request = Message::new("r").to_queue(&queue).expires(LONG).message_id("mine");
    let error = loop {
        let moment = Duration::from_millis(50);
        match requester.request(request.clone(), moment).await.unwrap_err() {
            RequestError::TimedOut { is_confirmed: false, .. } => {}
            error => break error,
        }
    };
    assert!(matches!(error, RequestError::TimedOut { is_sent: true, is_confirmed: true }));
    assert!(error.may_have_been_executed() && error.blame() == Blame::Responder);
    assert_eq!((requester.stats().waiting, requester.stats().late), (0, 0));
    let delivery = client.expect(&queue).await;
    let properties = delivery.properties().unwrap();
    assert_eq!((text(&delivery).as_str(), properties.message_id.as_deref()), ("r", Some("mine")));
    let answer = delivery.answer("too late").unwrap();
    client.channel.basic_publish(answer).await.unwrap();
    until("the late reply", async || requester.stats().late == 1).await;
    delivery.ack().unwrap();
    // A request that is dropped leaves nothing behind.
    let request = Message::new("dropped").to_queue(unique("nowhere")).optional();
    let dropped =
        smol::future::or(async { Some(requester.request(request, LONG).await.map(drop)) }, async {
            until("the request", async || requester.stats().waiting == 1).await;
            sleep(Duration::from_millis(1)).await;
            None
        });
    assert!(dropped.await.is_none());
    assert_eq!(requester.stats().waiting, 0);
}

/// The connections of the pool end when they are lost.
async fn a_requester_on_a_pool_takes_another_connection<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("moving").await;
    let proxy = Proxy::start(at.port()).unwrap();
    let uri = format!("{}?recovery=never", proxy.uri());
    let pool = Pool::new(P::to(&uri), 2).connect().await.unwrap();
    let requester = Requester::on(&pool);
    let app = at.app().consume(source(queue.as_str()), async |Text(text): Text| Reply(text));
    beside(app, async |_| {
        for number in 0..3 {
            let request = || Message::new(number.to_string()).to_queue(&queue);
            let response = loop {
                match requester.request(request(), LONG).await {
                    Ok(response) => break response,
                    // The loss may not be known when it is sent.
                    Err(error) => assert_eq!(error.blame(), Blame::Connection, "{error:?}"),
                }
            };
            assert_eq!(response.text().unwrap(), number.to_string());
            proxy.inject(Direction::ToClient, Fault::Cut);
        }
    })
    .await;
    assert_eq!(requester.stats().waiting, 0);
    assert!(proxy.accepted() >= 4, "{}", proxy.accepted());
}

/// Its correlation id can be read, and its headers cannot.
async fn a_malformed_reply_is_the_error_of_its_request_alone<P: Make>(at: At<P>) {
    let client = at.client().await;
    let queue = client.queue("malformed").await;
    let pool = Pool::new(at.platform.clone(), 1).connect().await.unwrap();
    let requester = Requester::new(&pool.connection().await.unwrap());
    let ask = || requester.request(Message::new("?").to_queue(&queue), LONG);
    let answering = async {
        let malformed = client.expect(&queue).await.properties().unwrap();
        let port = at.port();
        smol::unblock(move || reply_with_malformed_headers(port, &malformed)).await;
        let sound = client.expect(&queue).await.properties().unwrap();
        let reply = Message::new("sound").to_queue(sound.reply_to.unwrap());
        let reply = reply.correlation_id(sound.correlation_id.unwrap()).optional();
        client.publisher.publish(&reply).await.unwrap();
    };
    let asking = async {
        let error = ask().await.unwrap_err();
        assert!(error.to_string().contains("malformed properties"), "{error}");
        assert!(matches!(error, RequestError::Reply(_)), "{error:?}");
        assert_eq!((error.blame(), error.may_have_been_executed()), (Blame::Responder, true));
        assert_eq!(ask().await.unwrap().body(), b"sound");
    };
    smol::future::zip(answering, asking).await;
    assert_eq!((requester.stats().waiting, requester.stats().late), (0, 0));
    pool.close().await;
}

fn reply_with_malformed_headers(port: u16, request: &Properties) {
    let [to, id] = [&request.reply_to, &request.correlation_id].map(|it| it.as_deref().unwrap());
    let mut properties = nested_headers(16_000);
    // Bit 10 of the flags.
    properties[0] |= 0x04;
    properties.push(u8::try_from(id.len()).unwrap());
    properties.extend_from_slice(id.as_bytes());
    let mut wire = RawConnection::connect(port);
    wire.log_in(u16::MAX);
    let routing_key = ShortStr::from_bytes(to.as_bytes()).unwrap();
    wire.send(1, &basic::Publish { routing_key, ..Default::default() });
    wire.send_content(1, &properties, b"reply");
    wire.send(1, &queue::Declare { exclusive: true, ..Default::default() });
    wire.expect("queue.DeclareOk");
}
