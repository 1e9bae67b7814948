//! Updates of the secret that the login used.

use std::time::Instant;

use amqp_proto::frame;
use amqp_proto::method::connection as wire;

use crate::config::Secret;
use crate::connection::Connection;
use crate::connection::login::secret_buffer;
use crate::error::{Error, InvalidArgument, InvalidReason, Misuse};
use crate::ids::Call;
use crate::limits::CALLS_MAX;
use crate::request::{Pending, short};

impl Connection {
    /// Sends the broker a new secret for the login, such as a token before the old one expires
    /// (`connection.update-secret`; <https://www.rabbitmq.com/docs/oauth2>). When the broker has accepted it, it
    /// replaces the password for later logins of a session that reconnects.
    ///
    /// # Errors
    /// [`Error`]: nothing was queued.
    pub fn update_secret(
        &mut self,
        now: Instant,
        secret: &Secret,
        reason: &str,
    ) -> Result<Call<()>, Error> {
        self.link.check_open()?;
        if self.link.secret_calls.len() >= CALLS_MAX {
            return Err(Misuse::TooManyCalls.into());
        }
        let update = wire::UpdateSecret {
            new_secret: secret.expose().as_bytes(),
            reason: short("reason", reason)?,
        };
        let mut bytes = secret_buffer(update.new_secret.len());
        frame::write_method(&mut bytes, 0, &update);
        let (size, frame_max) = (bytes.len(), self.link.tuning.frame_max);
        if size > frame_max as usize {
            let reason = InvalidReason::FrameTooLarge { size, frame_max };
            return Err(InvalidArgument::new("new-secret", reason).into());
        }
        self.link.outbound.secret_frame(bytes);
        let call = self.calls.insert(Pending::UpdateSecret, now + self.config.call_timeout);
        self.link.secret_calls.push_back((call, secret.clone()));
        Ok(Call::new(call))
    }
}
