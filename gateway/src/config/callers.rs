//! What gateway.yaml says of callers' ways in: certificates of the operator's for TLS, and ports beside the one port.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::SystemTime;

use fairlead_identity::tls::FileCertificate;
use fairlead_runtime::config_file::{self, Mistake};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_yaml::Spanned;

use super::Mistakes;
use crate::endpoint::KINDS;

/// The longest certificate file, in bytes: four certificates and text around them.
const MAX_CERTIFICATE_BYTES: u64 = 64 * 1024;
/// Most of `tls.certificates`: each handshake looks through them.
const MAX_CERTIFICATES: usize = 64;
/// Most of `listeners`.
const MAX_LISTENERS: usize = 16;

/// A certificate of the operator's with its key.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    cert_file: Placed,
    key_file: Placed,
}

/// A file that gateway.yaml names, and where it does.
#[derive(Clone, Debug)]
struct Placed {
    path: PathBuf,
    place: Mistake,
}

/// A port beside the one port, for one protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dedicated {
    /// The name of its kind in [`KINDS`].
    pub protocol: &'static str,
    /// Where it listens.
    pub listen: SocketAddr,
}

/// What was found in the files of [`CertificateFiles`].
#[derive(Debug, Default)]
pub struct Certificates {
    /// Those that can be presented.
    pub usable: Vec<FileCertificate>,
    /// Those that cannot, and why.
    pub mistakes: Vec<Mistake>,
    /// Those that can, and that no client will take.
    pub expired: Vec<Mistake>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenTls {
    #[serde(default)]
    certificates: Vec<WrittenFiles>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenFiles {
    cert_file: Spanned<PathBuf>,
    key_file: Spanned<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenListener {
    protocol: Spanned<String>,
    listen: Spanned<String>,
}

impl Placed {
    fn mistake(&self, message: impl std::fmt::Display) -> Mistake {
        Mistake {
            message: message.to_string(),
            ..self.place.clone()
        }
    }
}

/// Reads the files as they are now. Names must lie at or below `domain`, or nobody is ever shown the certificate.
pub fn read_certificates(files: &[CertificateFiles], domain: &str, now: SystemTime) -> Certificates {
    let mut found = Certificates::default();
    for each in files {
        match each.read(domain) {
            Ok(certificate) => {
                let path = each.cert_file.path.display();
                if now >= certificate.not_after() {
                    let message = format!("the certificate in {path} has expired");
                    found.expired.push(each.cert_file.mistake(message));
                }
                found.usable.push(certificate);
            }
            Err(mistakes) => found.mistakes.extend(mistakes),
        }
    }
    found
}

impl CertificateFiles {
    fn read(&self, domain: &str) -> Result<FileCertificate, Vec<Mistake>> {
        let chain = config_file::read(&self.cert_file.path, MAX_CERTIFICATE_BYTES);
        let chain = chain.map_err(|error| self.cert_file.mistake(error));
        let key = config_file::read_secret(&self.key_file.path);
        let key = key.map_err(|error| self.key_file.mistake(error));
        let (chain, key) = match (chain, key) {
            (Ok(chain), Ok(key)) => (chain, key),
            (chain, key) => return Err(chain.err().into_iter().chain(key.err()).collect()),
        };
        let certificate = FileCertificate::from_pem(&chain.text, key.expose_secret());
        let certificate = certificate.map_err(|error| vec![self.cert_file.mistake(error)])?;
        if !certificate.serves(domain) {
            let (names, path) = (certificate.names().join(", "), self.cert_file.path.display());
            let message = format!("the certificate in {path} is for {names}: no name at or below {domain}");
            return Err(vec![self.cert_file.mistake(message)]);
        }
        Ok(certificate)
    }
}

impl Mistakes<'_> {
    pub(super) fn certificate_files(&mut self, written: WrittenTls) -> Vec<CertificateFiles> {
        if let Some(beyond) = written.certificates.get(MAX_CERTIFICATES) {
            self.at(
                &beyond.cert_file,
                format!("tls lists more than {MAX_CERTIFICATES} certificates"),
            );
        }
        let placed = |file: Spanned<PathBuf>| Placed {
            place: Mistake::at(self.file, self.text, file.referenced, ""),
            path: file.value,
        };
        let files = written.certificates.into_iter();
        files
            .map(|files| CertificateFiles {
                cert_file: placed(files.cert_file),
                key_file: placed(files.key_file),
            })
            .collect()
    }

    pub(super) fn listeners(&mut self, written: &[WrittenListener]) -> Vec<Dedicated> {
        if let Some(beyond) = written.get(MAX_LISTENERS) {
            self.at(&beyond.listen, format!("more than {MAX_LISTENERS} listeners"));
        }
        let mut listeners = Vec::new();
        for one in written {
            let known = KINDS.iter().filter(|kind| kind.is_dedicable);
            let kind = known.clone().find(|kind| kind.name == one.protocol.value);
            if kind.is_none() {
                let names: Vec<&str> = known.map(|kind| kind.name).collect();
                let message = format!(
                    "`{}` has no listener of its own; {} have",
                    one.protocol.value,
                    names.join(", ")
                );
                self.at(&one.protocol, message);
            }
            if let (Some(kind), Some(listen)) = (kind, self.address(&one.listen)) {
                listeners.push(Dedicated {
                    protocol: kind.name,
                    listen,
                });
            }
        }
        listeners
    }
}
