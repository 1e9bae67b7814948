//! A private RabbitMQ node, with free ports on loopback, a folder and a port mapper (epmd) of its own.
//!
//! The node is started from the programs in the folder that `AMQP_TESTKIT_RABBITMQ` names. If that is not set, it is
//! started from the RabbitMQ of Debian's package, or else from one on the `PATH`.
//!
//! A guard process reads a pipe whose other end the test process holds. The pipe ends with the test process, also
//! when that is killed. The guard then kills the node, and removes its folder.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs, io, process, thread};

/// The maximum time in which a node starts.
const START_TIMEOUT: Duration = Duration::from_secs(90);
/// The maximum time in which a node stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// The time between two checks of a node that starts or stops.
const POLL: Duration = Duration::from_millis(50);
/// The file by which nodes and `rabbitmqctl` trust each other, in a node's folder.
const COOKIE: &str = "home/.erlang.cookie";
/// The ports on which nodes listen.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// The environment variable with the arguments of a server's Erlang.
const ERLANG_ARGUMENTS: &str = "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS";
/// The environment variable that names the folder of RabbitMQ's programs, in place of those that are installed.
const PROGRAMS_VARIABLE: &str = "AMQP_TESTKIT_RABBITMQ";
/// The folder of the programs of Debian's package. Its wrappers in other folders switch the user.
const DEBIAN_PROGRAMS: &str = "/usr/lib/rabbitmq/bin";

/// A private RabbitMQ node. It is killed, and its data removed, when it is dropped.
///
/// ```no_run
/// let node = amqp_testkit::RabbitMq::start()?;
/// println!("connect a client to {}", node.uri());
/// node.ctl(&["list_queues", "name", "messages"])?;
/// node.restart()?;
/// # Ok::<(), amqp_testkit::rabbitmq::RabbitMqError>(())
/// ```
#[derive(Debug)]
pub struct RabbitMq {
    programs: PathBuf,
    folder: PathBuf,
    name: String,
    port: u16,
    mapper: u16,
    environment: Vec<(&'static str, String)>,
    guard: Mutex<Guard>,
}

/// Why a node could not be started or managed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RabbitMqError {
    /// A program of the node failed.
    #[error("{command} failed: {output}")]
    Command {
        /// The command.
        command: String,
        /// What it printed.
        output: String,
    },
    /// The operating system returned an error.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// RabbitMQ is not installed.
    #[error(
        "rabbitmq-server not found in the folder that {PROGRAMS_VARIABLE} names, or without that \
         in {DEBIAN_PROGRAMS} and on the PATH: install it with \
         `apt-get install -y --no-install-recommends rabbitmq-server`"
    )]
    NotInstalled,
    /// The node did not accept connections, or did not stop, in time.
    #[error("the node was not {what} within {} s; its log ends with:\n{log}", after.as_secs())]
    TimedOut {
        /// What was awaited.
        what: &'static str,
        /// The timeout.
        after: Duration,
        /// The end of the node's output.
        log: String,
    },
}

impl RabbitMq {
    /// Starts a node, and waits until it accepts connections (about 5 s).
    ///
    /// # Errors
    /// [`RabbitMqError`]. If RabbitMQ is not installed, the error says how to install it.
    pub fn start() -> Result<Self, RabbitMqError> {
        Self::start_with("")
    }

    /// Starts a node with additional lines of `rabbitmq.conf`.
    ///
    /// # Errors
    /// Those of [`start`](Self::start).
    pub fn start_with(configuration: &str) -> Result<Self, RabbitMqError> {
        Self::start_with_plugins(configuration, &[])
    }

    /// Starts a node with additional lines of `rabbitmq.conf`, and with plugins.
    ///
    /// # Errors
    /// Those of [`start`](Self::start).
    pub fn start_with_plugins(
        configuration: &str,
        plugins: &[&str],
    ) -> Result<Self, RabbitMqError> {
        Self::start_beside(None, configuration, plugins)
    }

