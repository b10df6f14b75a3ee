//! Issuing OpenSSH certificates (PROTOCOL.certkeys).

use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use ssh_key::{
    PublicKey,
    certificate::{Builder, CertType},
    private::KeypairData,
};
use thiserror::Error;
use zeroize::Zeroizing;

use super::{PublicKeyError, SshAuthority, SshKey, parse_public_line};
use crate::{
    authority::{BACKDATE, MAX_LIFE},
    name::{Label, printable},
    principal::{Kind, Principal, is_dns_name},
};

/// Most groups in one user certificate; OpenSSH reads at most 256 principals.
pub const MAX_GROUPS: usize = 128;
/// Longest name of a group in a certificate, in bytes.
const MAX_GROUP_BYTES: usize = 64;
/// Most names of one host certificate.
const MAX_HOST_NAMES: usize = 64;
/// What tells a group from a user among the principals of a certificate.
const GROUP_PREFIX: &str = "g-";
/// What a device's sshd grants by itself. Forwarding of agents and X11 is left out: through them
/// a compromised device reaches back into the caller's machine.
const USER_EXTENSIONS: [&str; 2] = ["permit-port-forwarding", "permit-pty"];

/// Why an OpenSSH certificate was not issued.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SshIssueError {
    /// The key to certify cannot be taken.
    #[error(transparent)]
    PublicKey(#[from] PublicKeyError),
    /// The principal is no caller.
    #[error("a {0} gets no SSH user certificate; users and workloads do")]
    NotACaller(Kind),
    /// The user's name reads as a group.
    #[error("`{0}` starts with {GROUP_PREFIX}, which marks groups in SSH certificates; choose another name")]
    ReservedName(Label),
    /// A group cannot be written as a principal, or there are too many.
    #[error(
        "the group `{0}` cannot stand in an SSH certificate: letters, digits, - _ and . only, at \
         most {MAX_GROUP_BYTES} bytes, at most {MAX_GROUPS} groups"
    )]
    BadGroup(String),
    /// A host name is none, or there are none or too many.
    #[error("`{0}` cannot be a name in an SSH host certificate (1 to {MAX_HOST_NAMES} lower-case names)")]
    BadHostName(String),
    /// The life is zero or too long.
    #[error("a certificate lives from 1 second to {} days", MAX_LIFE.as_secs() / 86_400)]
    BadLife,
    /// The moment given cannot stand in a certificate.
    #[error("the clock says a time that certificates cannot carry; set the clock of this machine")]
    BadClock,
    /// The library could not sign.
    #[error("the SSH certificate could not be signed")]
    Unsigned,
}

/// True for a name no caller may have: in a certificate it would read as a group.
#[must_use]
pub fn is_reserved_user_name(name: &Label) -> bool {
    name.as_str().starts_with(GROUP_PREFIX)
}

impl SshAuthority {
    /// Issues a user certificate as one OpenSSH line.
    ///
    /// The key id is the principal's URI; the principals are its name and `g-GROUP` for each
    /// group; valid from five minutes before `now` for `life` after it.
    ///
    /// # Errors
    /// One variant per cause; nothing was signed then.
    pub fn issue_user_certificate(
        &self,
        user_public_line: &str,
        who: &Principal,
        groups: &[String],
        life: Duration,
        now: SystemTime,
        serial: u64,
    ) -> Result<String, SshIssueError> {
        if !matches!(who.kind(), Kind::User | Kind::Workload) {
            return Err(SshIssueError::NotACaller(who.kind()));
        }
        if is_reserved_user_name(who.name()) {
            return Err(SshIssueError::ReservedName(who.name().clone()));
        }
        if let Some(bad) = bad_group(groups) {
            return Err(SshIssueError::BadGroup(printable(bad)));
        }
        let mut principals = vec![who.name().to_string()];
        principals.extend(groups.iter().map(|group| format!("{GROUP_PREFIX}{group}")));
        let request = Request {
            kind: CertType::User,
            key: parse_public_line(user_public_line)?,
            key_id: who.to_string(),
            principals,
            extensions: &USER_EXTENSIONS,
            serial,
        };
        request.sign(self.user_ca(), life, now)
    }

