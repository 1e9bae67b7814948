//! What an application declares: the queues that it consumes from, and those of its retry policies.

use amqp_async::{Channel, QueueBind, QueueDeclare};

#[cfg(feature = "config")]
use crate::config::topology::{Binding, Topology};
use crate::consume::Consume;
use crate::error::Error;
use crate::retry::{LastResort, Retry};

/// Declares the queues of a source, or checks that they exist, and binds them.
pub(crate) async fn declare_queues(channel: &Channel, consume: &Consume) -> Result<(), Error> {
    for queue in &consume.queues {
        declare(channel, queue.clone(), String::new()).await?;
    }
    for bind in &consume.binds {
        let QueueBind { queue, exchange, routing_key, .. } = bind;
        let what = || {
            format!("the binding of queue {queue:?} to exchange {exchange:?} with {routing_key:?}")
        };
        let bound = channel.queue_bind(bind.clone()).await;
        bound.map_err(|error| Error::Setup { what: what(), error })?;
    }
    Ok(())
}

/// Declares the queues in which messages of a source wait, or are parked.
pub(crate) async fn declare_beside(channel: &Channel, consume: &Consume) -> Result<(), Error> {
    for source in &consume.queues {
        let reason = format!(
            ", which the retry policy of queue {:?} needs (Retry::none().then_dead_letter() needs none)",
            source.queue
        );
        for queue in beside(consume, source) {
            declare(channel, queue, reason.clone()).await?;
        }
    }
    Ok(())
}

/// Declares the topology of a configuration: exchanges, queues, then bindings.
#[cfg(feature = "config")]
pub(crate) async fn declare_topology(channel: &Channel, topology: &Topology) -> Result<(), Error> {
    for exchange in &topology.exchanges {
        let what = || format!("exchange {:?} of [topology]", exchange.exchange);
        let declared = channel.exchange_declare(exchange.clone()).await;
        declared.map_err(|error| Error::Setup { what: what(), error })?;
    }
    for queue in &topology.queues {
        declare(channel, queue.clone(), " of [topology]".to_owned()).await?;
    }
    for binding in &topology.bindings {
        let (bound, destination, exchange) = match binding {
            Binding::Queue(it) => (
                channel.queue_bind(it.clone()).await,
                format!("queue {:?}", it.queue),
                &it.exchange,
            ),
            Binding::Exchange(it) => {
                let bound = channel.exchange_bind(it.clone()).await;
                (bound, format!("exchange {:?}", it.destination), &it.source)
            }
        };
        let what =
            || format!("the binding of {destination} to exchange {exchange:?} of [topology]");
        bound.map_err(|error| Error::Setup { what: what(), error })?;
    }
    Ok(())
}

async fn declare(channel: &Channel, queue: QueueDeclare, reason: String) -> Result<(), Error> {
    let what = format!("queue {:?}{reason}", queue.queue);
    let declared = channel.queue_declare(queue).await;
    declared.map(drop).map_err(|error| Error::Setup { what, error })
}

/// The queues that a policy needs: one for each delay, from which messages come back, and one in which they are parked.
fn beside(consume: &Consume, source: &QueueDeclare) -> Vec<QueueDeclare> {
    let (queue, policy) = (source.queue.as_str(), &consume.retry);
    let is_quorum = consume.is_quorum(source);
    let kind = |name: String| match is_quorum {
        true => QueueDeclare::quorum(name),
        false => QueueDeclare::classic(name),
    };
    let mut delays = policy.delays.clone();
    delays.sort_unstable();
    delays.dedup();
    let waiting = delays.into_iter().map(|delay| {
        let waiting = kind(Retry::delay_queue(queue, delay)).message_ttl(delay);
        let waiting = waiting.dead_letter_exchange("").dead_letter_routing_key(queue);
        if is_quorum { waiting.dead_letter_at_least_once() } else { waiting }
    });
    let parking = match &policy.last {
        LastResort::Park(None) => policy.parking_queue(queue).map(kind),
        LastResort::Park(Some(name)) => Some(QueueDeclare::passive(name)),
        _ => None,
    };
    waiting.chain(parking).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use amqp_async::QueueDeclare;

    use super::beside;
    use crate::consume::Consume;
    use crate::retry::Retry;

    #[test]
    fn queues_beside_have_the_type_of_their_queue() {
        let policy = || Retry::after([10, 10, 1].map(Duration::from_secs));
        let quorum = Consume::new(QueueDeclare::quorum("q")).on_failure(policy());
        let waiting = |seconds| {
            QueueDeclare::quorum(format!("q.retry.{seconds}s"))
                .message_ttl(Duration::from_secs(seconds))
                .dead_letter_exchange("")
                .dead_letter_routing_key("q")
                .dead_letter_at_least_once()
        };
        assert_eq!(
            beside(&quorum, &quorum.queues[0]),
            [waiting(1), waiting(10), QueueDeclare::quorum("q.parked")]
        );

        let named = Consume::new("q").on_failure(policy());
        let names = |consume: &Consume| {
            beside(consume, &consume.queues[0]).into_iter().map(|it| it.queue).collect::<Vec<_>>()
        };
        assert_eq!(names(&named), ["q.retry.1s", "q.retry.10s", "q.parked"]);
        let kind = |consume: &Consume| {
            beside(consume, &consume.queues[0])[0]
                .arguments
                .get("x-queue-type")
                .unwrap()
                .as_str()
                .map(str::to_owned)
        };
        assert_eq!(kind(&named).as_deref(), Some("classic"));
        assert_eq!(kind(&named.on_failure(policy().quorum())).as_deref(), Some("quorum"));

        let elsewhere = Consume::new("q").on_failure(Retry::none().then_park_in("p"));
        assert_eq!(beside(&elsewhere, &elsewhere.queues[0]), [QueueDeclare::passive("p")]);
        let rejected = Consume::new("q").on_failure(Retry::now(3).then_dead_letter());
        assert!(beside(&rejected, &rejected.queues[0]).is_empty());
    }
}
