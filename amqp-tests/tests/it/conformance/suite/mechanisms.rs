//! Mechanisms of the application. RabbitMQ has one with several steps only where its configuration says so.

use super::api::{At, ConnectFailure, Credentials};
use super::connecting::only_failure;
use crate::support::within;

super::api::on_model! {
    a_mechanism_of_the_application_takes_several_steps
}

/// RABBIT-CR-DEMO of RabbitMQ 3: the broker asks for the password.
async fn a_mechanism_of_the_application_takes_several_steps(at: At) {
    for (password, right) in [("guest", true), ("wrong", false)] {
        let demo = crate::demo_mechanism::Demo::new("guest", password);
        // PLAIN is not tried when the mechanism is refused.
        let credentials = Credentials::mechanism(demo).or(Credentials::plain("guest", "guest"));
        let opened = within("an answer", at.open(|config| config.credentials(credentials))).await;
        match opened {
            Ok(connection) => {
                assert!(right);
                connection.close().await;
            }
            Err(error) => {
                assert!(!right, "{error}");
                assert!(matches!(only_failure(&error), ConnectFailure::Authentication(_)));
            }
        }
    }
}
