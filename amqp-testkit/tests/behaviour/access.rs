//! Users, logins and permissions.

use amqp_proto::method::{Method, basic, channel, connection, exchange, queue};
use amqp_proto::{FieldTable, FieldValue, PROTOCOL_HEADER, RawTable};
use amqp_testkit::RawConnection;

use crate::wire::{encoded, short};
use crate::{At, on_both, unique};

on_both! {
    br_71_each_operation_needs_its_permission
    br_71_an_empty_pattern_permits_nothing
    br_72_a_refused_login_says_so
    br_72_a_user_without_permissions_has_no_access
}

/// Sends the header and a login, with the capability to hear that it is refused.
fn begin(at: &At, mechanism: &str, response: &[u8]) -> RawConnection {
    let mut wire = RawConnection::connect(at.port());
    wire.send_bytes(&PROTOCOL_HEADER);
    wire.expect("connection.Start");
    let capabilities = FieldTable::from([("authentication_failure_close", true.into())]);
    let table = encoded(&FieldTable::from([("capabilities", capabilities.into())]));
    let client_properties = RawTable::new(&table);
    let (mechanism, locale) = (short(mechanism), short("en_US"));
    wire.send(0, &connection::StartOk { client_properties, mechanism, response, locale });
    wire
}

/// Goes on with the handshake up to `connection.open`.
fn tune(wire: &mut RawConnection) {
    let tune = wire.expect("connection.Tune");
    let Some(Method::ConnectionTune(tune)) = tune.method() else { panic!() };
    let (channel_max, frame_max) = (tune.channel_max, tune.frame_max);
    wire.send(0, &connection::TuneOk { channel_max, frame_max, heartbeat: 0 });
    wire.send(0, &connection::Open { virtual_host: short("/"), ..Default::default() });
}

/// Connects as a user with the password `secret`, and opens channel 1.
fn open(at: &At, user: &str) -> RawConnection {
    let mut wire = begin(at, "PLAIN", format!("\0{user}\0secret").as_bytes());
    tune(&mut wire);
    wire.expect("connection.OpenOk");
    wire.send(1, &channel::Open::default());
    wire.expect("channel.OpenOk");
    wire
}

#[track_caller]
fn refused(wire: &mut RawConnection, what: &str, user: &str) {
    let expected = format!(
        "channel: ACCESS_REFUSED - access to {what} in vhost '/' refused for user '{user}'"
    );
    assert_eq!(wire.expect_refusal(), (403, expected));
    wire.send(1, &channel::CloseOk::default());
    wire.send(1, &channel::Open::default());
    wire.expect("channel.OpenOk");
}

