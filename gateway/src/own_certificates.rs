//! The gateway's own certificates, for links and for its SSH face: made at the start, and again while it runs, in time and
//! when another authority is in force. Connections that stand keep what they began with.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use fairlead_identity::keys::{self, PrivateKey};
use fairlead_identity::principal::{Kind, Principal};
use fairlead_identity::{chain, tls};
use fairlead_runtime::clock::Clock;
use fairlead_runtime::stop::CancellationToken;
use fairlead_wire::upgrade::ALPN_WEBSOCKET;
use fairlead_wire::version::{ALPN_CALL, ALPN_ENROLL, ALPN_LINK};
use secrecy::ExposeSecret;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::authority::Authorities;
use crate::endpoint::ssh::Keys;
use crate::link;

/// Life of the gateway's own certificates; they are renewed at a third of it.
const LIFE: Duration = Duration::from_secs(30 * 86_400);
/// How often is looked whether it is time; a clock that was set is noticed this late.
const LOOK: Duration = Duration::from_secs(30);

/// What own certificates are made of.
pub(crate) struct Maker {
    pub(crate) authorities: Arc<Authorities>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) domain: String,
    pub(crate) trust_domain: String,
}

/// Certificates as they are shown, and the time for which they are.
pub(crate) struct Made {
    /// For links over UDP.
    pub(crate) tls: Arc<rustls::ServerConfig>,
    /// For links over TCP.
    pub(crate) tcp_tls: Arc<rustls::ServerConfig>,
    pub(crate) ssh: Keys,
    period: Period,
}

/// From the making of certificates to the making of the next.
#[derive(Clone, Copy)]
struct Period {
    begins: SystemTime,
    ends: SystemTime,
}

impl Period {
    /// Also false for a clock that was set back: certificates that begin later are good for nobody.
    fn contains(self, now: SystemTime) -> bool {
        (self.begins..self.ends).contains(&now)
    }
}

impl Maker {
    /// Makes both certificates.
    ///
    /// # Errors
    /// When the issuing authority has ended, or cannot sign.
    pub(crate) fn make(&self) -> anyhow::Result<Made> {
        let now = self.clock.now();
        let in_force = self.authorities.x509();
        let key = PrivateKey::generate()?;
        let who = Principal::new(&self.trust_domain, None, Kind::Gateway, "gateway".parse()?)?;
        let names = [self.domain.clone()];
        let (csr, serial) = (key.csr_der()?, keys::random_serial()?);
        let issued = in_force.issuer.issue(&csr, &who, &names, LIFE, now, serial)?;
        let chain = chain::from_ders(issued.chain_der)?;
        let settings = |alpns: &[&[u8]]| {
            let clock = Arc::clone(&self.clock);
            let clock = tls::clock(move || clock.now());
            tls::gateway_quic_at(chain.clone(), &key, &in_force.roots, alpns, clock)
        };
        let life = issued.not_after.duration_since(now).unwrap_or_default();
        Ok(Made {
            tls: settings(&[ALPN_LINK, ALPN_ENROLL, ALPN_CALL])?,
            tcp_tls: settings(&[ALPN_WEBSOCKET])?,
            ssh: self.ssh(&names, now)?,
            period: Period {
                begins: issued.not_before,
                ends: now.checked_add(life / 3).unwrap_or(now),
            },
        })
    }

    fn ssh(&self, names: &[String], now: SystemTime) -> anyhow::Result<Keys> {
        let ssh = &self.authorities.ssh;
        let serial = u64::from_be_bytes(*keys::random::<8>()?);
        let host_key = ssh.host_key();
        let certificate = ssh.issue_host_certificate(&host_key.public_line(), names, LIFE, now, serial)?;
        Ok(Keys {
            host_key: host_key.to_openssh()?.expose_secret().to_owned(),
            host_certificate: certificate,
            user_cas: vec![ssh.user_ca().public_line()],
        })
    }
}

/// The certificates of a running gateway.
pub(crate) struct OwnCertificates {
    maker: Maker,
    quic: quinn::Endpoint,
    settings: quinn::ServerConfig,
    tcp_tls: watch::Sender<Arc<rustls::ServerConfig>>,
    ssh: watch::Sender<Keys>,
    period: Mutex<Period>,
}

impl OwnCertificates {
    /// Takes over what the gateway was started with.
    pub(crate) fn new(maker: Maker, made: Made, quic: quinn::Endpoint, settings: quinn::ServerConfig) -> Self {
        Self {
            maker,
            quic,
            settings,
            tcp_tls: watch::Sender::new(made.tcp_tls),
            ssh: watch::Sender::new(made.ssh),
            period: Mutex::new(made.period),
        }
    }

    /// TLS of links over TCP, as it changes.
    pub(crate) fn tcp_tls(&self) -> watch::Receiver<Arc<rustls::ServerConfig>> {
        self.tcp_tls.subscribe()
    }

    /// The SSH face's keys, as they change.
    pub(crate) fn ssh(&self) -> watch::Receiver<Keys> {
        self.ssh.subscribe()
    }

    /// Makes both certificates anew; who connects from now on sees them.
    ///
    /// # Errors
    /// As [`Maker::make`]; those before stay.
    pub(crate) fn renew(&self) -> anyhow::Result<()> {
        // Held throughout, so that of two renewals the later one stands.
        let mut period = self.period.lock().unwrap_or_else(PoisonError::into_inner);
        let made = self.maker.make()?;
        let settings = link::with_tls(&self.settings, made.tls)?;
        self.quic.set_server_config(Some(settings));
        self.tcp_tls.send_replace(made.tcp_tls);
        self.ssh.send_replace(made.ssh);
        *period = made.period;
        Ok(())
    }

    /// Renews in time; ends never.
    pub(crate) async fn keep_fresh(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(LOOK) => {}
            }
            let period = *self.period.lock().unwrap_or_else(PoisonError::into_inner);
            if period.contains(self.maker.clock.now()) {
                continue;
            }
            match self.renew() {
                Ok(()) => tracing::info!("the gateway's own certificates were renewed"),
                Err(error) => tracing::error!(%error, "the gateway's own certificates cannot be renewed"),
            }
        }
    }
}
