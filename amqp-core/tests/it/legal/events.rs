//! What the application makes of the events: each must fit what was asked for and what was sent.

use amqp_core::requests::{ConsumeOk, FromReply, Got, MessageCount};
use amqp_core::{Call, ChannelCause, ChannelId, Error, Event};
use amqp_core::{QueueDeclareOk, Session};

use super::application::{Application, Handle, is_dead};
use super::calls::{Expected, Owed, Typed};
use super::consuming::{Held, Reader, read_number};
use super::log::Log;
use super::pauses;

impl Application {
    /// Reads the events.
    pub(crate) fn listen(&mut self, session: &mut Session, log: &mut Log) {
        while let Some(event) = session.poll_event() {
            log.line(|| format!("  {event:?}"));
            assert!(!self.closed, "{event:?} behind the end");
            match event {
                Event::CallDone(key) => match self.owed.remove(&key) {
                    Some(owed) => self.answered(owed, session, log),
                    None => assert!(self.forgotten.remove(&key), "{key:?} is done twice"),
                },
                Event::Resolved { channel, first, last } => {
                    let handle = self.handle(channel);
                    assert!(handle.confirms && first <= last, "{first:?} to {last:?}");
                    for outcome in &mut handle.outcomes {
                        outcome.resolved |= (first..=last).contains(&outcome.seq);
                    }
                }
                Event::Deliverable(key) => {
                    let mut readers = self.handles.iter_mut().flat_map(|it| &mut it.consumers);
                    if let Some(reader) = readers.find(|reader| reader.key == key) {
                        reader.flagged = true;
                    }
                }
                Event::ChannelClosed { channel, .. } => {
                    let handle = self.handle(channel);
                    assert!(!std::mem::replace(&mut handle.closed, true), "closed twice");
                }
                Event::ChannelClosing(channel) => assert!(!self.handle(channel).closed),
                Event::BufferSpace => {
                    self.handles.iter_mut().for_each(|handle| handle.full = false);
                }
                Event::Returned(channel) => self.handle(channel).returned = true,
                Event::Dropped(channel) => {
                    let handle = self.handle(channel);
                    assert!(handle.streams || !handle.given_up.is_empty());
                }
                Event::InputPaused { unread_bytes } => {
                    let (name, least) = match self.paused {
                        false => ("reading paused", pauses::HIGH),
                        true => ("reading paused at the hard mark", pauses::HARD),
                    };
                    log.count(name);
                    assert!(unread_bytes >= least, "paused for {unread_bytes} bytes");
                    self.paused = true;
                }
                Event::InputResumed => {
                    log.count("reading resumed");
                    assert!(std::mem::take(&mut self.paused), "resumed, and was not paused");
                }
                Event::Blocked(_) => self.blocked = true,
                Event::Unblocked => assert!(std::mem::take(&mut self.blocked)),
                Event::ConsumerCancelled(_) => {}
                Event::Closed(_) => self.closed = true,
                event => panic!("{event:?}"),
            }
        }
    }

    fn handle(&mut self, id: ChannelId) -> &mut Handle {
        self.handles.iter_mut().find(|handle| handle.id == id).expect("a channel that was opened")
    }

    fn answered(&mut self, owed: Owed, session: &mut Session, log: &mut Log) {
        let Owed { call, expected } = owed;
        match call {
            Typed::Done(call) => {
                let reply = reply(session, &call);
                match (&expected, &reply) {
                    (Expected::ChannelOpen(at), Ok(())) => self.handles[*at].open = true,
                    (Expected::ChannelOpen(at), Err(Error::Channel(ChannelCause::ByBroker(_)))) => {
                        log.count("open refused");
                        assert!(log.refused.contains(at), "handle {at}: {reply:?}");
                    }
                    (Expected::Cancel(at, tag), Ok(())) => {
                        let dead = is_dead(session, &self.handles[*at]);
                        assert!(dead || log.has_ended(*at, tag), "{tag} of handle {at} goes on");
                    }
                    _ => {}
                }
                self.check_error(reply.err(), &expected, session, log);
            }
            Typed::Flow(call) => match reply(session, &call) {
                Ok(active) => assert!(active),
                Err(error) => self.check_error(Some(error), &expected, session, log),
            },
            Typed::Count(call) => {
                let count = reply(session, &call).map(|count: MessageCount| count.message_count);
                self.check_count(count, &expected, session, log);
            }
            Typed::Declare(call) => {
                let count = reply(session, &call).map(|ok: QueueDeclareOk| ok.message_count);
                self.check_count(count, &expected, session, log);
            }
            Typed::Get(call) => {
                let Expected::Get(at, name) = &expected else { panic!() };
                match reply(session, &call) {
                    Ok(Some(got)) => self.got(*at, name, &got, log),
                    Ok(None) => {}
                    Err(error) => self.check_error(Some(error), &expected, session, log),
                }
            }
            Typed::Consume(call) => {
                let Expected::Consume(at) = expected else { panic!() };
                match reply(session, &call) {
                    Ok(ConsumeOk { consumer, consumer_tag: tag, .. }) => {
                        self.handles[at].consumers.push(Reader {
                            key: consumer,
                            tag,
                            // Deliveries may have come before.
                            flagged: true,
                            read: 0,
                            cancelled: false,
                        });
                    }
                    Err(error) => self.check_error(Some(error), &expected, session, log),
                }
            }
        }
    }

    fn got(&mut self, at: usize, name: &str, got: &Got, log: &mut Log) {
        let message = &got.delivery.message;
        assert_eq!(message.exchange(), *name, "the message of another get");
        let number = read_number(message);
        let sent = &mut log.sent[number];
        assert!(
            sent.consumer.is_none() && sent.channel == at && got.message_count == number as u32
        );
        assert!(!std::mem::replace(&mut sent.seen, true), "got twice: {number}");
        assert!(message.body() == sent.body, "the body of got message {number}");
        if !sent.no_ack {
            self.handles[at].held.push(Held { tag: got.delivery.tag, number, stale: false });
        }
    }

    fn check_count(
        &self,
        count: Result<u32, Error>,
        expected: &Expected,
        session: &mut Session,
        log: &mut Log,
    ) {
        let Expected::Count(_, own) = expected else { panic!() };
        match count {
            Ok(count) => assert_eq!(count, *own, "the reply to another call"),
            Err(error) => self.check_error(Some(error), expected, session, log),
        }
    }

    /// A call fails only with its channel or its connection, or when its time is over.
    fn check_error(
        &self,
        error: Option<Error>,
        expected: &Expected,
        session: &mut Session,
        log: &mut Log,
    ) {
        let Some(error) = error else { return };
        let dead = expected.handle().is_some_and(|at| is_dead(session, &self.handles[at]));
        let late = matches!(error, Error::Deadline { .. } | Error::DrainTimeout { .. });
        if late {
            log.count("out of time");
        }
        let closing = matches!(expected, Expected::ChannelClose(_));
        assert!(
            late || (dead && !closing)
                || session.cause().is_some()
                || !session.connection().is_open(),
            "{expected:?}: {error}"
        );
    }
}

fn reply<R: FromReply>(session: &mut Session, call: &Call<R>) -> Result<R, Error> {
    let reply = session.take_reply(call).expect("a reply of a call that is done");
    assert!(session.take_reply(call).is_none(), "a reply taken twice");
    reply
}
