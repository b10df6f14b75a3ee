//! A customer's own authority and the server certificates it issues, made by openssl: what stands before upstreams.

use std::path::{Path, PathBuf};

use fairlead_runtime::config_file::private_dir;
use tokio::process::Command;

use crate::clients::{run, stock};

/// An authority that only the customer trusts.
#[derive(Clone, Debug)]
pub struct CustomerCa {
    dir: PathBuf,
    /// Its certificate, PEM.
    pub ca_file: PathBuf,
}

/// A server's certificate and key, PEM files.
#[derive(Clone, Debug)]
pub struct ServerFiles {
    /// The certificate.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

impl CustomerCa {
    /// Makes it in `dir`, which is made too.
    pub async fn make(dir: &Path) -> Self {
        private_dir(dir).expect("a private directory");
        let ca = Self {
            dir: dir.to_owned(),
            ca_file: dir.join("ca.pem"),
        };
        let mut command = ca.request("Customer CA", "ca", &[]);
        command.args(["-x509", "-days", "30", "-out"]).arg(&ca.ca_file);
        run(command).await.succeeded();
        ca
    }

    /// A server certificate for these subject alternative names (`DNS:db.lan`, `IP:127.0.0.1`).
    pub async fn server(&self, file: &str, names: &[&str]) -> ServerFiles {
        let certificate = self.dir.join(format!("{file}.pem"));
        let names = format!("subjectAltName={}", names.join(","));
        let usage = "basicConstraints=critical,CA:FALSE";
        let mut command = self.request(file, file, &[&names, usage]);
        command
            .args(["-x509", "-days", "30", "-CA"])
            .arg(&self.ca_file)
            .arg("-CAkey")
            .arg(self.dir.join("ca.key"))
            .arg("-out")
            .arg(&certificate);
        run(command).await.succeeded();
        ServerFiles {
            certificate,
            key: self.dir.join(format!("{file}.key")),
        }
    }

    fn request(&self, subject: &str, key: &str, extensions: &[&str]) -> Command {
        let mut command = stock("openssl");
        command
            .args(["req", "-newkey", "rsa:2048", "-nodes", "-subj"])
            .arg(format!("/CN={subject}"))
            .arg("-keyout")
            .arg(self.dir.join(format!("{key}.key")));
        for extension in extensions {
            command.args(["-addext", extension]);
        }
        command
    }
}
