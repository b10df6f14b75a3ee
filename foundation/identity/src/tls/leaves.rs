//! The certificates a gateway presents to callers: those of the operator's files for the names they carry, else leaves
//! of the private authority, minted per name.
//!
//! One key serves all minted leaves; it never leaves this process. The cache is bounded: whoever asks for names by the
//! thousand costs a signature each and nothing that stays.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::{CertifiedKey, SigningKey},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::{TlsError, provider};
use crate::{
    authority::Issued, certificate::Parsed, chain, keys::PrivateKey, name, principal::is_dns_name,
    verify::MAX_CHAIN_CERTIFICATES,
};

/// Most minted leaves kept.
const MAX_LEAVES: usize = 1024;

/// Issues the certificate of a gateway's name.
pub trait Mint: Send + Sync {
    /// A server certificate for the key of `csr_der` and the one DNS name; `None` when it cannot be issued, which the
    /// implementation logs.
    fn mint(&self, csr_der: &[u8], dns: &str) -> Option<Issued>;
    /// Which authority issues at the moment: what another has issued is minted anew.
    fn issuer(&self) -> u32;
    /// The time, for the age of what is kept.
    fn now(&self) -> SystemTime;
}

/// Chooses what is presented, by the name that the client asks for.
pub struct Leaves {
    domain: String,
    mint: Box<dyn Mint>,
    csr_der: Vec<u8>,
    key: Arc<dyn SigningKey>,
    files: Mutex<Arc<[FileCertificate]>>,
    minted: Mutex<Minted>,
}

#[derive(Default)]
struct Minted {
    by_name: BTreeMap<String, Leaf>,
    uses: u64,
}

struct Leaf {
    certified: Arc<CertifiedKey>,
    issuer: u32,
    renew_at: SystemTime,
    last_use: u64,
}

impl Leaves {
    /// An empty cache for the names at and below `domain`. Makes the key of all leaves; draws randomness.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn new(domain: &str, mint: Box<dyn Mint>) -> Result<Self, TlsError> {
        let unusable = |error: &dyn fmt::Display| TlsError::KeyMismatch(error.to_string());
        let key = PrivateKey::generate().map_err(|error| unusable(&error))?;
        let csr_der = key.csr_der().map_err(|error| unusable(&error))?;
        let key = provider().key_provider.load_private_key(key.rustls_der());
        Ok(Self {
            domain: domain.to_ascii_lowercase(),
            mint,
            csr_der,
            key: key.map_err(|error| unusable(&error))?,
            files: Mutex::new(Arc::new([])),
            minted: Mutex::default(),
        })
    }

    /// Presents these from now on, each for the names it carries.
    pub fn replace_files(&self, files: Vec<FileCertificate>) {
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = files.into();
    }

    /// What is presented for a name at or below the domain; `None` for every other name.
    pub fn for_name(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        if !self.is_ours(&name) {
            return None;
        }
        let files = Arc::clone(&self.files.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(file) = files.iter().find(|file| file.covers(&name)) {
            return Some(Arc::clone(&file.certified));
        }
        let (now, issuer) = (self.mint.now(), self.mint.issuer());
        if let Some(kept) = self.minted().find(&name, issuer, now) {
            return Some(kept);
        }
        // Not under the lock: signing takes a while. Two at once mint twice, and either leaf is good.
        let issued = self.mint.mint(&self.csr_der, &name)?;
        let renew_at = renewal(&issued);
        let chain = chain::from_ders(issued.chain_der).ok()?;
        let certified = Arc::new(CertifiedKey::new(chain, Arc::clone(&self.key)));
        let leaf = Leaf {
            certified: Arc::clone(&certified),
            issuer,
            renew_at,
            last_use: 0,
        };
        self.minted().keep(name, leaf);
        Some(certified)
    }

    /// The domain itself and well-formed endpoint names below it.
    fn is_ours(&self, name: &str) -> bool {
        let below = name.strip_suffix(&self.domain).and_then(|rest| rest.strip_suffix('.'));
        name == self.domain || (below.is_some() && is_dns_name(name) && name::parse_host(name, &self.domain).is_ok())
    }

    fn minted(&self) -> MutexGuard<'_, Minted> {
        self.minted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Minted {
    fn find(&mut self, name: &str, issuer: u32, now: SystemTime) -> Option<Arc<CertifiedKey>> {
        self.uses = self.uses.saturating_add(1);
        let is_good = |leaf: &&mut Leaf| leaf.issuer == issuer && now < leaf.renew_at;
        let leaf = self.by_name.get_mut(name).filter(is_good)?;
        leaf.last_use = self.uses;
        Some(Arc::clone(&leaf.certified))
    }

    fn keep(&mut self, name: String, mut leaf: Leaf) {
        if self.by_name.len() >= MAX_LEAVES && !self.by_name.contains_key(&name) {
            let oldest = self.by_name.iter().min_by_key(|(_, leaf)| leaf.last_use);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                self.by_name.remove(&oldest);
            }
        }
        leaf.last_use = self.uses;
        self.by_name.insert(name, leaf);
    }
}

