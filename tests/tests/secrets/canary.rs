//! The secrets of a running set, and how each could be spelt.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use fairlead_identity::join::JoinString;
use fairlead_identity::ssh::ssh_key::{self, private::KeypairData};

/// Base64 of a secret inside something longer loses the characters it shares with its neighbours.
const EDGE: usize = 4;

/// One secret.
pub(crate) struct Canary {
    /// What it is.
    pub(crate) name: String,
    /// Its file.
    pub(crate) home: PathBuf,
    /// Other files that may hold it.
    also: Vec<PathBuf>,
    bytes: Vec<u8>,
    text: Option<String>,
}

impl Canary {
    /// Every secret of the gateway, the device and alice below `dir`, and those of the join strings in `joins`.
    pub(crate) fn of(dir: &Path, joins: &[&Path]) -> Vec<Self> {
        let mut all = Vec::new();
        for name in ["ca/root-1.key.pem", "ca/issuing-1.key.pem"] {
            all.push(Self::pem(dir.join("gateway/state").join(name)));
        }
        for name in [
            "gateway/state/ssh/user_ca",
            "gateway/state/ssh/host_ca",
            "gateway/state/ssh/host_key",
        ] {
            all.push(Self::openssh(dir.join(name)));
        }
        all.push(Self::raw(dir.join("gateway/state/quic_reset_key")));
        all.push(Self::pem(dir.join("device/state/key.pem")));
        all.push(Self::openssh(dir.join("device/state/ssh_host_ed25519_key")));
        let login: Vec<PathBuf> = files(&dir.join("alice"))
            .into_iter()
            .filter(|file| is_private_key(file))
            .collect();
        assert!(!login.is_empty(), "alice has a login key");
        // One key in the forms of TLS and of ssh.
        let mut login_key = login.iter().map(|file| {
            if is_openssh(file) {
                Self::openssh(file.clone())
            } else {
                Self::pem(file.clone())
            }
        });
        let mut first = login_key.next().expect("one");
        first.also = login.clone();
        all.push(first);
        all.extend(joins.iter().map(|file| Self::join(file)));
        all
    }

    fn pem(home: PathBuf) -> Self {
        let text = std::fs::read_to_string(&home).expect("a key file");
        let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
        let der = STANDARD.decode(body).expect("base64");
        // ECPrivateKey (RFC 5915): version 1, then the 32 bytes of the scalar.
        let marker = [0x02, 0x01, 0x01, 0x04, 0x20];
        let at = der
            .windows(marker.len())
            .position(|window| window == marker)
            .expect("an EC key")
            + marker.len();
        Self::new(home, der[at..at + 32].to_vec(), None)
    }

    fn openssh(home: PathBuf) -> Self {
        let key = ssh_key::PrivateKey::read_openssh_file(&home).expect("an OpenSSH key");
        let bytes = match key.key_data() {
            KeypairData::Ed25519(pair) => pair.private.to_bytes().to_vec(),
            KeypairData::Ecdsa(pair) => pair.private_key_bytes().to_vec(),
            other => panic!("{other:?}"),
        };
        Self::new(home, bytes, None)
    }

    fn raw(home: PathBuf) -> Self {
        let bytes = std::fs::read(&home).expect("a key file");
        assert!(bytes.len() >= 32, "{} is short", home.display());
        Self::new(home, bytes[..32].to_vec(), None)
    }

    fn join(home: &Path) -> Self {
        let text = std::fs::read_to_string(home).expect("a join string");
        let join = JoinString::parse(&text).expect("a join string");
        Self::new(home.to_owned(), join.secret.expose().to_vec(), Some(text))
    }

    fn new(home: PathBuf, bytes: Vec<u8>, text: Option<String>) -> Self {
        let name = home
            .components()
            .rev()
            .take(3)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect::<PathBuf>();
        Self {
            name: name.display().to_string(),
            home,
            also: Vec::new(),
            bytes,
            text,
        }
    }

    /// Whether it may be in this place.
    pub(crate) fn may_be_in(&self, place: &str) -> bool {
        std::iter::once(&self.home)
            .chain(&self.also)
            .any(|file| file.display().to_string() == place)
    }

    /// Raw, hexadecimal, base64 wherever it begins, a list of numbers as `Debug` prints it, an escaped byte string; the text
    /// of a join string.
    pub(crate) fn spellings(&self) -> Vec<Vec<u8>> {
        let hex: String = self.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let numbers: Vec<String> = self.bytes.iter().map(u8::to_string).collect();
        let escaped = self.bytes.escape_ascii().to_string();
        let mut spellings = vec![
            self.bytes.clone(),
            hex.to_uppercase().into_bytes(),
            numbers.join(", ").into_bytes(),
            numbers.join(",").into_bytes(),
            escaped.into_bytes(),
            self.bytes
                .iter()
                .map(|byte| format!("{byte:x}"))
                .collect::<Vec<_>>()
                .join(", ")
                .into_bytes(),
        ];
        spellings.push(hex.into_bytes());
        for before in 0..3 {
            let shifted = [vec![0; before], self.bytes.clone()].concat();
            for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
                let text = engine.encode(&shifted);
                spellings.push(text.as_bytes()[EDGE..text.len() - EDGE].to_vec());
            }
        }
        spellings.extend(self.text.as_ref().map(|text| text.trim().as_bytes().to_vec()));
        spellings
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path());
    entries.filter(|path| path.is_file()).collect()
}

fn is_private_key(file: &Path) -> bool {
    std::fs::read(file).is_ok_and(|bytes| bytes.windows(11).any(|window| window == b"PRIVATE KEY"))
}

fn is_openssh(file: &Path) -> bool {
    std::fs::read(file).is_ok_and(|bytes| bytes.starts_with(b"-----BEGIN OPENSSH"))
}
