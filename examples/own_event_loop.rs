//! The state machine alone in an event loop of one's own: mio, one thread, no lock, no runtime. Another
//! thread works on the deliveries and sends their tags back; the loop acknowledges.
//!
//! `cargo run --example own_event_loop` runs on an embedded broker, or on the one that `AMQP_URL` names.

use std::io::ErrorKind::{Interrupted, NotConnected, UnexpectedEof, WouldBlock};
use std::io::{self, IoSlice, Read, Write};
use std::net::ToSocketAddrs;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use amqp_core::{
    Action, Attempt, BasicConsume, Call, ChannelId, CloseCause, Config, DeliveryTag, Event,
    Publish, QueueDeclare, Session, Transmit,
};
use amqp_testkit::EnvBroker;
use bytes::{Bytes, BytesMut};
use mio::{Events, Interest, Poll, Token, Waker, net::TcpStream};

type Failure = Box<dyn std::error::Error>;
const QUEUE: &str = "example-own-loop";
const MESSAGES: u32 = 100;

fn main() -> Result<(), Failure> {
    let broker = EnvBroker::start()?;
    let poll = Poll::new()?;
    let waker = Waker::new(poll.registry(), Token(1))?;
    let (hand_over, deliveries) = mpsc::channel();
    let (done, acks) = mpsc::channel();
    let worker = thread::spawn(move || {
        let work = |(tag, body): (_, Bytes)| {
            done.send(tag).expect("the loop is there");
            waker.wake().expect("the loop is there");
            str::from_utf8(&body).expect("text").parse::<u32>().expect("a number")
        };
        deliveries.into_iter().map(work).sum::<u32>()
    });
    let config = Config::from_uri(&broker.uri)?;
    if config.wants_tls() {
        return Err("this loop has no TLS: use amqp".into());
    }
    let session = Session::new(Arc::new(config), Instant::now(), 0)?;
    let (input, out) = (BytesMut::new(), Transmit::new());
    let driver = Driver { session, poll, socket: None, connected: false, input, out, written: 0 };
    driver.run(App { channel: None, hand_over, acks, acked: 0 })?;
    let sum = worker.join().map_err(|_| "the worker panicked")?;
    println!("{MESSAGES} deliveries acknowledged from elsewhere; they add up to {sum}");
    Ok(())
}

/// What the application is about: it acts on events, and blocks on nothing.
struct App {
    channel: Option<(ChannelId, Call<()>)>,
    hand_over: mpsc::Sender<(DeliveryTag, Bytes)>,
    acks: mpsc::Receiver<DeliveryTag>,
    acked: u32,
}

impl App {
    fn on_event(&mut self, session: &mut Session, event: &Event) -> Result<(), Failure> {
        let now = Instant::now();
        match (event, &self.channel) {
            (Event::Opened, _) => self.channel = Some(session.open_channel(now)?),
            (Event::CallDone(key), Some((id, opening))) if *key == opening.key() => {
                // What follows is answered in its order. A refusal closes the channel.
                let mut channel = session.channel(*id);
                channel.call(now, &QueueDeclare::new(QUEUE).exclusive())?;
                channel.consume(now, &BasicConsume::new(QUEUE).prefetch(10))?;
                for number in 0..MESSAGES {
                    channel.publish(&Publish::new("", QUEUE, number.to_string()))?;
                }
            }
            (Event::Deliverable(consumer), Some((id, _))) => {
                while let Some(delivery) = session.channel(*id).next_delivery(*consumer) {
                    self.hand_over.send((delivery.tag, delivery.message.into_body()))?;
                }
            }
            (Event::ChannelClosed { .. }, _) if self.acked < MESSAGES => Err("it was refused")?,
            _ => {}
        }
        Ok(())
    }

    fn on_wake(&mut self, session: &mut Session) -> Result<(), Failure> {
        for tag in self.acks.try_iter() {
            session.channel(tag.channel()).ack(tag, false)?;
            self.acked += 1;
            if self.acked == MESSAGES {
                session.close(Instant::now());
            }
        }
        Ok(())
    }
}

/// What moves the bytes: it knows nothing of the application, and nothing of AMQP.
struct Driver {
    session: Session,
    poll: Poll,
    socket: Option<(Attempt, TcpStream)>,
    connected: bool,
    input: BytesMut,
    out: Transmit,
    written: u64,
}

