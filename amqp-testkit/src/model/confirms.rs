//! Publisher confirms: those of the publishes that arrive together are sent together
//! (<https://www.rabbitmq.com/docs/confirms>).
//!
//! RabbitMQ confirms several publishes by one `basic.ack` with `multiple` when it can. The model does so in every third
//! batch, so that clients meet both.

use amqp_proto::method::{basic, confirm};

use super::broker::{Broker, ConnectionId};
use super::channel::{Channel, Mode};
use super::refusal::Refusal;

/// How often a batch is confirmed by one `basic.ack`: once in this many.
const BATCHES_PER_MULTIPLE: u64 = 3;

/// The confirms of a channel.
#[derive(Debug, Default)]
pub(super) struct Confirms {
    /// The number of the last publish.
    last: u64,
    /// Those that are to be sent: the number of the publish, and whether every queue has taken it.
    unsent: Vec<(u64, bool)>,
    /// The number of batches of more than one that were sent.
    batches: u64,
}

impl Confirms {
    /// Counts a publish. Returns its number.
    pub(super) const fn count(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

impl Channel<'_> {
    pub(super) fn select_confirms(&mut self, no_wait: bool) -> Result<(), Refusal> {
        match &mut self.state().mode {
            mode @ Mode::Plain => *mode = Mode::Confirm(Confirms::default()),
            Mode::Confirm(_) => {}
            Mode::Transaction(_) => {
                let text = "cannot switch from tx to confirm mode";
                return Err(Refusal::precondition_failed(text));
            }
        }
        self.answer(no_wait, &confirm::SelectOk::default());
        Ok(())
    }

    /// Confirms a publish, once the input is handled that it came with.
    pub(super) fn confirm(&mut self, number: u64, taken: bool) {
        let Mode::Confirm(confirms) = &mut self.state().mode else { return };
        confirms.unsent.push((number, taken));
        if confirms.unsent.len() == 1 {
            let channel = self.number;
            self.connection().confirming.push(channel);
        }
    }

    /// Sends the confirms that wait.
    pub(super) fn send_confirms(&mut self) {
        let Mode::Confirm(confirms) = &mut self.state().mode else { return };
        let unsent = std::mem::take(&mut confirms.unsent);
        let [(_, true), .., (last, true)] = unsent[..] else {
            return self.send_each(&unsent);
        };
        confirms.batches += 1;
        let is_turn = confirms.batches.is_multiple_of(BATCHES_PER_MULTIPLE);
        if is_turn && unsent.iter().all(|(_, taken)| *taken) {
            self.send(&basic::Ack { delivery_tag: last, multiple: true });
        } else {
            self.send_each(&unsent);
        }
    }

    fn send_each(&mut self, confirms: &[(u64, bool)]) {
        for (delivery_tag, taken) in confirms.iter().copied() {
            if taken {
                self.send(&basic::Ack { delivery_tag, multiple: false });
            } else {
                self.send(&basic::Nack { delivery_tag, ..Default::default() });
            }
        }
    }
}

impl Broker {
    /// Sends the confirms that wait on a connection.
    pub(super) fn send_confirms(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        for number in std::mem::take(&mut connection.confirming) {
            if let Some(mut channel) = self.channel(id, number) {
                channel.send_confirms();
            }
        }
    }
}
