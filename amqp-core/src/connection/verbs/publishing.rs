//! Publishing, and the outcomes of publishes.
//!
//! A publish either returns an error and queues nothing, or is queued completely: its number, its stream
//! offset and its frames in one call. So the numbers of confirms always match the order on the wire. Most
//! publishes have no properties and a small body. These are encoded in one pass.

use amqp_proto::frame;
use amqp_proto::method::basic;
use amqp_proto::{Properties, PropertiesRef, RawProperties};

use crate::channel::{Confirmation, Fingerprint, Gate, Unconfirmed};
use crate::connection::verbs::too_large;
use crate::connection::{Channel, Connection, Link};
use crate::error::{Error, InvalidArgument, Misuse};
use crate::ids::PublishSeq;
use crate::limits::UNCONFIRMED_SPAN;
use crate::message::{Publish, ReturnedMessage};
use crate::request::short;

/// Why a publish was not queued. Nothing was queued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishRefused {
    /// Too many bytes wait to be written, or the connection is being restored.
    /// [`Event::BufferSpace`](crate::Event::BufferSpace) reports when to try again.
    #[error("the output buffer is full")]
    Full,
    /// Too many publishes of the channel are unconfirmed. [`Event::Resolved`](crate::Event::Resolved) reports
    /// when to try again.
    #[error("too many unconfirmed publishes on the channel: {UNCONFIRMED_SPAN}")]
    Unconfirmed,
    /// It cannot be sent on this channel.
    #[error(transparent)]
    Error(#[from] Error),
}