    /// Starts a cluster of this many nodes, one after the other (about 10 s each). To launch one again, the first one must
    /// not have been dropped: it has the port mapper of all.
    ///
    /// ```no_run
    /// use amqp_testkit::RabbitMq;
    /// let nodes = RabbitMq::start_cluster(3)?;
    /// let ports: Vec<u16> = nodes.iter().map(RabbitMq::port).collect();
    /// println!("connect a client to one of {ports:?}");
    /// # Ok::<(), amqp_testkit::rabbitmq::RabbitMqError>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`start`](Self::start).
    pub fn start_cluster(nodes: usize) -> Result<Vec<Self>, RabbitMqError> {
        let mut cluster: Vec<Self> = Vec::with_capacity(nodes);
        for _ in 0..nodes {
            let node = Self::start_beside(cluster.first(), "", &[])?;
            if let Some(first) = cluster.first() {
                let join = ["join_cluster", &first.name];
                for step in [&["stop_app"][..], &["reset"], &join, &["start_app"]] {
                    node.ctl(step)?;
                }
            }
            cluster.push(node);
        }
        Ok(cluster)
    }

    /// Starts a node with the port mapper and the cookie of the other, if there is one.
    fn start_beside(
        other: Option<&Self>,
        configuration: &str,
        plugins: &[&str],
    ) -> Result<Self, RabbitMqError> {
        static NODES: AtomicU32 = AtomicU32::new(0);
        let programs = find_programs().ok_or(RabbitMqError::NotInstalled)?;
        let number = NODES.fetch_add(1, Ordering::Relaxed);
        let name = format!("testkit-{}-{number}", process::id());
        let folder = env::temp_dir().join(format!("amqp-{name}"));
        let [port, distribution, own_mapper] = free_ports()?;
        let mapper = other.map_or(own_mapper, |other| other.mapper);
        // From here on the guard cleans up, also if this fails.
        let guard = Guard::start(&folder, other.is_none().then_some(mapper))?;
        for part in ["mnesia", "log", "home"] {
            fs::create_dir_all(folder.join(part))?;
        }
        match other {
            Some(other) => drop(fs::copy(other.folder.join(COOKIE), folder.join(COOKIE))?),
            None => write_cookie(&folder.join(COOKIE), &name)?,
        }
        // The default of later versions is lower.
        let conf = format!(
            "loopback_users = none\nlog.file.level = info\nmax_message_size = 134217728\n\
             {configuration}\n"
        );
        fs::write(folder.join("rabbitmq.conf"), conf)?;
        fs::write(folder.join("enabled_plugins"), format!("[{}].\n", plugins.join(",")))?;
        fs::write(folder.join("advanced.config"), "[].\n")?;
        let name = format!("{name}@localhost");
        let node = Self {
            programs,
            environment: environment(&folder, &name, port, distribution, mapper),
            folder,
            name,
            port,
            mapper,
            guard: Mutex::new(guard),
        };
        // A node that finds no port mapper starts one that outlives it.
        let mapped = || TcpStream::connect((Ipv4Addr::LOCALHOST, mapper)).is_ok();
        node.wait_for("able to reach its port mapper", START_TIMEOUT, mapped)?;
        node.launch()?;
        Ok(node)
    }

    /// Returns the port on 127.0.0.1.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Returns the node's URI, with the default user and virtual host.
    pub fn uri(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    /// Runs `rabbitmqctl -q` and returns what it prints.
    ///
    /// # Errors
    /// [`RabbitMqError::Command`] with its output, if it fails.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String, RabbitMqError> {
        let mut command = self.command("rabbitmqctl");
        let output = command.arg("-q").args(arguments).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        let command = format!("rabbitmqctl {}", arguments.join(" "));
        Err(RabbitMqError::Command { command, output: text + &error })
    }

