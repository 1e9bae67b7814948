//! Publishing without confirms, and the messages that come back from it.

use std::time::Duration;

use amqp_async::core::{Error, Publish, ReturnedMessage};

use crate::channel::Channel;
use crate::wait::{wait, wait_timeout};

impl Channel {
    /// Publishes without waiting for the broker's answer (AMQP 0-9-1, 1.8.3.7): returns when the message
    /// is queued to be written, which waits for buffer space, for as long as it takes.
    ///
    /// # Errors
    /// What is known: the channel or the connection is closed, an argument cannot be sent, or
    /// [`Misuse::ConfirmModeUsePublisher`](amqp_async::core::Misuse). That the broker takes the message
    /// is not known.
    pub fn basic_publish<'a>(&self, publish: impl Into<Publish<'a>>) -> Result<(), Error> {
        let publish: Publish<'a> = publish.into();
        wait(self.shared().basic_publish(publish))
    }

    /// As [`basic_publish`](Self::basic_publish), but waits for buffer space for `timeout` at most: `None` if
    /// there was none by then, and nothing was sent.
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

    /// Waits for the next message that comes back from [`basic_publish`](Self::basic_publish). The
    /// newest 256 that were not taken are kept, and 1 MiB of them.
    ///
    /// In confirm mode the publish itself reports its return. A return that belongs to no publish awaiting
    /// its confirm comes from here.
    ///
    /// # Errors
    /// Why the channel is closed, once what had come back before is taken.
    pub fn returned(&self) -> Result<ReturnedMessage, Error> {
        wait(self.shared().returned())
    }

    /// As [`returned`](Self::returned), but waits for `timeout` at most: `None` if nothing came back by then.
    ///
    /// # Errors
    /// Those of [`returned`](Self::returned).
    pub fn returned_timeout(&self, timeout: Duration) -> Result<Option<ReturnedMessage>, Error> {
        wait_timeout(self.shared().returned(), timeout).transpose()
    }

    /// The oldest message that came back from [`basic_publish`](Self::basic_publish), if one is there.
    pub fn take_returned(&self) -> Option<ReturnedMessage> {
        self.shared().take_returned()
    }

    /// Returns the oldest message that came back from [`basic_publish`](Self::basic_publish) as an error, once.
    /// Messages come back in the order of publishing, before the answer to any call that follows.
    ///
    /// # Errors
    /// [`Error::Returned`].
    pub fn check_returned(&self) -> Result<(), Error> {
        self.shared().check_returned()
    }
}
