//! Certificates that are made when the tests run.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{self, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};

/// The authority that the clients of most tests trust.
pub(crate) static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| Authority::new("An authority"));
pub(crate) static AUTHORITY_FILE: LazyLock<PathBuf> = LazyLock::new(|| file(&AUTHORITY.pem));

/// The names of the servers of this machine.
pub(crate) const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];

/// The certificate of a server of this machine, by the trusted authority.
pub(crate) fn trusted() -> Identity {
    AUTHORITY.server(&NAMES, Valid::Always)
}

/// A URI of hosts with TLS, by which the authority is trusted.
pub(crate) fn uri(hosts: &str) -> String {
    format!("amqps://guest:guest@{hosts}/%2f?cacertfile={}", AUTHORITY_FILE.display())
}

/// An authority that signs certificates.
#[derive(Debug)]
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// When a certificate is valid.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Valid {
    Always,
    Expired,
    NotYet,
}

/// A certificate and its private key, in the PEM format.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = params(name, &[], Valid::Always);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate of a server that has these names or addresses.
    pub(crate) fn server(&self, names: &[&str], valid: Valid) -> Identity {
        let mut params = params("a server", names, valid);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(&params)
    }

    /// A certificate of a client, whose common name is the user.
    pub(crate) fn client(&self, user: &str) -> Identity {
        let mut params = params(user, &[], Valid::Always);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Identity { certificate, key: key.serialize_pem() }
    }
}

/// A server's certificate that no authority has signed.
pub(crate) fn self_signed(names: &[&str]) -> Identity {
    let key = KeyPair::generate().unwrap();
    let certificate = params("itself", names, Valid::Always).self_signed(&key).unwrap().pem();
    Identity { certificate, key: key.serialize_pem() }
}

/// Writes a text to a file of its own, which a RabbitMQ in a container can read too if it shares the system's folder for
/// temporary files. It is removed when this process has ended.
pub(crate) fn file(text: &str) -> PathBuf {
    static FILES: AtomicU32 = AtomicU32::new(0);
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let folder = std::env::temp_dir().join(format!("amqp-certificates-{}", process::id()));
        fs::create_dir_all(&folder).unwrap();
        // Its input ends with this process, whatever ends that. In a group of its own no Ctrl-C reaches it.
        let mut remover = Command::new("sh");
        remover.args(["-c", "cat; rm -rf \"$0\""]).arg(&folder).process_group(0);
        let remover = remover.stdin(Stdio::piped()).spawn().unwrap();
        // Dropped, it would have no input.
        std::mem::forget(remover);
        folder
    });
    let path = FOLDER.join(format!("{}.pem", FILES.fetch_add(1, Ordering::Relaxed)));
    fs::write(&path, text).unwrap();
    path
}

fn params(common_name: &str, names: &[&str], valid: Valid) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let (from, until) = match valid {
        Valid::Always => (2020, 2100),
        Valid::Expired => (2020, 2021),
        Valid::NotYet => (2099, 2100),
    };
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    params
}