    /// Returns the command with which another process runs `rabbitmqctl` on this node: a program and its arguments, separated
    /// by spaces.
    pub fn ctl_command(&self) -> String {
        // Its arguments have spaces, and are those of the server.
        let variables = self.environment.iter().filter(|(name, _)| *name != ERLANG_ARGUMENTS);
        let variables = variables.map(|(name, value)| format!("{name}={value} "));
        let program = self.programs.join("rabbitmqctl");
        format!("env {}{} -q", variables.collect::<String>(), program.display())
    }

    /// Kills the node (`kill -9`), as in a crash. [`launch`](Self::launch) starts it again.
    ///
    /// # Errors
    /// [`RabbitMqError`].
    pub fn kill(&self) -> Result<(), RabbitMqError> {
        self.signal("KILL")?;
        // Another process may get this process id.
        Ok(fs::remove_file(self.folder.join("pid"))?)
    }

    /// Shuts the node down gracefully. [`launch`](Self::launch) starts it again.
    ///
    /// # Errors
    /// [`RabbitMqError`].
    pub fn stop(&self) -> Result<(), RabbitMqError> {
        self.signal("TERM")
    }

    /// Starts a node again that was stopped or killed, on the same port and with the same data.
    ///
    /// # Errors
    /// [`RabbitMqError`].
    pub fn launch(&self) -> Result<(), RabbitMqError> {
        let log = |name| fs::File::options().create(true).append(true).open(self.folder.join(name));
        let mut command = self.command("rabbitmq-server");
        command.stdin(Stdio::null()).stdout(log("stdout.log")?).stderr(log("stderr.log")?);
        // A group of its own, so that the guard can end all of it at any moment.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut server = command.spawn()?;
        self.guard.lock().unwrap_or_else(PoisonError::into_inner).watch(server.id())?;
        // A child that is not waited for stays as a zombie.
        thread::spawn(move || server.wait());
        self.wait_for("accepting connections", START_TIMEOUT, || self.accepts())
    }

    /// Shuts the node down gracefully, and starts it again.
    ///
    /// # Errors
    /// [`RabbitMqError`].
    pub fn restart(&self) -> Result<(), RabbitMqError> {
        self.stop()?;
        self.launch()
    }

    fn signal(&self, signal: &str) -> Result<(), RabbitMqError> {
        // A clean stop removes the file.
        let pid = fs::read_to_string(self.folder.join("pid"))?.trim().to_owned();
        run(Command::new("sh").arg("-c").arg(format!("kill -{signal} {pid}")))?;
        let process = Path::new("/proc").join(&pid);
        self.wait_for("gone", STOP_TIMEOUT, || !process.exists())
    }