impl Driver {
    fn run(mut self, mut app: App) -> Result<(), Failure> {
        let mut events = Events::with_capacity(8);
        loop {
            // Input first, then time, so that silence is real; then what came of them.
            self.transfer();
            self.session.handle_timeout(Instant::now());
            let mut ends = false;
            while let Some(action) = self.session.poll_action() {
                ends |= self.act(action)?;
            }
            while let Some(event) = self.session.poll_event() {
                app.on_event(&mut self.session, &event)?;
            }
            self.transfer();
            if ends {
                let cause = self.session.cause().filter(|it| **it != CloseCause::ByClient);
                return cause.map_or(Ok(()), |cause| Err(cause.to_string().into()));
            }
            let now = Instant::now();
            let wait = self.session.poll_timeout().map(|(at, _)| at.saturating_duration_since(now));
            let more = self.session.has_events() || self.session.wants_action();
            match self.poll.poll(&mut events, if more { Some(Duration::ZERO) } else { wait }) {
                Err(error) if error.kind() != Interrupted => return Err(error.into()),
                _ => app.on_wake(&mut self.session)?,
            }
        }
    }

    /// Does what the session asks for; whether it was the last thing.
    fn act(&mut self, action: Action) -> io::Result<bool> {
        let now = Instant::now();
        match action {
            // A name that takes long to look up holds up the loop: a thread of its own would not.
            Action::Resolve { attempt, host, port } => {
                let addresses = (&*host, port).to_socket_addrs().map(Iterator::collect);
                self.session.handle_resolved(now, attempt, addresses.map_err(Into::into));
            }
            Action::Dial { attempt, target } => {
                (self.connected, self.written) = (false, 0);
                (self.input, self.out) = (BytesMut::new(), Transmit::new());
                let address = target.address.ok_or(io::ErrorKind::AddrNotAvailable)?;
                match TcpStream::connect(address) {
                    Ok(mut stream) => {
                        let both = Interest::READABLE | Interest::WRITABLE;
                        self.poll.registry().register(&mut stream, Token(0), both)?;
                        self.socket = Some((attempt, stream));
                    }
                    Err(error) => self.session.handle_disconnected(now, attempt, error.into(), 0),
                }
            }
            Action::Disconnect { .. } => {
                // What the socket takes now is enough to tell the broker why this side closes.
                if let Some((attempt, mut stream)) = self.socket.take() {
                    let _ = self.write(attempt, &mut stream);
                }
            }
            _ => return Ok(true),
        }
        Ok(false)
    }

    /// Connects, reads and writes until the socket would block.
    fn transfer(&mut self) {
        for step in [Self::read, Self::write] {
            let Some((attempt, mut stream)) = self.socket.take() else { return };
            match step(self, attempt, &mut stream) {
                Err(error) if !matches!(error.kind(), WouldBlock | NotConnected) => {
                    let (now, written) = (Instant::now(), self.written);
                    self.session.handle_disconnected(now, attempt, error.into(), written);
                }
                _ => self.socket = Some((attempt, stream)),
            }
        }
    }

    /// Before writing: what the broker sent before its socket failed counts.
    fn read(&mut self, attempt: Attempt, stream: &mut TcpStream) -> io::Result<()> {
        if !self.connected {
            stream.take_error()?.map_or(Ok(()), Err)?;
            self.connected = stream.peer_addr().map(|_| true)?;
            stream.set_nodelay(true)?;
            self.session.handle_connected(Instant::now(), attempt);
        }
        let mut buffer = [0; 16 << 10];
        while self.session.wants_input() {
            match stream.read(&mut buffer)? {
                0 => return Err(UnexpectedEof.into()),
                count => self.input.extend_from_slice(&buffer[..count]),
            }
            while self.session.handle_input(Instant::now(), &mut self.input) {}
        }
        Ok(())
    }

    fn write(&mut self, attempt: Attempt, stream: &mut TcpStream) -> io::Result<()> {
        while !self.out.is_empty() || self.session.poll_transmit(Instant::now(), &mut self.out) {
            let mut slices = [IoSlice::new(&[]); 16];
            let filled = self.out.slices(&mut slices);
            let count = stream.write_vectored(&slices[..filled])?;
            self.out.advance(count);
            self.written += count as u64;
            self.session.handle_written(Instant::now(), attempt, self.written);
        }
        Ok(())
    }
}
