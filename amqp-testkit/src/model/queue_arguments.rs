//! The arguments of a queue (`x-..`): which the model supports, ignores and refuses.

use amqp_proto::FieldTable;

use super::refusal::Refusal;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct QueueArguments {
    pub(super) max_length: Option<u64>,
    pub(super) overflow: Overflow,
    pub(super) dead_letter_exchange: Option<String>,
    pub(super) dead_letter_routing_key: Option<String>,
    pub(super) max_priority: u8,
    pub(super) single_active_consumer: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Overflow {
    #[default]
    DropHead,
    RejectPublish,
    RejectPublishDlx,
}

/// Arguments that RabbitMQ supports and the model refuses.
const LACKING: [&str; 4] = ["x-expires", "x-max-length-bytes", "x-message-ttl", "x-queue-mode"];

impl QueueArguments {
    /// Reads the arguments. RabbitMQ ignores those that it does not know. The model refuses those that only RabbitMQ knows.
    pub(super) fn new(queue: &str, arguments: &FieldTable) -> Result<Self, Refusal> {
        let mut read = Self::default();
        for (name, value) in arguments.iter() {
            let integer = || {
                let number = value.as_i64().ok_or("expected integer, got another type");
                let number = number.and_then(|it| u64::try_from(it).map_err(|_| "value_negative"));
                number.map_err(|wrong| invalid(queue, name, wrong))
            };
            let text = || {
                let text = value.as_str().map(str::to_owned);
                text.ok_or_else(|| invalid(queue, name, "expected a string"))
            };
            match name {
                "x-max-length" => read.max_length = Some(integer()?),
                "x-max-priority" => read.max_priority = integer()?.min(255) as u8,
                "x-dead-letter-exchange" => read.dead_letter_exchange = Some(text()?),
                "x-dead-letter-routing-key" => read.dead_letter_routing_key = Some(text()?),
                "x-single-active-consumer" => {
                    let active = value.as_bool();
                    read.single_active_consumer =
                        active.ok_or_else(|| invalid(queue, name, "expected a boolean"))?;
                }
                "x-overflow" => {
                    read.overflow = match text()?.as_str() {
                        "drop-head" => Overflow::DropHead,
                        "reject-publish" => Overflow::RejectPublish,
                        "reject-publish-dlx" => Overflow::RejectPublishDlx,
                        _ => return Err(invalid(queue, name, "invalid overflow")),
                    }
                }
                "x-queue-type" if value.as_str() == Some("classic") => {}
                "x-queue-type" => return Err(Refusal::not_implemented("queues of other types")),
                name if LACKING.contains(&name) => {
                    // A value that RabbitMQ refuses is refused with its code.
                    if name != "x-queue-mode" {
                        integer()?;
                    }
                    return Err(Refusal::not_implemented(name));
                }
                _ => {}
            }
        }
        Ok(read)
    }
}

fn invalid(queue: &str, name: &str, wrong: &str) -> Refusal {
    let text = format!("invalid arg '{name}' for queue '{queue}' in vhost '/': {wrong}");
    Refusal::precondition_failed(text)
}