    fn wait_for(
        &self,
        what: &'static str,
        after: Duration,
        done: impl Fn() -> bool,
    ) -> Result<(), RabbitMqError> {
        let begun = Instant::now();
        while !done() {
            if begun.elapsed() > after {
                return Err(RabbitMqError::TimedOut { what, after, log: self.log() });
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Returns whether the node answers a protocol header with a method frame.
    fn accepts(&self) -> bool {
        let greet = || -> io::Result<u8> {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(&amqp_proto::PROTOCOL_HEADER)?;
            let mut first = [0];
            stream.read_exact(&mut first)?;
            Ok(first[0])
        };
        // If the node does not run, another program may have the port.
        let pid = fs::read_to_string(self.folder.join("pid")).unwrap_or_default();
        let runs = !pid.trim().is_empty() && Path::new("/proc").join(pid.trim()).exists();
        runs && greet().is_ok_and(|first| first == 1)
    }

    fn log(&self) -> String {
        let read = |name| fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        let text = read("stdout.log") + &read("stderr.log");
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        self.guard.get_mut().unwrap_or_else(PoisonError::into_inner).finish();
    }
}

/// A process that kills the node and its port mapper when its standard input ends. Each line of the input names the
/// process group to kill.
#[derive(Debug)]
struct Guard {
    process: Child,
    input: Option<ChildStdin>,
}

impl Guard {
    /// Starts the guard, which starts a port mapper on this port, if there is one.
    fn start(folder: &Path, mapper_port: Option<u16>) -> io::Result<Self> {
        let script = r#"
            trap '' INT TERM HUP
            if [ -n "$2" ]; then
                epmd -address 127.0.0.1 -port "$2" >/dev/null 2>&1 </dev/null &
                mapper=$!
            fi
            while read -r line; do group=$line; done
            [ -z "$group" ] || kill -9 "-$group" 2>/dev/null
            [ -z "$mapper" ] || kill -9 "$mapper" 2>/dev/null
            rm -rf "$1" || { sleep 1; rm -rf "$1"; }
        "#;
        let mut process = Command::new("sh")
            .args(["-c", script, "guard"])
            .arg(folder)
            .arg(mapper_port.map_or_else(String::new, |port| port.to_string()))
            .stdin(Stdio::piped())
            .spawn()?;
        let input = process.stdin.take();
        Ok(Self { process, input })
    }

    /// Sets the process group that is killed at the end, in place of an earlier one.
    fn watch(&mut self, group: u32) -> io::Result<()> {
        self.input.as_mut().map_or(Ok(()), |input| writeln!(input, "{group}"))
    }

    fn finish(&mut self) {
        drop(self.input.take());
        // A guard that fails cannot be helped.
        let _ = self.process.wait();
    }
}

fn find_programs() -> Option<PathBuf> {
    if let Some(folder) = env::var_os(PROGRAMS_VARIABLE) {
        let folder = PathBuf::from(folder);
        return folder.join("rabbitmq-server").is_file().then_some(folder);
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = [PathBuf::from(DEBIAN_PROGRAMS)].into_iter().chain(env::split_paths(&path));
    folders.into_iter().find(|folder| folder.join("rabbitmq-server").is_file())
}

fn write_cookie(path: &Path, name: &str) -> io::Result<()> {
    fs::write(path, name.replace('-', "").to_uppercase())?;
    let mut permissions = fs::metadata(path)?.permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o400);
    fs::set_permissions(path, permissions)
}

/// Returns ports that are free at this moment. They are below those that the system assigns to outgoing connections,
/// so that none of these takes one before the node does.
fn free_ports() -> io::Result<[u16; 3]> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut found = Vec::new();
    for _ in 0..PORTS.len() {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) + process::id() * 16;
        let port = PORTS.start + (step % u32::from(PORTS.end - PORTS.start)) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            found.push(port);
        }
        if let [port, distribution, mapper] = found[..] {
            return Ok([port, distribution, mapper]);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no three ports are free"))
}

fn environment(
    folder: &Path,
    name: &str,
    port: u16,
    distribution: u16,
    mapper: u16,
) -> Vec<(&'static str, String)> {
    let path = |part: &str| folder.join(part).display().to_string();
    let erlang = "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2";
    vec![
        ("HOME", path("home")),
        ("ERL_CRASH_DUMP", path("erl_crash.dump")),
        ("ERL_EPMD_PORT", mapper.to_string()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".into()),
        ("RABBITMQ_NODENAME", name.to_owned()),
        ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".into()),
        ("RABBITMQ_NODE_PORT", port.to_string()),
        ("RABBITMQ_DIST_PORT", distribution.to_string()),
        ("RABBITMQ_MNESIA_BASE", path("mnesia")),
        ("RABBITMQ_LOG_BASE", path("log")),
        ("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf")),
        ("RABBITMQ_ADVANCED_CONFIG_FILE", path("advanced.config")),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", path("enabled_plugins")),
        ("RABBITMQ_CONF_ENV_FILE", "/dev/null".into()),
        ("RABBITMQ_PID_FILE", path("pid")),
        (ERLANG_ARGUMENTS, erlang.into()),
    ]
}

fn run(command: &mut Command) -> Result<(), RabbitMqError> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(RabbitMqError::Command { command: format!("{command:?}"), output: text })
}
