//! A RabbitMQ with a TLS listener that demands a certificate of its clients, and with all mechanisms.

use std::ffi::OsString;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use amqp_testkit::RabbitMq;
use amqp_tls::Rustls;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

use crate::certificates::{Authority, Identity, Valid, file};
use crate::support::{rabbitmq_version, sleep, within};

/// A password as long as a token.
pub(crate) static LONG_PASSWORD: LazyLock<String> = LazyLock::new(|| "t0ken-".repeat(1_366));

pub(crate) struct Node {
    pub(crate) rabbitmq: RabbitMq,
    pub(crate) tls_port: u16,
    pub(crate) authority: Authority,
    /// Whether it has RABBIT-CR-DEMO, the one mechanism with several steps, which RabbitMQ 4 lacks.
    pub(crate) has_demo_mechanism: bool,
    client: Identity,
    ca_file: PathBuf,
}

pub(crate) static NODE: LazyLock<Node> = LazyLock::new(|| {
    let authority = Authority::new("RabbitMQ's authority");
    let server = authority.server(&["localhost", "127.0.0.1"], Valid::Always);
    let client = authority.client("certuser");
    let ca_file = file(&authority.pem);
    let [certificate, key] = [file(&server.certificate), file(&server.key)];
    let [ca, certificate, key] = [&ca_file, &certificate, &key].map(|path| path.display());
    let tls_port = free_port();
    let has_demo_mechanism = rabbitmq_version() < (4, 0);
    let demo = if has_demo_mechanism { "auth_mechanisms.4 = RABBIT-CR-DEMO\n" } else { "" };
    let configuration = format!(
        "listeners.ssl.1 = 127.0.0.1:{tls_port}\nssl_options.cacertfile = {ca}\n\
         ssl_options.certfile = {certificate}\nssl_options.keyfile = {key}\n\
         ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n\
         ssl_cert_login_from = common_name\n\
         auth_mechanisms.1 = PLAIN\nauth_mechanisms.2 = AMQPLAIN\nauth_mechanisms.3 = EXTERNAL\n\
         {demo}initial_frame_max = 16384\nchannel_max = 64\nframe_max = 8192\n"
    );
    let plugins = ["rabbitmq_auth_mechanism_ssl"];
    let rabbitmq = RabbitMq::start_with_plugins(&configuration, &plugins);
    let rabbitmq = rabbitmq.unwrap_or_else(|error| panic!("{error}"));
    // The listeners are opened one after the other, and the node counts as started with the first.
    smol::block_on(within("the TLS listener", async {
        while TcpStream::connect(("127.0.0.1", tls_port)).is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    }));
    let users = [("certuser", "unused"), ("long", &**LONG_PASSWORD), ("nobody", "nothing")];
    for (user, password) in users {
        rabbitmq.ctl(&["add_user", user, password]).unwrap();
    }
    for user in ["certuser", "long"] {
        rabbitmq.ctl(&["set_permissions", user, ".*", ".*", ".*"]).unwrap();
    }
    Node { rabbitmq, tls_port, authority, has_demo_mechanism, client, ca_file }
});

/// A port that is free, below those that the system hands out by itself.
fn free_port() -> u16 {
    let first = 23_000 + (process::id() % 4_000) as u16;
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (first..first + 1_000).find(free).unwrap()
}

impl Node {
    pub(crate) fn uri(&self) -> String {
        format!("amqps://guest:guest@localhost:{}/%2f", self.tls_port)
    }

    /// What the TLS examples are called with.
    pub(crate) fn arguments(&self) -> [OsString; 4] {
        let [certificate, key] =
            [&self.client.certificate, &self.client.key].map(|text| file(text));
        let uri = format!("amqps://localhost:{}", self.tls_port);
        [uri.into(), self.ca_file.clone().into(), certificate.into(), key.into()]
    }

    /// A configuration that presents the client's certificate.
    pub(crate) fn client(&self) -> Rustls {
        self.tls(&[&TLS12, &TLS13])
    }

    /// The same, with these versions.
    pub(crate) fn tls(&self, versions: &[&'static SupportedProtocolVersion]) -> Rustls {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.pem.as_bytes()).unwrap()).unwrap();
        let chain =
            vec![CertificateDer::from_pem_slice(self.client.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(self.client.key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .unwrap();
        Rustls::new(config)
    }

    /// The TLS version of the connection of this name, as RabbitMQ sees it.
    pub(crate) fn version_of(&self, name: &str) -> String {
        self.column_of(name, "ssl_protocol")
    }

    /// The user of the connection of this name.
    pub(crate) fn user_of(&self, name: &str) -> String {
        self.column_of(name, "user")
    }

    fn column_of(&self, name: &str, column: &str) -> String {
        let list = self.rabbitmq.ctl(&["list_connections", "-q", column, "client_properties"]);
        let list = list.unwrap();
        let line = list.lines().find(|line| line.contains(&format!("{name:?}")));
        let line = line.unwrap_or_else(|| panic!("no {name} in {list}"));
        line.split_whitespace().next().unwrap().to_owned()
    }
}
