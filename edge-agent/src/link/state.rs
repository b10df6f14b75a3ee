//! The agent's side of a link without input or output: events and the time go in, commands come out.
//!
//! Time is a `Duration` since the agent started, from a clock that never jumps; randomness is a seed.

use std::time::Duration;

use fairlead_wire::control::{
    Authority, Body, Control, Drain, Hello, HostKeyReport, HostKeyRequest, Offer, OfferAnswer, Ping, Pong,
};
use fairlead_wire::refusal::{Reason, Refused};
use fairlead_wire::version;

use super::backoff::Backoff;

/// From the handshake to Welcome.
const WELCOME_LIMIT: Duration = Duration::from_secs(10);
/// An unanswered or refused renewal is asked for again after this.
const RENEW_AGAIN: Duration = Duration::from_secs(60);
/// A link that stood this long was good: the next wait begins small again. Less than the keep-alive's 7 s, by which a
/// quiet link notices that its gateway was restarted: each restart finds the first, short wait.
const PROVEN_AFTER: Duration = Duration::from_secs(5);
/// A gateway that stops spreads its agents over at most this, whatever it says.
const HINT_CAP: Duration = Duration::from_secs(30);
/// The ping that follows a change of this machine's network; nobody waits for its answer.
const NETWORK_CHANGED: u64 = 1;

/// What the agent says of itself and offers.
#[derive(Clone, Debug, Default)]
pub struct Introduction {
    /// The first message of every link.
    pub hello: Hello,
    /// Everything the agent's file lists.
    pub offer: Offer,
    /// The public host key of the agent's own SSH server, to be certified; `None` where it has none.
    pub host_key: Option<String>,
}

/// What happened.
#[derive(Debug)]
pub(super) enum Event {
    /// The connection stands and its control stream is open. With the digests of the roots that this agent trusts.
    Connected(Vec<Vec<u8>>),
    /// No connection came about, or the one there was has ended.
    Lost,
    /// A frame from the gateway.
    Frame(Control),
    /// The certificate should be renewed after this long.
    RenewIn(Duration),
    /// The agent's file was read again: this is everything it lists.
    Offer(Offer),
    /// The host keys of upstreams were read: this is all that is known.
    HostKeys(Vec<HostKeyReport>),
    /// Addresses or routes of this machine have changed.
    NetworkChanged,
}

/// What the shell is to do.
#[derive(Debug, PartialEq)]
pub(super) enum Command {
    /// Dial the gateway.
    Dial,
    /// Send on the control stream.
    Send(Control),
    /// Trust these SSH user CAs from now on.
    TrustUserCas(Vec<String>),
    /// Present this host certificate from now on.
    PresentHostCertificate(String),
    /// The link is up; these endpoints were refused, with the reason's number.
    Up(OfferAnswer),
    /// Take over what the gateway says of the authority.
    TrustAuthority(Authority),
    /// Ask for a new certificate.
    Renew,
    /// Keep this new certificate chain, and say when to renew it.
    KeepCertificate(Vec<Vec<u8>>),
    /// Close the connection; the gateway is told the reason and the text.
    Close(Reason, String),
    /// The gateway turned us away; say so to the operator.
    TurnedAway(Refused),
    /// The gateway will stop, after this long at the latest; sessions on this link finish.
    Draining(Duration),
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// Dial at this time.
    Waiting {
        until: Duration,
        /// Nothing that happens here makes it sooner.
        patient: bool,
    },
    Dialling,
    /// Hello is sent; Welcome and the answer to the offer must come by then.
    Greeting {
        until: Duration,
        stage: Stage,
    },
    Up {
        since: Duration,
        /// The gateway will stop, and asks for this wait after the end of the link.
        come_back_in: Option<Duration>,
    },
}

/// How far a greeting has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Hello is sent.
    Hello,
    /// Welcomed; the host certificate is asked for. The offer waits for it, so that the first caller sees it.
    HostKey,
    /// The offer is made.
    Offer,
}

/// The state of the link to one gateway.
#[derive(Debug)]
pub(super) struct LinkState {
    introduction: Introduction,
    backoff: Backoff,
    phase: Phase,
    /// When to have the host key certified again.
    certify_at: Option<Duration>,
    /// When to have the agent's certificate renewed.
    renew_at: Option<Duration>,
    /// What is known of the host keys of upstreams.
    host_keys: Vec<HostKeyReport>,
}

impl LinkState {
    /// A link that dials at once.
    pub(super) fn new(introduction: Introduction, seed: u64) -> Self {
        Self {
            introduction,
            backoff: Backoff::new(seed),
            phase: Phase::Waiting {
                until: Duration::ZERO,
                patient: false,
            },
            certify_at: None,
            renew_at: None,
            host_keys: Vec::new(),
        }
    }

