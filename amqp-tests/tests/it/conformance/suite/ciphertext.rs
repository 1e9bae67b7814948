//! Connections over TLS whose bytes end anywhere, with and without a farewell (`close_notify`).

use std::io::ErrorKind;

use amqp_testkit::{Direction, Fault, Proxy};

use super::api::{
    At, BasicGet, CloseCause, Config, ConnectError, ConnectFailure, ConnectStep, Error, Publish,
    PublishError, TlsErrorKind,
};
use crate::support::{exclusive, within};
use crate::tls_server::TlsServer;

super::api::on_model_over_tls! {
    a_conversation_that_is_cut_at_any_byte_of_ciphertext_ends_with_a_typed_error
    a_farewell_ends_the_connection_though_the_socket_stays_open
}

/// Everything of a short conversation, or how it failed. What it receives is right in any case.
async fn conversation(at: &At) -> Result<CloseCause, ConnectError> {
    let connection = at.open(|config: Config| config).await?;
    let talk = async {
        let channel = connection.open_channel().await?;
        let queue = channel.queue_declare(exclusive("cut")).await?;
        let publisher = channel.confirm_select().await?;
        publisher.publish(Publish::to_queue(queue.name(), b"whole")).await?;
        let got = channel.basic_get(BasicGet::new(queue.name()).no_ack()).await?.unwrap();
        assert_eq!(got.body(), b"whole");
        Ok(())
    };
    let talked: Result<(), Error> = talk.await;
    let cause = connection.close().await;
    match talked {
        Err(Error::Connection(lost)) => assert_eq!(lost, cause),
        Err(Error::Publish(failed)) => match *failed {
            PublishError::NotSent(lost) | PublishError::Unknown(lost) => {
                assert_eq!(lost, Error::Connection(cause.clone()));
            }
            refused => panic!("{refused:?}"),
        },
        talked => talked.unwrap(),
    }
    Ok(cause)
}

/// Whether the conversation came to its end. Any other end must say that the transport was lost, or the close not answered.
fn is_whole(outcome: &Result<CloseCause, ConnectError>, what: &str) -> bool {
    let lost = |kind| {
        matches!(
            kind,
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof
        )
    };
    match outcome {
        Ok(CloseCause::ByClient) => return true,
        Ok(CloseCause::ByClientForced) => {}
        Ok(CloseCause::Transport(error)) if lost(error.kind) => {}
        Err(ConnectError::Failed { attempts }) if attempts.len() == 1 => {
            match &attempts[0].failure {
                ConnectFailure::Tls { kind: TlsErrorKind::Truncated, .. } => {}
                ConnectFailure::Lost {
                    step: ConnectStep::Tls | ConnectStep::Start, error, ..
                }
                | ConnectFailure::ProbablyAuthentication(error)
                | ConnectFailure::TuningRefused(error)
                    if lost(error.kind) => {}
                failure => panic!("{what}: {failure:?}"),
            }
        }
        _ => panic!("{what}: {outcome:?}"),
    }
    false
}

async fn a_conversation_that_is_cut_at_any_byte_of_ciphertext_ends_with_a_typed_error(at: At) {
    for direction in [Direction::ToBroker, Direction::ToClient] {
        for (fault, stride) in [(Fault::Cut, 1), (Fault::Reset, 16)] {
            // Several at a time, because each waits for most of its time.
            let lanes = (0..8).map(|lane| {
                let at = at.clone();
                let offsets = (lane * stride..).step_by(8 * stride as usize);
                at.clone().spawn(async move { cut_at_each(offsets, &at, direction, fault).await })
            });
            for lane in lanes.collect::<Vec<_>>() {
                let last = lane.await;
                assert!(last > 500, "{last} bytes are no conversation over TLS");
            }
        }
    }
}

/// The length of a conversation varies with its signatures: it is cut later each time, until it comes to its end.
async fn cut_at_each(
    offsets: impl Iterator<Item = u64>,
    at: &At,
    direction: Direction,
    fault: Fault,
) -> u64 {
    let proxy = Proxy::start(at.port()).unwrap();
    let at = at.by_port(proxy.port());
    for offset in offsets {
        let what = format!("{fault:?} after {offset} bytes {direction:?}");
        proxy.heal();
        proxy.at(direction, offset, fault);
        let outcome = within(&what, conversation(&at)).await;
        if is_whole(&outcome, &what) {
            return offset;
        }
    }
    unreachable!("offsets have no end")
}

/// The broker closes without a word of AMQP, and TLS ends with a farewell. The server then waits for the client to close
/// the socket.
async fn a_farewell_ends_the_connection_though_the_socket_stays_open(at: At) {
    let model = crate::support::model().port();
    for direction in [Direction::ToClient, Direction::ToBroker] {
        let proxy = Proxy::start(model).unwrap();
        let server = TlsServer::trusted(proxy.port());
        let connection = at.by_port(server.port).connect().await;
        connection.open_channel().await.unwrap();
        proxy.inject(direction, Fault::HalfClose);
        let cause = within("the loss", connection.closed()).await;
        let CloseCause::Transport(error) = &cause else { panic!("{direction:?}: {cause:?}") };
        assert_eq!((error.kind, error.tls), (ErrorKind::UnexpectedEof, None), "{direction:?}");
        within("the close of the socket", async {
            while crate::support::sockets_to(server.port) > 0 {
                crate::support::yield_now().await;
            }
        })
        .await;
    }
}
