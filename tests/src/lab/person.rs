//! People of a lab: a key, perhaps certificates, and the configuration that stock ssh reads.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use fairlead::login;
use fairlead::profile::Profile;
use fairlead_identity::chain;
use fairlead_identity::join::JoinString;
use fairlead_identity::keys::PrivateKey;
use fairlead_identity::tls;
use fairlead_identity::verify::Roots;
use fairlead_runtime::config_file::{private_dir, write_private};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{DOMAIN, Lab};
use crate::clients::{run, stock};

/// Somebody with stock OpenSSH.
#[derive(Clone, Debug)]
pub struct Person {
    /// The name they log in to the gateway with.
    pub name: String,
    dir: PathBuf,
    known_devices: PathBuf,
}

impl Person {
    pub(super) async fn log_in(lab: &Lab, name: &str, join: &JoinString) -> Self {
        let person = Self::new(lab, name);
        let logged_in = login::with_join(join, &Profile::at(&person.dir)).await;
        logged_in.unwrap_or_else(|error| panic!("{name} cannot log in: {error}"));
        person
    }

    /// The same person at another machine, with a profile of its own.
    pub(super) async fn at_another_machine(lab: &Lab, name: &str, join: &JoinString) -> Self {
        let mut person = Self::new(lab, name);
        person.dir = lab.path(&format!("people/{name}-elsewhere"));
        let logged_in = login::with_join(join, &Profile::at(&person.dir)).await;
        logged_in.unwrap_or_else(|error| panic!("{name} cannot log in: {error}"));
        person
    }

    /// Renews the certificates by proof of the login key, as `fairlead login` does.
    ///
    /// # Errors
    /// What the person reads.
    pub async fn log_in_again(&self) -> Result<(), String> {
        let again = login::again(&Profile::at(&self.dir)).await;
        again.map(drop).map_err(|error| error.to_string())
    }

    /// Somebody with a key that ssh-keygen made, and the key's public line.
    pub(super) async fn with_key(lab: &Lab, name: &str) -> (Self, String) {
        let person = Self::new(lab, name);
        private_dir(&person.dir).expect("a private directory");
        let mut keygen = stock("ssh-keygen");
        keygen
            .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
            .arg(person.path("id"));
        run(keygen).await.succeeded();
        person.write(
            "known_hosts",
            &format!("@cert-authority {DOMAIN},*.internal {}\n", lab.host_ca()),
        );
        person.write("ssh_config", &hand_written(&person, lab.address().port()));
        let key = std::fs::read_to_string(person.path("id.pub")).expect("the public key");
        (person, key)
    }

    fn new(lab: &Lab, name: &str) -> Self {
        Self {
            name: name.into(),
            dir: lab.path(&format!("people/{name}")),
            known_devices: lab.known_devices(),
        }
    }

    /// A file of theirs: `id`, `id.pub`, `id-cert.pub`, `known_hosts`, `ssh_config`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes a file of theirs (mode 0600).
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        write_private(&path, text.as_bytes(), 0o600).expect("a file is written");
        path
    }

    /// Stock ssh with their configuration; never asks anything.
    pub fn ssh(&self, arguments: &[&str]) -> Command {
        let mut ssh = stock("ssh");
        ssh.args(self.options()).args(arguments);
        ssh
    }

    /// Stock scp (the sftp protocol).
    pub fn scp(&self, arguments: &[&str]) -> Command {
        let mut scp = stock("scp");
        scp.args(self.options()).args(arguments);
        scp
    }

    /// Stock sftp with the commands of a batch.
    pub fn sftp(&self, batch: &str, destination: &str) -> Command {
        let mut sftp = stock("sftp");
        sftp.args(self.options())
            .arg("-b")
            .arg(self.write("batch", batch))
            .arg(destination);
        sftp
    }

    /// Stock rsync over stock ssh.
    pub fn rsync(&self, arguments: &[&str]) -> Command {
        let options: Vec<String> = self
            .options()
            .iter()
            .map(|option| quoted(option.to_str().expect("text")))
            .collect();
        let mut rsync = stock("rsync");
        rsync
            .arg("-e")
            .arg(format!("ssh {}", options.join(" ")))
            .args(arguments);
        rsync
    }

    /// `openssl s_client` to a name of the gateway's, with their certificate; says only what comes back.
    pub fn s_client(&self, lab: &Lab, server_name: &str, arguments: &[&str]) -> Command {
        let mut client = stock("openssl");
        client
            .args(["s_client", "-quiet", "-verify_return_error", "-connect"])
            .arg(lab.address().to_string())
            .args(["-servername", server_name, "-verify_hostname", server_name, "-CAfile"])
            .arg(self.path("ca.pem"))
            .arg("-cert")
            .arg(self.path("cert.pem"))
            .arg("-cert_chain")
            .arg(self.path("cert.pem"))
            .arg("-key")
            .arg(self.path("login.key.pem"))
            .args(arguments);
        client
    }

    /// A connection of our own to a name of the gateway's, with their certificate: for what no stock program does.
    ///
    /// # Errors
    /// Those of the handshake.
    pub async fn tls(&self, lab: &Lab, server_name: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let read = |name: &str| std::fs::read_to_string(self.path(name)).expect("a file of somebody who logged in");
        let key = PrivateKey::from_pem(&read("login.key.pem")).expect("their key");
        let chain = chain::from_pem(&read("cert.pem")).expect("their chain");
        let roots = Roots::from_pem(&read("ca.pem")).expect("the gateway's root");
        let settings = tls::agent_quic(Some((chain, &key)), &roots, b"of-no-kind").expect("TLS settings");
        let socket = TcpStream::connect(lab.address()).await?;
        let name = ServerName::try_from(server_name.to_owned()).expect("a DNS name");
        TlsConnector::from(settings).connect(name, socket).await
    }

    /// What every program of the ssh family is told.
    pub fn options(&self) -> Vec<OsString> {
        let known = format!(
            "UserKnownHostsFile={} {}",
            show(&self.path("known_hosts")),
            show(&self.known_devices)
        );
        let fixed = [
            "BatchMode=yes",
            "StrictHostKeyChecking=yes",
            "ConnectTimeout=30",
            &known,
        ];
        let mut options = vec!["-F".into(), self.path("ssh_config").into()];
        options.extend(fixed.iter().flat_map(|option| ["-o".into(), option.into()]));
        options
    }
}

/// The configuration of somebody who has only a key and the administrator's word for the gateway's host keys.
fn hand_written(person: &Person, port: u16) -> String {
    let identity = format!(
        "    IdentityFile {}\n    IdentitiesOnly yes\n    UserKnownHostsFile {}\n",
        show(&person.path("id")),
        show(&person.path("known_hosts"))
    );
    format!(
        "Host {DOMAIN}\n    HostName 127.0.0.1\n    Port {port}\n    User {}\n    HostKeyAlias {DOMAIN}\n{identity}\n\
         Host *.internal\n{identity}",
        person.name
    )
}

fn quoted(argument: &str) -> String {
    format!("'{argument}'")
}

fn show(path: &Path) -> String {
    path.display().to_string()
}