    /// Issues a host certificate as one OpenSSH line, for the names callers know the host by.
    ///
    /// # Errors
    /// One variant per cause; nothing was signed then.
    pub fn issue_host_certificate(
        &self,
        host_public_line: &str,
        names: &[String],
        life: Duration,
        now: SystemTime,
        serial: u64,
    ) -> Result<String, SshIssueError> {
        let is_host = |name: &str| is_dns_name(name) || name.parse::<std::net::IpAddr>().is_ok();
        if let Some(bad) = names.iter().find(|name| !is_host(name)) {
            return Err(SshIssueError::BadHostName(printable(bad)));
        }
        let first = names.first().filter(|_| names.len() <= MAX_HOST_NAMES);
        let first = first.ok_or_else(|| SshIssueError::BadHostName(String::new()))?;
        let request = Request {
            kind: CertType::Host,
            key: parse_public_line(host_public_line)?,
            key_id: format!("host {first}"),
            principals: names.to_vec(),
            extensions: &[],
            serial,
        };
        request.sign(self.host_ca(), life, now)
    }
}

fn bad_group(groups: &[String]) -> Option<&str> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let fits = |g: &str| (1..=MAX_GROUP_BYTES).contains(&g.len()) && g.bytes().all(allowed);
    let over = groups.get(MAX_GROUPS).map(String::as_str);
    over.or_else(|| groups.iter().map(String::as_str).find(|group| !fits(group)))
}

/// A certificate to be signed.
struct Request<'a> {
    kind: CertType,
    key: PublicKey,
    key_id: String,
    principals: Vec<String>,
    extensions: &'a [&'a str],
    serial: u64,
}

impl Request<'_> {
    fn sign(self, ca: &SshKey, life: Duration, now: SystemTime) -> Result<String, SshIssueError> {
        if life < Duration::from_secs(1) || life > MAX_LIFE {
            return Err(SshIssueError::BadLife);
        }
        let begin = unix(now.checked_sub(BACKDATE)).ok_or(SshIssueError::BadClock)?;
        let end = unix(now.checked_add(life)).ok_or(SshIssueError::BadClock)?;
        let nonce = self.nonce(ca, begin, end).ok_or(SshIssueError::Unsigned)?;
        self.build(nonce, ca, begin, end).map_err(|_| SshIssueError::Unsigned)
    }

    fn build(self, nonce: [u8; 32], ca: &SshKey, begin: u64, end: u64) -> Result<String, ssh_key::Error> {
        let mut builder = Builder::new(nonce, self.key, begin, end)?;
        builder.serial(self.serial)?;
        builder.cert_type(self.kind)?;
        builder.key_id(self.key_id)?;
        for principal in self.principals {
            builder.valid_principal(principal)?;
        }
        for extension in self.extensions {
            builder.extension(*extension, "")?;
        }
        builder.sign(ca.private_key())?.to_openssh()
    }

    /// A nonce nobody without the authority's key can foretell, which is all a nonce is for here,
    /// made without randomness so that issuing stays a function of its arguments.
    fn nonce(&self, ca: &SshKey, begin: u64, end: u64) -> Option<[u8; 32]> {
        let KeypairData::Ed25519(pair) = ca.private_key().key_data() else {
            return None;
        };
        let secret = Zeroizing::new(pair.private.to_bytes());
        let mut hash = Sha256::new_with_prefix(b"fairlead ssh certificate nonce 1");
        hash.update(secret.as_slice());
        hash.update(self.serial.to_be_bytes());
        hash.update(begin.to_be_bytes());
        hash.update(end.to_be_bytes());
        hash.update(self.key_id.as_bytes());
        hash.update([0]);
        hash.update(self.key.to_bytes().ok()?);
        Some(hash.finalize().into())
    }
}

fn unix(time: Option<SystemTime>) -> Option<u64> {
    let since_epoch = time?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(since_epoch.as_secs())
}