    /// Whether callers can reach this agent now.
    #[cfg(test)]
    fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Up { .. })
    }

    /// Whether the gateway of this link has greeted back: from then on it may ask for sessions.
    pub(super) fn is_welcome(&self) -> bool {
        match self.phase {
            Phase::Up { .. } => true,
            Phase::Greeting { stage, .. } => stage != Stage::Hello,
            Phase::Waiting { .. } | Phase::Dialling => false,
        }
    }

    /// When [`Self::handle_time`] wants to be called; `None` while only events matter.
    pub(super) fn deadline(&self) -> Option<Duration> {
        match self.phase {
            Phase::Waiting { until, .. } | Phase::Greeting { until, .. } => Some(until),
            Phase::Dialling => None,
            Phase::Up { .. } => [self.certify_at, self.renew_at].into_iter().flatten().min(),
        }
    }

    /// The deadline has come.
    pub(super) fn handle_time(&mut self, now: Duration) -> Vec<Command> {
        match self.phase {
            Phase::Waiting { until, .. } if now >= until => {
                self.phase = Phase::Dialling;
                vec![Command::Dial]
            }
            Phase::Greeting { until, .. } if now >= until => {
                self.wait(now);
                vec![Command::Close(Reason::Malformed, "no Welcome within 10 s".into())]
            }
            Phase::Up { .. } if self.certify_at.is_some_and(|at| now >= at) => self.request_certificate(),
            Phase::Up { .. } if self.renew_at.is_some_and(|at| now >= at) => {
                // Asked again later, should the answer be lost or a refusal.
                self.renew_at = Some(now.saturating_add(RENEW_AGAIN));
                vec![Command::Renew]
            }
            _ => Vec::new(),
        }
    }

    /// Something happened.
    pub(super) fn handle(&mut self, now: Duration, event: Event) -> Vec<Command> {
        match event {
            Event::Connected(roots_sha256) => {
                self.phase = Phase::Greeting {
                    until: now.saturating_add(WELCOME_LIMIT),
                    stage: Stage::Hello,
                };
                vec![send(Body::Hello(Hello {
                    roots_sha256,
                    ..self.introduction.hello.clone()
                }))]
            }
            Event::Lost => {
                self.handle_loss(now);
                Vec::new()
            }
            Event::NetworkChanged => self.handle_network(now),
            Event::RenewIn(wait) => {
                self.renew_at = Some(now.saturating_add(wait));
                Vec::new()
            }
            Event::Offer(offer) => {
                self.introduction.offer = offer;
                // Before its turn in the greeting the offer is not sent; a wrong host certificate would be seen.
                if matches!(self.phase, Phase::Up { .. }) || self.is_at(Stage::Offer) {
                    self.offer()
                } else {
                    Vec::new()
                }
            }
            Event::HostKeys(reports) => {
                self.host_keys = reports;
                if matches!(self.phase, Phase::Up { .. }) {
                    self.report()
                } else {
                    Vec::new()
                }
            }
            Event::Frame(frame) => match (frame.check(), frame.body) {
                (Ok(()), Some(body)) => self.handle_frame(now, body),
                (Ok(()), None) => Vec::new(),
                (Err(error), _) => {
                    self.wait(now);
                    vec![Command::Close(Reason::Malformed, error.to_string())]
                }
            },
        }
    }

    fn handle_loss(&mut self, now: Duration) {
        if let Phase::Up { since, come_back_in } = self.phase {
            if come_back_in.is_some() || now.saturating_sub(since) >= PROVEN_AFTER {
                self.backoff.reset();
            }
            if let Some(wait) = come_back_in {
                return self.wait_for(now, wait);
            }
        }
        self.wait(now);
    }

    fn handle_network(&mut self, now: Duration) -> Vec<Command> {
        if let Phase::Waiting { until, patient: false } = self.phase {
            // What failed may succeed by the network that has come: with the first, short wait.
            self.backoff.reset();
            let soon = now.saturating_add(self.backoff.wait());
            self.phase = Phase::Waiting {
                until: until.min(soon),
                patient: false,
            };
        }
        if !self.is_welcome() {
            return Vec::new();
        }
        // The gateway learns at once where this agent is, before it has anything to send.
        let ping = Ping { nonce: NETWORK_CHANGED };
        vec![send(Body::Ping(ping))]
    }

    fn handle_drain(&mut self, drain: &Drain) -> Vec<Command> {
        let Phase::Up { come_back_in, .. } = &mut self.phase else {
            return Vec::new();
        };
        *come_back_in = Some(Duration::from_millis(drain.reconnect_in_ms).min(HINT_CAP));
        vec![Command::Draining(Duration::from_millis(drain.within_ms))]
    }

    fn handle_frame(&mut self, now: Duration, body: Body) -> Vec<Command> {
        match body {
            Body::Refused(refused) => self.handle_refusal(now, refused),
            Body::Welcome(welcome) => {
                if let Err(error) = version::check_required(&welcome.requires) {
                    self.wait(now);
                    return vec![Command::Close(Reason::Unsupported, error.to_string())];
                }
                let mut commands = vec![Command::TrustUserCas(welcome.ssh_user_ca)];
                commands.extend(welcome.authority.map(Command::TrustAuthority));
                let request = self.request_certificate();
                if request.is_empty() {
                    commands.extend(self.offer());
                } else {
                    self.advance(Stage::HostKey);
                    commands.extend(request);
                }
                commands
            }
            Body::OfferAnswer(answer) => {
                // Answered again when the gateway's bindings change; the link is as old as it was.
                if !matches!(self.phase, Phase::Up { .. }) {
                    self.phase = Phase::Up {
                        since: now,
                        come_back_in: None,
                    };
                }
                let mut commands = vec![Command::Up(answer)];
                commands.extend(self.report());
                commands
            }
            Body::HostCertificate(certificate) => {
                // Renewed at a third of its life, and not more often than once a minute whatever the gateway says.
                let wait = Duration::from_secs((certificate.valid_seconds / 3).max(60));
                self.certify_at = now.checked_add(wait);
                let mut commands = vec![Command::PresentHostCertificate(certificate.certificate)];
                if self.is_at(Stage::HostKey) {
                    commands.extend(self.offer());
                }
                commands
            }
            Body::Authority(authority) => vec![Command::TrustAuthority(authority)],
            Body::Renewed(renewed) => vec![Command::KeepCertificate(renewed.certificate_chain)],
            Body::Drain(drain) => self.handle_drain(&drain),
            Body::Ping(Ping { nonce }) => vec![send(Body::Pong(Pong { nonce }))],
            // Messages that only agents send, or that a later issue gives a meaning to, change nothing.
            _ => Vec::new(),
        }
    }

    fn handle_refusal(&mut self, now: Duration, refused: Refused) -> Vec<Command> {
        // The place on the roster is asked for after Welcome, so this may come at any stage of the greeting.
        let in_conflict = refused.known_reason() == Reason::Conflict;
        if self.is_at(Stage::HostKey) && !in_conflict {
            // No host certificate; the server goes on with its bare key.
            let mut commands = vec![Command::TurnedAway(refused)];
            commands.extend(self.offer());
            return commands;
        }
        if matches!(self.phase, Phase::Up { .. }) {
            // Only a renewal was refused; the link goes on with what there is.
            return vec![Command::TurnedAway(refused)];
        }
        if in_conflict {
            self.wait_apart(now);
        } else {
            self.wait(now);
        }
        let (reason, detail) = (refused.known_reason(), refused.detail.clone());
        vec![Command::TurnedAway(refused), Command::Close(reason, detail)]
    }

    fn offer(&mut self) -> Vec<Command> {
        self.advance(Stage::Offer);
        vec![send(Body::Offer(self.introduction.offer.clone()))]
    }

    /// Once the offer is answered: the gateway takes keys only of endpoints that it has taken.
    fn report(&self) -> Vec<Command> {
        let reports = self.host_keys.iter().cloned();
        reports.map(|report| send(Body::HostKeyReport(report))).collect()
    }

    fn advance(&mut self, to: Stage) {
        if let Phase::Greeting { stage, .. } = &mut self.phase {
            *stage = to;
        }
    }

    fn is_at(&self, wanted: Stage) -> bool {
        matches!(self.phase, Phase::Greeting { stage, .. } if stage == wanted)
    }

    fn request_certificate(&mut self) -> Vec<Command> {
        self.certify_at = None;
        match &self.introduction.host_key {
            Some(key) => vec![send(Body::HostKeyRequest(HostKeyRequest {
                public_key: key.clone(),
            }))],
            None => Vec::new(),
        }
    }

    fn wait(&mut self, now: Duration) {
        let wait = self.backoff.wait();
        self.wait_for(now, wait);
    }

    /// Another machine with this identity serves: no hurry.
    fn wait_apart(&mut self, now: Duration) {
        let wait = self.backoff.next_apart();
        self.wait_for(now, wait);
        if let Phase::Waiting { patient, .. } = &mut self.phase {
            *patient = true;
        }
    }

    fn wait_for(&mut self, now: Duration, wait: Duration) {
        self.certify_at = None;
        self.phase = Phase::Waiting {
            until: now.saturating_add(wait),
            patient: false,
        };
    }
}

fn send(body: Body) -> Command {
    Command::Send(Control { body: Some(body) })
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
