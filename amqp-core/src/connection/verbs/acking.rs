//! Ack, nack, reject, requeue and drop of deliveries.

use amqp_proto::frame;
use amqp_proto::method::basic;

use crate::channel::ChannelState;
use crate::connection::{Channel, Connection};
use crate::error::AckError;
use crate::ids::{DeliveryTag, TagKind};

impl Channel<'_> {
    /// Acknowledges a delivery, or with `multiple` all unacknowledged ones up to it (`basic.ack`).
    ///
    /// # Errors
    /// [`AckError`]: nothing was queued.
    #[inline(always)]
    pub fn ack(&mut self, tag: DeliveryTag, multiple: bool) -> Result<(), AckError> {
        let (number, lowest) = self.record_ack(tag, multiple)?;
        self.connection.link.outbound.ack(number, tag.tag, multiple, lowest);
        Ok(())
    }

    /// Refuses a delivery, or with `multiple` all unacknowledged ones up to it (`basic.nack`). With `requeue`
    /// they are requeued; without, they are dead-lettered or dropped. A delivery of a stream is acked
    /// instead, because a stream does not take messages back.
    ///
    /// # Errors
    /// [`AckError`]: nothing was queued. Among them are [`AckError::MaybeStream`] and, with `multiple`,
    /// [`AckError::Stream`].
    pub fn nack(
        &mut self,
        tag: DeliveryTag,
        multiple: bool,
        requeue: bool,
    ) -> Result<(), AckError> {
        if tag.kind == TagKind::NoAck {
            return Err(AckError::NoAck(tag.tag));
        }
        let id = self.id;
        let streams = |state: &mut ChannelState| {
            state.takes_acks() && state.streams && tag.epoch == state.wire.epoch
        };
        if multiple && tag.channel == id && self.state().is_some_and(streams) {
            return Err(AckError::Stream(tag.tag));
        }
        match tag.kind {
            TagKind::Stream => return self.ack(tag, false),
            TagKind::MaybeStream => return Err(AckError::MaybeStream(tag.tag)),
            TagKind::Ack | TagKind::NoAck => {}
        }
        let nack = basic::Nack { delivery_tag: tag.tag, multiple, requeue };
        let (number, _) = self.record_ack(tag, multiple)?;
        self.connection.link.outbound.frames(number, |out| frame::write_method(out, number, &nack));
        Ok(())
    }

    /// Refuses a delivery (`basic.reject`). With `requeue` it is requeued; without, it is dead-lettered or
    /// dropped. A delivery of a stream is acked instead.
    ///
    /// # Errors
    /// [`AckError`]: nothing was queued. [`AckError::MaybeStream`] is among them.
    pub fn reject(&mut self, tag: DeliveryTag, requeue: bool) -> Result<(), AckError> {
        match tag.kind {
            TagKind::Stream => return self.ack(tag, false),
            TagKind::MaybeStream => return Err(AckError::MaybeStream(tag.tag)),
            TagKind::Ack | TagKind::NoAck => {}
        }
        let reject = basic::Reject { delivery_tag: tag.tag, requeue };
        let (number, _) = self.record_ack(tag, false)?;
        self.connection
            .link
            .outbound
            .frames(number, |out| frame::write_method(out, number, &reject));
        Ok(())
    }

    /// Records that the holder has dropped the delivery without an ack or nack. Nothing is sent: the delivery
    /// stays unacknowledged until the channel closes. Emits [`Event::Dropped`](crate::Event::Dropped) and
    /// returns `true`, or `false` if the delivery was acked, nacked or dropped before or the channel has closed.
    pub fn drop_unacked(&mut self, tag: DeliveryTag) -> bool {
        tag.channel == self.id
            && self.state().is_some_and(|state| state.takes_acks())
            && self.connection.drop_unacked(tag)
    }

    /// Requeues a delivery whose holder has dropped it, unless it was acked or nacked before. A delivery of a
    /// stream is acked instead. A delivery that may be a stream's stays unacknowledged on RabbitMQ before
    /// 3.11 (see [`AckError::MaybeStream`]). Returns whether it stays unacknowledged.
    pub fn requeue(&mut self, tag: DeliveryTag) -> bool {
        tag.channel == self.id && self.connection.requeue(tag)
    }

    /// Whether an ack of the delivery would return an error: its channel or connection has closed, it is
    /// acked or nacked already, or the broker has requeued it.
    pub fn is_stale(&mut self, tag: DeliveryTag) -> bool {
        let id = self.id;
        let is_open = |state: &mut ChannelState| {
            state.takes_acks()
                && tag.epoch == state.wire.epoch
                && tag.tag <= state.wire.delivered
                && state.unacked().is_open(tag.tag)
        };
        tag.channel != id || !self.state().is_some_and(is_open)
    }

    /// Records that a delivery is acked, nacked or rejected. Returns what its frame needs: the number of the channel,
    /// and the lowest delivery tag that is still unacknowledged.
    #[inline(always)]
    fn record_ack(
        &mut self,
        tag: DeliveryTag,
        multiple: bool,
    ) -> Result<(u16, Option<u64>), AckError> {
        if tag.kind == TagKind::NoAck {
            return Err(AckError::NoAck(tag.tag));
        }
        let Connection { channels, counters, .. } = &mut *self.connection;
        let Some(state) = channels.find_mut(self.id.0) else {
            return Err(AckError::Stale(self.closed()));
        };
        if !state.takes_publishes() && !state.takes_acks() {
            return Err(AckError::Stale(self.closed()));
        }
        if tag.channel != self.id {
            return Err(AckError::OtherChannel(tag.tag));
        }
        if tag.epoch != state.wire.epoch {
            return Err(AckError::Stale(self.closed()));
        }
        // In one comparison: a tag of 0 is larger than any other after the subtraction.
        if tag.tag.wrapping_sub(1) >= state.wire.delivered {
            return Err(AckError::Unknown(tag.tag));
        }
        let (number, transactional) = (state.wire.number, state.mode.is_tx());
        let recovered = (u64::from(state.wire.recovering) | state.wire.recovered_to) > 0;
        let unacked = state.unacked();
        let open = match multiple {
            true => unacked.ack_up_to(tag.tag, transactional),
            false => unacked.ack(tag.tag, transactional),
        };
        if !open {
            let recovered = state.wire.recovering > 0 || tag.tag <= state.wire.recovered_to;
            return Err(match recovered {
                true => AckError::Recovered(tag.tag),
                false => AckError::AlreadyAcked(tag.tag),
            });
        }
        counters.acks_sent += 1;
        // A rollback makes acked deliveries unacknowledged again, and it is unknown which deliveries a
        // recover covers. In these cases, all deliveries count as unacknowledged.
        let lowest = if transactional || recovered { Some(0) } else { unacked.lowest() };
        Ok((number, lowest))
    }
}
