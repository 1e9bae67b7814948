use std::io;

use crate::ModelBroker;

/// A broker for examples and manual tests: the one that `AMQP_URL` names, or a model broker.
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
    /// Serves until it is dropped.
    _model: Option<ModelBroker>,
}

impl EnvBroker {
    /// Reads `AMQP_URL`. Without it, starts a model broker, which stops when this value is dropped.
    ///
    /// # Errors
    /// The model broker finds no free port.
    pub fn start() -> io::Result<Self> {
        match Self::external() {
            Some(broker) => Ok(broker),
            None => {
                let model = ModelBroker::start()?;
                Ok(Self { uri: model.uri(), _model: Some(model) })
            }
        }
    }

    /// Reads `AMQP_URL`, for programs that need what the model broker lacks. `None` if it is not set.
    pub fn external() -> Option<Self> {
        let uri = std::env::var("AMQP_URL").ok()?;
        Some(Self { uri, _model: None })
    }
}
