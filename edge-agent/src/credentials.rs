//! The agent's key, certificate and trusted roots while it runs: what links present and believe, and how they are renewed.
//!
//! Clocks of devices jump. So the age of a certificate counts by the machine's clock and by the one that never jumps,
//! whichever has gone further, from the moment that the certificate came; and attempts have a gap between them, whatever
//! any clock says.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use fairlead_identity::chain;
use fairlead_identity::keys::PrivateKey;
use fairlead_identity::principal::Principal;
use fairlead_identity::tls;
use fairlead_identity::verify::{self, Roots, Usage};
use fairlead_runtime::clock::Clock;
use fairlead_runtime::stop::CancellationToken;
use fairlead_wire::control::Authority;
use fairlead_wire::version::ALPN_LINK;
use rustls::pki_types::CertificateDer;
use tokio::time::{Instant, sleep};

use crate::enroll;
use crate::identity_files::{Enrolled, Identity, IdentityFiles};
use crate::link::{Answer, Credentials, Ways};

/// Between two attempts to renew, at least; a quarter of the certificate's life where that is less (SECURITY.md R14).
const GAP: Duration = Duration::from_secs(21);
/// When another issuing authority is in force, the agents of a fleet renew within this; a tenth of the certificate's life
/// where that is less.
const SPREAD: Duration = Duration::from_secs(3600);

/// What the agent presents, and where it is kept.
pub(crate) struct Held {
    files: IdentityFiles,
    key: PrivateKey,
    /// As it was at the start; the name of the moment is in `current`.
    enrolled: Enrolled,
    renamed: CancellationToken,
    gateways: Vec<String>,
    ways: Ways,
    clock: Arc<dyn Clock>,
    current: Mutex<Current>,
}

struct Current {
    /// The name in the certificate.
    principal: String,
    roots: Roots,
    chain: Vec<CertificateDer<'static>>,
    tls: Arc<rustls::ClientConfig>,
    not_before: SystemTime,
    not_after: SystemTime,
    age: Age,
    /// Where in 0.9 to 1.1 of a third of its life this certificate is renewed, so that a fleet spreads out.
    jitter: f64,
    /// When to renew because another issuing authority is in force.
    early: Option<Instant>,
    /// The last attempt to renew.
    tried: Option<Instant>,
}

/// How old a certificate is.
#[derive(Clone, Copy)]
struct Age {
    at_first: Duration,
    steady: Instant,
    clock: SystemTime,
}

impl Age {
    fn beginning_with(at_first: Duration, clock: SystemTime) -> Self {
        Self {
            at_first,
            steady: Instant::now(),
            clock,
        }
    }

    /// A machine that slept sees it by its clock; one whose clock was set back, by the other.
    fn at(&self, clock: SystemTime) -> Duration {
        let by_clock = clock.duration_since(self.clock).unwrap_or_default();
        self.at_first.saturating_add(by_clock.max(self.steady.elapsed()))
    }
}

impl Held {
    /// # Errors
    /// When certificate and key do not fit each other.
    pub(crate) fn new(
        files: IdentityFiles,
        identity: Identity,
        gateways: Vec<String>,
        ways: Ways,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        let Identity {
            key,
            chain,
            roots,
            enrolled,
            ..
        } = identity;
        let (not_before, not_after) = chain::validity(&chain).context("the certificate cannot be read")?;
        let now = clock.now();
        let current = Current {
            principal: enrolled.principal.clone(),
            tls: tls_of(&chain, &key, &roots, &clock)?,
            roots,
            chain,
            not_before,
            not_after,
            age: Age::beginning_with(now.duration_since(not_before).unwrap_or_default(), now),
            jitter: jitter(),
            early: None,
            tried: None,
        };
        Ok(Self {
            files,
            key,
            enrolled,
            renamed: CancellationToken::new(),
            gateways,
            ways,
            clock,
            current: Mutex::new(current),
        })
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cancelled once the gateway has given this agent another name.
    pub(crate) fn renamed(&self) -> CancellationToken {
        self.renamed.clone()
    }

    /// `may_rename`: the answer to a proof of key may name another agent of the same site, which this one is then.
    fn try_keep(&self, ders: &[Vec<u8>], may_rename: bool) -> anyhow::Result<()> {
        let chain = chain::from_ders(ders.to_vec())?;
        let (not_before, not_after) = chain::validity(&chain).context("it cannot be read")?;
        let (now, mut current) = (self.clock.now(), self.current());
        // The gateway is trusted with names; that the certificate is ours and in order is checked all the same. Not so its
        // time: this machine's clock may be wrong, and the gateway has just signed what time it is.
        let presented = chain.get(..chain.len().saturating_sub(1)).unwrap_or_default();
        let (roots, at) = (&current.roots, now.clamp(not_before, not_after.max(not_before)));
        let who = verify::authenticate(presented, roots, Usage::Client, roots.trust_domain(), at)?;
        let principal = who.principal().to_string();
        let is_renamed = principal != current.principal;
        if is_renamed && !(may_rename && is_neighbour(who.principal(), &current.principal)) {
            bail!("it names {principal}, not {}", current.principal);
        }
        if *who.spki_sha256() != self.key.spki_sha256() {
            bail!("it is for another key");
        }
        let tls = tls_of(&chain, &self.key, &current.roots, &self.clock)?;
        if is_renamed {
            // Before the certificate: with the old one the gateway says `renamed` again.
            self.files.save_enrolled(&Enrolled {
                principal: principal.clone(),
                ..self.enrolled.clone()
            })?;
            tracing::warn!(
                from = current.principal,
                to = principal,
                "the gateway gave this agent another name"
            );
            self.renamed.cancel();
        }
        self.files.save_chain(ders)?;
        *current = Current {
            principal,
            roots: current.roots.clone(),
            chain,
            tls,
            not_before,
            not_after,
            age: Age::beginning_with(Duration::ZERO, now),
            jitter: jitter(),
            early: None,
            tried: current.tried,
        };
        Ok(())
    }

    /// Returns the digests of the roots that are trusted now, when they are others than before.
    fn try_trust(&self, announced: &[Vec<u8>]) -> anyhow::Result<Option<Vec<Vec<u8>>>> {
        let ders: Vec<CertificateDer<'_>> = announced
            .iter()
            .map(|der| CertificateDer::from(der.as_slice()))
            .collect();
        let mut current = self.current();
        let next = current.roots.succeeded_by(&ders)?;
        let set = |roots: &Roots| roots.sha256s().into_iter().collect::<BTreeSet<_>>();
        if set(&next) == set(&current.roots) {
            return Ok(None);
        }
        let tls = tls_of(&current.chain, &self.key, &next, &self.clock)?;
        self.files.save_roots(announced)?;
        current.tls = tls;
        current.roots = next;
        Ok(Some(digests(&current.roots)))
    }

    /// How long to wait with the next attempt.
    fn gap(&self) -> Duration {
        self.current().gap()
    }

    fn note_try(&self) {
        self.current().tried = Some(Instant::now());
    }
}

impl Current {
    fn life(&self) -> Duration {
        self.not_after.duration_since(self.not_before).unwrap_or_default()
    }

