//! What the examples beside this file share: a broker to run on.

use std::io;

use amqp_testkit::ModelBroker;

/// A broker for an example.
#[derive(Debug)]
pub struct Broker {
    /// Where it is.
    pub uri: String,
    _embedded: Option<ModelBroker>,
}

/// The broker that `AMQP_URL` names, or else one that is embedded.
///
/// # Errors
/// If the embedded one finds no port to listen on.
pub fn broker() -> io::Result<Broker> {
    match std::env::var("AMQP_URL") {
        Ok(uri) => Ok(Broker { uri, _embedded: None }),
        Err(_) => {
            let broker = ModelBroker::start()?;
            Ok(Broker { uri: broker.uri(), _embedded: Some(broker) })
        }
    }
}
