//! The driver and the handles on a runtime that is played: its clock stands still until it is moved, and its
//! sockets are noticed when the test says so.

mod driver;
mod hooks;
mod pipelined;
mod played;
mod recovering;