impl Channel<'_> {
    /// Publishes a message (`basic.publish`). On a channel in confirm mode, returns the number of the
    /// publish.
    ///
    /// Call [`confirmed`](Self::confirmed) for each number until it returns an outcome, or call
    /// [`forget_publish`](Self::forget_publish). A nack or a return whose outcome is neither taken nor
    /// forgotten uses memory until the channel is released.
    ///
    /// # Errors
    /// [`PublishRefused`]: nothing was queued.
    #[inline]
    pub fn publish(&mut self, publish: &Publish<'_>) -> Result<PublishSeq, PublishRefused> {
        self.publish_as::<false>(publish)
    }

    /// Publishes, and if `STORE`, keeps a copy in the outbox of the channel.
    #[inline(always)]
    fn publish_as<const STORE: bool>(
        &mut self,
        publish: &Publish<'_>,
    ) -> Result<PublishSeq, PublishRefused> {
        let Connection { channels, link, scratch, unconfirmed, counters, .. } =
            &mut *self.connection;
        let Link { outbound, tuning, .. } = link;
        let Some(state) = channels.find_mut(self.id.0) else { return Err(self.closed().into()) };
        if !(state.takes_publishes() || STORE) {
            return self.publish_unless_refused(publish);
        }
        let (number, body) = (state.wire.number, publish.body.as_slice());
        let direct = !STORE && publish.is_plain() && outbound.is_direct(body.len());
        let admitted =
            if direct { outbound.admit_direct() } else { outbound.admit(number, body.len()) };
        if state.wire.flow_stopped || !admitted {
            return Err(PublishRefused::Full);
        }
        let seq = match state.mode.confirms() {
            Some(confirms)
                if confirms.span() >= UNCONFIRMED_SPAN
                    || (STORE && !confirms.outbox_has_space()) =>
            {
                return Err(PublishRefused::Unconfirmed);
            }
            Some(confirms) => confirms.next(),
            None => 0,
        };
        let method = basic::Publish {
            exchange: short("exchange", publish.exchange).map_err(Error::from)?,
            routing_key: short("routing-key", publish.routing_key).map_err(Error::from)?,
            mandatory: publish.mandatory,
            ..Default::default()
        };
        let persistent = publish.persistent.then_some(2);

        let (offset, fingerprint) = if direct {
            (outbound.publish(number, &method, persistent, body), None)
        } else {
            let offset = outbound.offset(number, body.len());
            let mut properties = match publish.properties.as_ref() {
                Some(owned) => view(owned, scratch)?,
                None => PropertiesRef::default(),
            };
            properties.delivery_mode = persistent.or(properties.delivery_mode);
            let buffer = outbound.buffer(number);
            let start = buffer.len();
            frame::write_method(buffer, number, &method);
            let header_start = buffer.len();
            frame::write_header_ref(buffer, number, body.len() as u64, &properties);
            let header_size = buffer.len() - header_start;
            if header_size > tuning.frame_max as usize {
                buffer.truncate(start);
                return Err(too_large("properties", header_size, tuning.frame_max).into());
            }
            let fingerprint = (publish.mandatory && state.mode.confirms().is_some()).then(|| {
                // The frame head, class, weight and body size come before the properties, and the end octet
                // after them.
                let properties = header_start + frame::FRAME_HEAD + 12..buffer.len() - 1;
                let properties = RawProperties::new(buffer.get(properties).unwrap_or_default());
                let (exchange, key) = (method.exchange, method.routing_key);
                Fingerprint::new(exchange, key, properties, body, scratch)
            });
            if STORE && let Some(confirms) = state.mode.confirms_mut() {
                // One copy of a large body does for both.
                let body = publish.body.shared();
                let head = outbound.buffer(number).get(start..).unwrap_or_default();
                confirms.store(head, &body);
                outbound.body(number, start, &body, seq);
            } else {
                outbound.body(number, start, &publish.body, seq);
            }
            (offset, fingerprint)
        };
        if let Some(confirms) = state.mode.confirms_mut() {
            confirms.publish(offset, fingerprint);
            *unconfirmed += 1;
        }
        counters.published += 1;
        Ok(PublishSeq(seq))
    }

    /// A publish that is stored, the first one of a transaction, or not accepted.
    #[cold]
    fn publish_unless_refused(
        &mut self,
        publish: &Publish<'_>,
    ) -> Result<PublishSeq, PublishRefused> {
        if let Some(state) = self.state()
            && state.is_open()
            && matches!(state.gate, Gate::EmptyTransaction)
        {
            state.gate = Gate::Open;
            let published = self.publish(publish);
            if let (Err(_), Some(state)) = (&published, self.state()) {
                state.gate = Gate::EmptyTransaction;
            }
            return published;
        }
        let cause = self.connection.lost_cause();
        let Some(state) = self.state() else { return Err(self.closed().into()) };
        if let Some(count) = state.take_lost_publishes() {
            return Err(Error::PublishesLost { count, cause }.into());
        }
        match state.gate {
            Gate::Storing if state.is_open() => self.publish_as::<true>(publish),
            Gate::Recovering => Err(PublishRefused::Full),
            _ => Err(self.closed().into()),
        }
    }

    /// A fast check whether a publish is confirmed. `false` does not mean that it is not: see
    /// [`confirmed`](Self::confirmed).
    #[inline]
    pub fn is_confirmed(&mut self, seq: PublishSeq) -> bool {
        let confirms = self.state().and_then(|state| state.mode.confirms());
        confirms.is_some_and(|confirms| confirms.is_confirmed(seq))
    }

    /// Returns the outcome of a publish, `None` while it is open. A nack or a return is reported once:
    /// afterwards the publish looks confirmed.
    #[inline]
    pub fn confirmed(&mut self, seq: PublishSeq) -> Option<Confirmation> {
        let Some(state) = self.state() else {
            return Some(Confirmation::Unknown(self.closed()));
        };
        match state.mode.confirms_mut() {
            Some(confirms) => confirms.take(seq),
            None => Some(Confirmation::Unknown(Misuse::NotConfirmMode.into())),
        }
    }

    /// The number of the last publish, 0 if there was none.
    pub fn last_publish(&mut self) -> PublishSeq {
        let confirms = self.state().and_then(|state| state.mode.confirms());
        PublishSeq(confirms.map_or(0, |confirms| confirms.next() - 1))
    }

    /// Returns the outcome of all publishes up to `last`, `None` while one of them is open. A nack or a
    /// return is reported here once, in addition to [`confirmed`](Self::confirmed).
    pub fn all_confirmed(&mut self, last: PublishSeq) -> Option<Result<(), Unconfirmed>> {
        match self.state().map(|state| state.mode.confirms_mut()) {
            Some(Some(confirms)) => confirms.all_confirmed(last),
            Some(None) => Some(Ok(())),
            None => {
                let cause = Some(self.closed());
                Some(Err(Unconfirmed { unknown: 1, cause, ..Unconfirmed::default() }))
            }
        }
    }

    /// Drops the outcome of the publish, now or when it is known.
    pub fn forget_publish(&mut self, seq: PublishSeq) {
        if let Some(confirms) = self.state().and_then(|state| state.mode.confirms_mut()) {
            confirms.forget(seq);
        }
    }

    /// Whether the channel is in confirm mode.
    pub fn confirms(&mut self) -> bool {
        self.state().is_some_and(|state| state.mode.confirms().is_some())
    }

    /// Takes the oldest returned message of an unconfirmed publish. If there is none, the channel awaits one,
    /// so that reading continues in spite of unread deliveries.
    pub fn take_returned(&mut self) -> Option<ReturnedMessage> {
        let message = self.state()?.take_returned();
        if message.is_none() {
            self.connection.returned_is_awaited(self.id);
        }
        message
    }
}

#[inline]
fn view<'a>(
    owned: &'a Properties,
    scratch: &'a mut Vec<u8>,
) -> Result<PropertiesRef<'a>, PublishRefused> {
    let view = owned.view(scratch);
    view.map_err(|error| Error::from(InvalidArgument::new("properties", error)).into())
}
