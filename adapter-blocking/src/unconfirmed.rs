//! Publishing without confirms, and returned messages.

use std::time::Duration;

use amqp_async::core::{Error, Publish, ReturnedMessage};

use crate::channel::Channel;
use crate::wait::{wait, wait_timeout};

impl Channel {
    /// Publishes a message without a publisher confirm (`basic.publish`; AMQP 0-9-1, 1.8.3.7). Waits for
    /// buffer space, without a timeout, and returns when the message is in the output buffer.
    ///
    /// `Ok` does not mean that the message was sent. It is lost if the process ends before the I/O thread has
    /// written it. Before that, [`close`](crate::Connection::close) or [`drain`](crate::Connection::drain)
    /// the connection.
    ///
    /// # Errors
    /// [`Error`] if the channel or the connection is closed, or an argument cannot be sent;
    /// [`Misuse::ConfirmModeUsePublisher`](amqp_async::core::errors::Misuse) in confirm mode.
    pub fn basic_publish<'a>(&self, publish: impl Into<Publish<'a>>) -> Result<(), Error> {
        let publish: Publish<'a> = publish.into();
        wait(self.shared().basic_publish(publish))
    }

    /// As [`basic_publish`](Self::basic_publish), but waits for buffer space for at most `timeout`. Returns
    /// `None` if there was none. Then nothing was sent.
    ///
    /// # Errors
    /// Those of [`basic_publish`](Self::basic_publish).
    pub fn basic_publish_timeout<'a>(
        &self,
        publish: impl Into<Publish<'a>>,
        timeout: Duration,
    ) -> Result<Option<()>, Error> {
        let publish: Publish<'a> = publish.into();
        wait_timeout(self.shared().basic_publish(publish), timeout).transpose()
    }

    /// Waits for the next returned message (`basic.return`; AMQP 0-9-1, 1.8.3.8) of a
    /// [`basic_publish`](Self::basic_publish). Keeps the newest 256 returned messages that were not taken,
    /// and at most 1 MiB of them.
    ///
    /// In confirm mode, the outcome of the publish reports its return. This method then reports only returns
    /// that match no publish awaiting its confirm.
    ///
    /// # Errors
    /// The reason why the channel is closed, after all messages that were returned before are taken.
    pub fn returned(&self) -> Result<ReturnedMessage, Error> {
        wait(self.shared().returned())
    }

    /// As [`returned`](Self::returned), but waits for at most `timeout`. Returns `None` if no message was
    /// returned by then.
    ///
    /// # Errors
    /// Those of [`returned`](Self::returned).
    pub fn returned_timeout(&self, timeout: Duration) -> Result<Option<ReturnedMessage>, Error> {
        wait_timeout(self.shared().returned(), timeout).transpose()
    }

    /// Takes the oldest returned message of a [`basic_publish`](Self::basic_publish) without waiting. `None`
    /// if there is none.
    pub fn take_returned(&self) -> Option<ReturnedMessage> {
        self.shared().take_returned()
    }

    /// Returns the oldest returned message of a [`basic_publish`](Self::basic_publish) as an error, once.
    /// Messages are returned in the order of publishing, before the reply to any later call.
    ///
    /// # Errors
    /// [`Error::Returned`].
    pub fn check_returned(&self) -> Result<(), Error> {
        self.shared().check_returned()
    }
}