/// At half of its life: a client that connects late finds one that is good for long.
fn renewal(issued: &Issued) -> SystemTime {
    let life = issued.not_after.duration_since(issued.not_before);
    let half = life.unwrap_or(Duration::ZERO) / 2;
    issued.not_before.checked_add(half).unwrap_or(issued.not_before)
}

impl ResolvesServerCert for Leaves {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.for_name(hello.server_name()?)
    }
}

impl fmt::Debug for Leaves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaves")
            .field("domain", &self.domain)
            .finish_non_exhaustive()
    }
}

/// As [`Leaves`], and for clients that name nobody the gateway's own certificate: for protocols that name the endpoint
/// inside.
#[derive(Debug)]
pub struct Unnamed(pub Arc<Leaves>);

impl ResolvesServerCert for Unnamed {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.for_name(hello.server_name().unwrap_or(&self.0.domain))
    }
}

/// A certificate of the operator's, from files.
#[derive(Clone, Debug)]
pub struct FileCertificate {
    certified: Arc<CertifiedKey>,
    /// Lower case; `*.` begins a wildcard of one label.
    names: Vec<String>,
    not_after: SystemTime,
}

impl FileCertificate {
    /// Puts chain (PEM, own certificate first) and key (PEM; any kind that TLS takes) together.
    ///
    /// # Errors
    /// [`TlsError::BadFile`] when one cannot be read, they do not belong together, or the certificate has no DNS name.
    pub fn from_pem(chain_pem: &str, key_pem: &str) -> Result<Self, TlsError> {
        let bad = |text: &str| TlsError::BadFile(text.to_owned());
        let chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
            .take(MAX_CHAIN_CERTIFICATES.saturating_add(1))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| bad("the certificate file is not PEM"))?;
        if chain.len() > MAX_CHAIN_CERTIFICATES {
            return Err(bad("the certificate file holds more than 4 certificates"));
        }
        let read = chain.first().and_then(Parsed::new).and_then(|leaf| {
            let names = leaf.names()?.dns;
            let names: Vec<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
            Some((names, leaf.not_after()))
        });
        let read = read.filter(|(names, _)| !names.is_empty());
        let (names, not_after) = read.ok_or_else(|| bad("the first certificate cannot be read, or has no DNS name"))?;
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes());
        let key = key.map_err(|_| bad("the key file is not a private key in PEM"))?;
        let key = provider().key_provider.load_private_key(key);
        let key = key.map_err(|_| bad("the private key is of a kind that TLS cannot use here"))?;
        let certified = CertifiedKey::new(chain, key);
        let fit = certified.keys_match();
        fit.map_err(|_| bad("the certificate and the private key do not belong together"))?;
        Ok(Self {
            certified: Arc::new(certified),
            names,
            not_after,
        })
    }

    /// The DNS names in it, in lower case.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// When it ends.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Whether one of its names lies at or below `domain`.
    pub fn serves(&self, domain: &str) -> bool {
        let domain = domain.to_ascii_lowercase();
        let below = |name: &String| {
            name.strip_suffix(&domain)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        self.names.iter().any(below)
    }

    fn covers(&self, name: &str) -> bool {
        let above = name.split_once('.').map(|(_, above)| above);
        let covers =
            |own: &String| own == name || (own.strip_prefix("*.").is_some() && own.strip_prefix("*.") == above);
        self.names.iter().any(covers)
    }
}

#[cfg(test)]
mod tests;
