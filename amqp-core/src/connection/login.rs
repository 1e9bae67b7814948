//! The login: which mechanism is used, and what `connection.start-ok` says (AMQP 0-9-1, 1.4.2.1).

use amqp_proto::frame::{self, FRAME_OVERHEAD};
use amqp_proto::method::connection;
use amqp_proto::{RawTable, ShortStr};
use zeroize::Zeroizing;

use crate::config::{Choice, Config, Credentials, UserPassword};
use crate::error::{InvalidArgument, InvalidReason};
use crate::limits::SHORT_FIELDS_BYTES;

/// Returns the first of the mechanisms that the broker offers.
pub(super) fn choose<'a>(credentials: &'a Credentials, offered: &[u8]) -> Option<&'a Choice> {
    let offers = |choice: &&Choice| {
        offered.split(|b| *b == b' ').any(|name| name == choice.name().as_bytes())
    };
    credentials.choices().iter().find(offers)
}

/// Checks that every login that these credentials may need can be sent. What a mechanism of the application
/// sends is checked later.
pub(crate) fn check(config: &Config, credentials: &Credentials) -> Result<(), InvalidArgument> {
    credentials.check()?;
    credentials.choices().iter().try_for_each(|choice| {
        let response = initial_response(choice).unwrap_or_default();
        start_ok(config, choice.name(), &response).map(|_| ())
    })
}

/// What is sent with `connection.start-ok`; `None` if a mechanism of the application decides.
pub(super) fn initial_response(choice: &Choice) -> Option<Zeroizing<Vec<u8>>> {
    match choice {
        Choice::Plain(login) => Some(plain(login)),
        Choice::AmqPlain(login) => Some(amqplain(login)),
        Choice::External => Some(Zeroizing::default()),
        Choice::Mechanism(..) => None,
    }
}

/// The frame of `connection.start-ok`.
pub(super) fn start_ok(
    config: &Config,
    mechanism: &str,
    response: &[u8],
) -> Result<Zeroizing<Vec<u8>>, InvalidArgument> {
    let mut properties = Vec::new();
    let encoded = config.sent_properties().encode(&mut properties);
    encoded.map_err(|error| InvalidArgument::new("client-properties", error))?;
    let mut bytes = secret_buffer(properties.len() + response.len());
    let start_ok = connection::StartOk {
        client_properties: RawTable::new(properties.get(4..).unwrap_or_default()),
        mechanism: ShortStr::new(mechanism).unwrap_or_default(),
        response,
        locale: ShortStr::new(&config.locale).unwrap_or_default(),
    };
    frame::write_method(&mut bytes, 0, &start_ok);
    check_size(config, "login", &bytes)?;
    Ok(bytes)
}

/// The frame of `connection.secure-ok`.
pub(super) fn secure_ok(
    config: &Config,
    response: &[u8],
) -> Result<Zeroizing<Vec<u8>>, InvalidArgument> {
    let mut bytes = secret_buffer(response.len());
    frame::write_method(&mut bytes, 0, &connection::SecureOk { response });
    check_size(config, "response", &bytes)?;
    Ok(bytes)
}

/// A buffer for a frame whose long fields have this length. It does not move while it is filled: what it would
/// leave behind could not be wiped.
pub(super) fn secret_buffer(long_fields: usize) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(Vec::with_capacity(long_fields + SHORT_FIELDS_BYTES + FRAME_OVERHEAD))
}

/// A login is sent before a frame size is negotiated.
fn check_size(
    config: &Config,
    argument: &'static str,
    frame: &[u8],
) -> Result<(), InvalidArgument> {
    let (size, frame_max) = (frame.len(), config.initial_frame_max);
    if size > frame_max as usize {
        let reason = InvalidReason::InitialFrameTooLarge { size, initial_frame_max: frame_max };
        return Err(InvalidArgument::new(argument, reason));
    }
    Ok(())
}

fn plain(login: &UserPassword) -> Zeroizing<Vec<u8>> {
    let (user, password) = (login.user.as_bytes(), login.password.expose().as_bytes());
    let mut response = secret_buffer(user.len() + password.len());
    for field in [user, password] {
        response.push(0);
        response.extend_from_slice(field);
    }
    response
}

/// The fields of a table, without the table's length.
fn amqplain(login: &UserPassword) -> Zeroizing<Vec<u8>> {
    let (user, password) = (login.user.as_str(), login.password.expose());
    let mut response = secret_buffer(user.len() + password.len());
    for (name, value) in [("LOGIN", user), ("PASSWORD", password)] {
        response.push(name.len() as u8);
        response.extend_from_slice(name.as_bytes());
        response.push(b'S');
        // A longer one does not fit a frame, which is checked later.
        response.extend_from_slice(&(value.len() as u32).to_be_bytes());
        response.extend_from_slice(value.as_bytes());
    }
    response
}