fn br_71_each_operation_needs_its_permission(at: &At) {
    let user = unique("user");
    at.add_user(&user, Some(["^own", "^own|^out", "^own|^in"]));
    let mut guest = at.open();
    // What this user cannot declare is guest's.
    let (out, inbox) = (unique("out"), unique("in"));
    for name in [&out, &inbox] {
        guest.raw.send(1, &queue::Declare { queue: short(name), ..Default::default() });
        guest.expect("queue.DeclareOk");
    }
    let mut wire = open(at, &user);
    let own = unique("own");
    wire.send(1, &queue::Declare { queue: short(&own), exclusive: true, ..Default::default() });
    wire.expect("queue.DeclareOk");
    let queue = |name: &str| format!("queue '{name}'");
    let fanout = short("amq.fanout");
    wire.send(1, &queue::Declare { queue: short("other"), ..Default::default() });
    refused(&mut wire, "queue 'other'", &user);
    // Nothing is asked for by a passive declaration.
    wire.send(1, &queue::Declare { queue: short(&out), passive: true, ..Default::default() });
    wire.expect("queue.DeclareOk");
    wire.send(1, &queue::Delete { queue: short(&out), ..Default::default() });
    refused(&mut wire, &queue(&out), &user);
    wire.send(1, &queue::Purge { queue: short(&out), ..Default::default() });
    refused(&mut wire, &queue(&out), &user);
    wire.send(1, &basic::Get { queue: short(&out), ..Default::default() });
    refused(&mut wire, &queue(&out), &user);
    wire.send(1, &basic::Consume { queue: short(&out), ..Default::default() });
    refused(&mut wire, &queue(&out), &user);
    wire.send(1, &queue::Bind { queue: short(&inbox), exchange: fanout, ..Default::default() });
    refused(&mut wire, &queue(&inbox), &user);
    wire.send(1, &queue::Bind { queue: short(&own), exchange: fanout, ..Default::default() });
    refused(&mut wire, "exchange 'amq.fanout'", &user);
    wire.send(1, &queue::Unbind { queue: short(&own), exchange: fanout, ..Default::default() });
    refused(&mut wire, "exchange 'amq.fanout'", &user);
    wire.send(
        1,
        &exchange::Declare { exchange: short("x"), r#type: short("fanout"), ..Default::default() },
    );
    refused(&mut wire, "exchange 'x'", &user);
    wire.send(1, &exchange::Delete { exchange: short("x"), ..Default::default() });
    refused(&mut wire, "exchange 'x'", &user);
    let bind =
        exchange::Bind { destination: short("x"), source: short("in"), ..Default::default() };
    wire.send(1, &bind);
    refused(&mut wire, "exchange 'x'", &user);
    wire.send(
        1,
        &exchange::Bind { destination: short("out"), source: fanout, ..Default::default() },
    );
    refused(&mut wire, "exchange 'amq.fanout'", &user);
    // The default exchange has a name here.
    wire.send(1, &basic::Publish { routing_key: short(&own), ..Default::default() });
    wire.send_content(1, &[0, 0], b"");
    refused(&mut wire, "exchange 'amq.default'", &user);
    wire.send(1, &basic::Publish { exchange: fanout, ..Default::default() });
    wire.send_content(1, &[0, 0], b"");
    refused(&mut wire, "exchange 'amq.fanout'", &user);
    // To dead-letter to an exchange is to write to it.
    let dead = unique("own");
    let table = encoded(&FieldTable::from([("x-dead-letter-exchange", "amq.fanout".into())]));
    let arguments = RawTable::new(&table);
    wire.send(1, &queue::Declare { queue: short(&dead), arguments, ..Default::default() });
    refused(&mut wire, "exchange 'amq.fanout'", &user);
    wire.send(1, &basic::Get { queue: short(&inbox), ..Default::default() });
    wire.expect("basic.GetEmpty");
    for name in [&out, &inbox] {
        guest.delete(name);
    }
}

fn br_71_an_empty_pattern_permits_nothing(at: &At) {
    let user = unique("user");
    at.add_user(&user, Some(["", "", ".*"]));
    let mut wire = open(at, &user);
    wire.send(1, &queue::Declare { queue: short("any"), ..Default::default() });
    refused(&mut wire, "queue 'any'", &user);
    wire.send(1, &basic::Publish { routing_key: short("any"), ..Default::default() });
    wire.send_content(1, &[0, 0], b"");
    refused(&mut wire, "exchange 'amq.default'", &user);
}

fn br_72_a_refused_login_says_so(at: &At) {
    let user = unique("user");
    at.add_user(&user, Some([".*", ".*", ".*"]));
    let amqplain = |password: &str| {
        encoded(&FieldTable::from([
            ("LOGIN", FieldValue::from(user.as_str())),
            ("PASSWORD", password.into()),
        ]))
    };
    for (mechanism, response) in [
        ("PLAIN", format!("\0{user}\0wrong").into_bytes()),
        ("PLAIN", b"\0nobody\0secret".to_vec()),
        ("AMQPLAIN", amqplain("wrong")),
    ] {
        let mut wire = begin(at, mechanism, &response);
        let expected = format!(
            "connection: ACCESS_REFUSED - Login was refused using authentication mechanism \
             {mechanism}. For details see the broker logfile."
        );
        assert_eq!(wire.expect_refusal(), (403, expected));
    }
    let mut wire = begin(at, "AMQPLAIN", &amqplain("secret"));
    tune(&mut wire);
    wire.expect("connection.OpenOk");
    // A message may say by whom it is published, if it is true.
    let mut wire = open(at, &user);
    wire.send(1, &basic::Publish { routing_key: short("none"), ..Default::default() });
    let mut properties = Vec::new();
    amqp_proto::Properties::new().user_id("guest").encode(&mut properties).unwrap();
    wire.send_content(1, &properties, b"");
    let expected = format!(
        "channel: PRECONDITION_FAILED - user_id property set to 'guest' but authenticated user was \
         '{user}'"
    );
    assert_eq!(wire.expect_refusal(), (406, expected));
}

fn br_72_a_user_without_permissions_has_no_access(at: &At) {
    let user = unique("user");
    at.add_user(&user, None);
    let mut wire = begin(at, "PLAIN", format!("\0{user}\0secret").as_bytes());
    tune(&mut wire);
    let expected =
        format!("connection: NOT_ALLOWED - access to vhost '/' refused for user '{user}'");
    assert_eq!(wire.expect_refusal(), (530, expected));
}
