//! Channel 0: protocol header, login, tuning, `connection.open`, and the close of a connection.

use amqp_proto::frame;
use amqp_proto::method::{Method, connection};
use amqp_proto::{FieldTable, FieldValue, PROTOCOL_HEADER, RawTable, ReplyCode, TABLE_DEPTH_MAX};

use super::connection::{CHANNEL_MAX, Connection, FRAME_MAX, HEARTBEAT_SECONDS, Phase};
use super::refusal::Refusal;
use super::users::{Access, Users};

impl Connection {
    /// Answers the protocol header of a client with `connection.start`, and another header with the right one.
    pub(super) fn greet(&mut self, header: &[u8]) {
        if header != PROTOCOL_HEADER {
            self.output.extend_from_slice(&PROTOCOL_HEADER);
            self.finished = true;
            return;
        }
        let capabilities = [
            "authentication_failure_close",
            "basic.nack",
            "connection.blocked",
            "consumer_cancel_notify",
            "consumer_priorities",
            "direct_reply_to",
            "exchange_exchange_bindings",
            "per_consumer_qos",
            "publisher_confirms",
        ];
        let capabilities: FieldTable =
            capabilities.into_iter().map(|name| (name, FieldValue::Bool(true))).collect();
        let properties = FieldTable::from([
            ("product", "model broker".into()),
            ("version", env!("CARGO_PKG_VERSION").into()),
            ("capabilities", capabilities.into()),
        ]);
        let mut table = Vec::new();
        // Short texts and booleans can always be encoded.
        let _ = properties.encode(&mut table);
        let start = connection::Start {
            version_major: 0,
            version_minor: 9,
            server_properties: RawTable::new(&table[4..]),
            mechanisms: b"AMQPLAIN PLAIN RABBIT-CR-DEMO",
            locales: b"en_US",
        };
        self.send(0, &start);
        self.phase = Phase::StartOk;
    }

    /// Handles a method on channel 0.
    pub(super) fn handle_method(
        &mut self,
        method: &Method<'_>,
        users: &Users,
    ) -> Result<(), Refusal> {
        match (self.phase, method) {
            (_, Method::ConnectionClose(_)) => {
                self.send(0, &connection::CloseOk::default());
                // RabbitMQ leaves it to the client to close the transport.
                self.phase = Phase::Closing;
            }
            (Phase::Closing, Method::ConnectionCloseOk(_)) => self.finished = true,
            (Phase::Closing, _) => {}
            (Phase::StartOk, Method::ConnectionStartOk(start_ok)) => {
                let properties = start_ok.client_properties.decode(TABLE_DEPTH_MAX);
                let properties = properties.unwrap_or_default();
                if let Some(FieldValue::Table(capabilities)) = properties.get("capabilities") {
                    let has = |name| {
                        capabilities.get(name).and_then(FieldValue::as_bool).unwrap_or(false)
                    };
                    self.cancel_notify = has("consumer_cancel_notify");
                    self.blocked_notify = has("connection.blocked");
                    self.login_notify = has("authentication_failure_close");
                }
                let (mechanism, response) = (start_ok.mechanism, start_ok.response);
                if !self.log_in(mechanism.as_bytes(), response, users) {
                    return self.refuse_login(&mechanism.to_string());
                }
                if mechanism.as_bytes() == b"RABBIT-CR-DEMO" {
                    self.send(
                        0,
                        &connection::Secure { challenge: b"Please tell me your password" },
                    );
                    self.phase = Phase::SecureOk;
                } else {
                    self.tune();
                }
            }
            (Phase::SecureOk, Method::ConnectionSecureOk(secure_ok)) => {
                let password = secure_ok.response.strip_prefix(b"My password is ");
                if !password.is_some_and(|password| users.has(&self.user, password)) {
                    return self.refuse_login("RABBIT-CR-DEMO");
                }
                self.tune();
            }
            (Phase::TuneOk, Method::ConnectionTuneOk(tune_ok)) => {
                let legal = (1..=CHANNEL_MAX).contains(&tune_ok.channel_max)
                    && (frame::FRAME_MIN_SIZE..=FRAME_MAX).contains(&tune_ok.frame_max);
                // RabbitMQ resets the transport without a close.
                self.finished = !legal;
                self.frame_max = tune_ok.frame_max.max(frame::FRAME_MIN_SIZE);
                self.channel_max = tune_ok.channel_max;
                self.heartbeat = tune_ok.heartbeat;
                self.phase = Phase::Open;
            }
            (Phase::Open, Method::ConnectionOpen(open)) => {
                if open.virtual_host.as_bytes() != b"/" {
                    let text = format!("vhost {} not found", open.virtual_host);
                    return Err(Refusal::connection(ReplyCode::NOT_ALLOWED, text));
                }
                self.access = users.access(&self.user);
                if matches!(self.access, Access::None) {
                    let text = format!("access to vhost '/' refused for user '{}'", self.user);
                    return Err(Refusal::connection(ReplyCode::NOT_ALLOWED, text));
                }
                self.send(0, &connection::OpenOk::default());
                self.phase = Phase::Running;
            }
            (Phase::Running, Method::ConnectionUpdateSecret(_)) => {
                self.send(0, &connection::UpdateSecretOk::default());
            }
            (_, method) => {
                let text = format!("unexpected {} in handshake or on channel 0", method.id());
                return Err(Refusal::connection(ReplyCode::COMMAND_INVALID, text));
            }
        }
        Ok(())
    }

    /// Reads the user and the password of a login. Returns whether they are right, or are still to come.
    fn log_in(&mut self, mechanism: &[u8], response: &[u8], users: &Users) -> bool {
        let login = match mechanism {
            b"PLAIN" => plain(response).map(|(user, password)| (user.to_vec(), password.to_vec())),
            b"AMQPLAIN" => amqplain(response),
            b"RABBIT-CR-DEMO" => {
                self.user = String::from_utf8_lossy(response).into_owned();
                return true;
            }
            _ => None,
        };
        let Some((user, password)) = login else { return false };
        self.user = String::from_utf8_lossy(&user).into_owned();
        users.has(&self.user, &password)
    }

    /// Refuses a login: with a close, if the client understands that.
    fn refuse_login(&mut self, mechanism: &str) -> Result<(), Refusal> {
        if !self.login_notify {
            self.finished = true;
            return Ok(());
        }
        let text = format!(
            "Login was refused using authentication mechanism {mechanism}. For details see the \
             broker logfile."
        );
        Err(Refusal::connection(ReplyCode::ACCESS_REFUSED, text))
    }

    fn tune(&mut self) {
        let (channel_max, frame_max) = (CHANNEL_MAX, FRAME_MAX);
        self.send(0, &connection::Tune { channel_max, frame_max, heartbeat: HEARTBEAT_SECONDS });
        self.phase = Phase::TuneOk;
    }
}

/// Returns the user and the password in a response of PLAIN: each behind a NUL.
fn plain(response: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut parts = response.split(|byte| *byte == 0);
    let (_, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    parts.next().is_none().then_some((user, password))
}

/// Returns the user and the password in a response of AMQPLAIN: a table without its length.
fn amqplain(response: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let table = RawTable::new(response).decode(TABLE_DEPTH_MAX).ok()?;
    let field = |name| table.get(name)?.as_bytes().map(<[u8]>::to_vec);
    Some((field("LOGIN")?, field("PASSWORD")?))
}