    fn gap(&self) -> Duration {
        let gap = GAP.min(self.life() / 4);
        self.tried
            .map_or(Duration::ZERO, |tried| gap.saturating_sub(tried.elapsed()))
    }
}

/// Whether `who` could be what the agent `was` is called from now on: an agent of the same site.
fn is_neighbour(who: &Principal, was: &str) -> bool {
    was.parse::<Principal>().is_ok_and(|was| {
        who.kind() == was.kind() && who.site() == was.site() && who.trust_domain() == was.trust_domain()
    })
}

fn tls_of(
    chain: &[CertificateDer<'static>],
    key: &PrivateKey,
    roots: &Roots,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Arc<rustls::ClientConfig>> {
    let clock = Arc::clone(clock);
    let identity = Some((chain.to_vec(), key));
    Ok(tls::agent_quic_at(
        identity,
        roots,
        ALPN_LINK,
        tls::clock(move || clock.now()),
    )?)
}

fn jitter() -> f64 {
    0.9 + 0.2 * rand::random::<f64>()
}

fn digests(roots: &Roots) -> Vec<Vec<u8>> {
    roots.sha256s().iter().map(|digest| digest.to_vec()).collect()
}

impl Credentials for Held {
    fn tls(&self) -> Arc<rustls::ClientConfig> {
        Arc::clone(&self.current().tls)
    }

    fn roots_sha256(&self) -> Vec<Vec<u8>> {
        digests(&self.current().roots)
    }

    fn trust(&self, authority: &Authority) -> Result<Option<Vec<Vec<u8>>>, String> {
        let kept = self.try_trust(&authority.roots).map_err(|error| format!("{error:#}"))?;
        let mut current = self.current();
        let own = chain::issuing_sha256(&current.chain);
        if own.is_some_and(|own| own.as_slice() == authority.issuing_sha256) {
            current.early = None;
        } else if current.early.is_none() {
            let spread = SPREAD.min(current.life() / 10);
            current.early = Some(Instant::now() + spread.mul_f64(rand::random()));
        }
        Ok(kept)
    }

    fn renew_in(&self) -> Duration {
        let now = self.clock.now();
        let current = self.current();
        let due = (current.life() / 3).mul_f64(current.jitter);
        let wait = due.saturating_sub(current.age.at(now));
        let early = current.early.map(|at| at.saturating_duration_since(Instant::now()));
        early.map_or(wait, |early| wait.min(early)).max(current.gap())
    }

    fn expired(&self) -> bool {
        self.current().not_after <= self.clock.now()
    }

    fn signing_request(&self) -> Result<Vec<u8>, String> {
        self.note_try();
        self.key.csr_der().map_err(|error| error.to_string())
    }

    fn keep(&self, chain: Vec<Vec<u8>>) -> Result<(), String> {
        self.try_keep(&chain, false).map_err(|error| format!("{error:#}"))
    }

    fn renew_by_proof(&self) -> Answer<'_, Result<(), String>> {
        Box::pin(async {
            sleep(self.gap()).await;
            self.note_try();
            let (roots, domain) = (self.current().roots.clone(), &self.enrolled.domain);
            let clock = Arc::clone(&self.clock);
            let renewed = enroll::renew_by_proof_by(&self.ways, &self.gateways, domain, &roots, &self.key, clock);
            let renewed = renewed.await.map_err(|error| error.to_string())?;
            // The roots first: the certificate may come from a new one.
            if !renewed.roots.is_empty() {
                self.try_trust(&renewed.roots).map_err(|error| format!("{error:#}"))?;
            }
            self.try_keep(&renewed.certificate_chain, true)
                .map_err(|error| format!("{error:#}"))
        })
    }
}

#[cfg(test)]
mod tests;
