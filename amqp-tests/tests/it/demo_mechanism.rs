//! RABBIT-CR-DEMO, the one mechanism with several steps that RabbitMQ has.

use amqp_async::types::{AuthExchange, AuthMechanism};

pub(crate) struct Demo {
    user: String,
    password: String,
}

impl Demo {
    pub(crate) fn new(user: &str, password: &str) -> Self {
        Self { user: user.into(), password: password.into() }
    }
}

impl AuthMechanism for Demo {
    fn name(&self) -> &str {
        "RABBIT-CR-DEMO"
    }

    fn begin(&self) -> Box<dyn AuthExchange> {
        let (user, password) = (self.user.clone(), self.password.clone());
        Box::new(move |challenge: Option<&[u8]>| match challenge {
            None => Ok(user.clone().into_bytes()),
            Some(b"Please tell me your password") => {
                Ok(format!("My password is {password}").into_bytes())
            }
            Some(other) => Err(format!("unknown challenge {other:?}")),
        })
    }
}
