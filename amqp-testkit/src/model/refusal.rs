//! Refusals: the reply codes and texts of the closes that answer a method.

use amqp_proto::ReplyCode;

/// Closes the channel or the connection, with this code and text.
#[derive(Debug)]
pub(super) enum Refusal {
    Channel(ReplyCode, String),
    Connection(ReplyCode, String),
}

impl Refusal {
    pub(super) fn channel(code: ReplyCode, text: impl AsRef<str>) -> Self {
        Self::Channel(code, with_name(code, text.as_ref()))
    }

    pub(super) fn connection(code: ReplyCode, text: impl AsRef<str>) -> Self {
        Self::Connection(code, with_name(code, text.as_ref()))
    }

    pub(super) fn not_implemented(what: &str) -> Self {
        Self::connection(ReplyCode::NOT_IMPLEMENTED, format!("the model broker has no {what}"))
    }

    pub(super) fn unexpected_frame(what: &str) -> Self {
        Self::connection(ReplyCode::UNEXPECTED_FRAME, what)
    }

    pub(super) fn precondition_failed(text: impl AsRef<str>) -> Self {
        Self::channel(ReplyCode::PRECONDITION_FAILED, text)
    }

    pub(super) fn no_exchange(name: &str) -> Self {
        Self::channel(ReplyCode::NOT_FOUND, format!("no exchange '{name}' in vhost '/'"))
    }

    pub(super) fn no_queue(name: &str) -> Self {
        Self::channel(ReplyCode::NOT_FOUND, format!("no queue '{name}' in vhost '/'"))
    }

    /// Refuses a queue that is exclusive to another connection.
    pub(super) fn locked_queue(name: &str) -> Self {
        let text = format!(
            "cannot obtain exclusive access to locked queue '{name}' in vhost '/'. It could be \
             originally declared on another connection or the exclusive property value does not \
             match that of the original declaration."
        );
        Self::channel(ReplyCode::RESOURCE_LOCKED, text)
    }

    pub(super) fn default_exchange() -> Self {
        let text = "operation not permitted on the default exchange";
        Self::channel(ReplyCode::ACCESS_REFUSED, text)
    }

    pub(super) fn reserved_name(what: &str, name: &str) -> Self {
        let text = format!("{what} name '{name}' contains reserved prefix 'amq.*'");
        Self::channel(ReplyCode::ACCESS_REFUSED, text)
    }

    /// Refuses a declaration that differs from what exists, such as `queue 'orders'`, in an argument.
    pub(super) fn inequivalent(argument: &str, of: &str, received: &str, current: &str) -> Self {
        Self::precondition_failed(format!(
            "inequivalent arg '{argument}' for {of} in vhost '/': received {received} but current \
             is {current}"
        ))
    }
}

/// Begins the text with the code's name, as RabbitMQ does.
fn with_name(code: ReplyCode, text: &str) -> String {
    format!("{} - {text}", code.name().unwrap_or("ERROR"))
}
