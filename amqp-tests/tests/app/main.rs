//! Applications on every runtime: what becomes of messages, on the model broker and on RabbitMQ.

mod at;
mod configured;
mod consuming;
mod delaying;
mod extracting;
mod groups;
mod hooks;
mod kills;
mod losing;
mod middleware;
mod ordering;
mod points;
mod poison;
mod probing;
mod replying;
mod requesting;
mod resorts;
mod retrying;
mod signals;
mod stopping;
mod surviving;
mod threads;
mod timeouts;
mod waiting;
mod world;
