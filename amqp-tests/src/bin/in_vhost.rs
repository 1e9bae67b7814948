//! An application in the virtual host of a RabbitMQ that variables of the environment name, or in one that is created: `in_vhost
//! [--threads]`. It prints the name of the virtual host and what the application has answered, and ends with its input.

use std::io;

use amqp_app::prelude::*;
use amqp_app::testing::Vhost;

fn double(Json(number): Json<u32>) -> Result<Message, Failure> {
    Ok(Message::json(&(2 * number))?.to_queue("doubled"))
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("--threads") => on_threads(),
        _ => on_tokio(),
    }
}

#[tokio::main]
async fn on_tokio() {
    let vhost = Vhost::from_environment(amqp_tokio::Connector::new).await;
    println!("{}", vhost.name());
    for queue in ["numbers", "doubled"] {
        vhost.queue(queue).await;
    }
    vhost.run(App::new(vhost.platform()).consume("numbers", blocking(double))).await;
    vhost.send("numbers", &7).await;
    println!("{}", vhost.expect::<u32>("doubled").await);
    let _ = io::read_to_string(io::stdin());
    vhost.stop().await;
}

fn on_threads() {
    let vhost = Vhost::from_environment_on_threads(amqp_blocking::Connector::new);
    println!("{}", vhost.name());
    for queue in ["numbers", "doubled"] {
        vhost.queue(queue);
    }
    vhost.run(App::new(vhost.platform()).consume("numbers", double));
    vhost.send("numbers", &7);
    println!("{}", vhost.expect::<u32>("doubled"));
    let _ = io::read_to_string(io::stdin());
    vhost.stop();
}
