use std::io;

use crate::ModelBroker;

/// A broker for examples and manual tests: the one that the environment variable `AMQP_URL` names, or else a model
/// broker.
///
/// ```
/// let broker = amqp_testkit::EnvBroker::start()?;
/// println!("connect to {}", broker.uri);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct EnvBroker {
    /// The URI of the broker.
    pub uri: String,
    /// Kept because the broker stops when it is dropped.
    _model: Option<ModelBroker>,
}

impl EnvBroker {
    /// Returns the broker that `AMQP_URL` names. If it is not set, starts a model broker, which stops when this value is
    /// dropped.
    ///
    /// # Errors
    /// If the model broker cannot listen on a port.
    pub fn start() -> io::Result<Self> {
        match Self::external() {
            Some(broker) => Ok(broker),
            None => {
                let model = ModelBroker::start()?;
                Ok(Self { uri: model.uri(), _model: Some(model) })
            }
        }
    }

    /// Returns the broker that `AMQP_URL` names, `None` if it is not set. For programs that need what the model broker
    /// lacks.
    pub fn external() -> Option<Self> {
        let uri = std::env::var("AMQP_URL").ok()?;
        Some(Self { uri, _model: None })
    }
}
