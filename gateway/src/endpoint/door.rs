//! The one driver: look up, decide, open. No face has another way to a session.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fairlead_identity::name::{self, EndpointUrl, Label, Protocol};
use fairlead_policy::TlsFacts;
use fairlead_protocol::postgres::CancelKey;
use fairlead_runtime::audit::Record;
use fairlead_runtime::clock::Clock;
use fairlead_wire::id::SessionId;
use fairlead_wire::refusal::Reason;
use secrecy::SecretString;
use tokio::time::Instant;

use super::directory::{ASKED_LIMIT, Directory, Reachable, Wanted, shown};
use super::routing::{self, Full, Route, Routing, Stray, Unrouted};
use super::{Callers, is_read};
use crate::access::{AccessRequest, Acts, Caller, Denial, Gate, Inquiry, Outlook, Permit, Spoken, Target};
use crate::session::{Session, Sessions};

/// What comes of a request of which nothing but the name is known.
#[derive(Debug)]
pub enum Approach {
    /// No face reads the endpoint's protocol: the session is open.
    Open(Box<Session>),
    /// The face of this protocol reads it: the client may speak, and the session with this id is decided on what it says
    /// ([`Door::enter_as`]).
    Unspoken(SessionId, Protocol),
}

/// Leads authenticated callers to sessions.
pub struct Door {
    gate: Arc<Gate>,
    callers: Arc<dyn Callers>,
    directory: Arc<dyn Directory>,
    sessions: Sessions,
    clock: Arc<dyn Clock>,
    domain: String,
    routing: Routing,
}

impl Door {
    /// A door to `sessions` through `gate`.
    pub fn new(
        gate: Arc<Gate>,
        callers: Arc<dyn Callers>,
        directory: Arc<dyn Directory>,
        sessions: Sessions,
        clock: Arc<dyn Clock>,
        domain: String,
    ) -> Self {
        Self {
            gate,
            callers,
            directory,
            sessions,
            clock,
            domain,
            routing: Routing::default(),
        }
    }

    /// Opens a session for `caller` to the endpoint that they name.
    ///
    /// `caller` is who they were at their login; what counts is what the store says of them now.
    ///
    /// # Errors
    /// A [`Denial`] that is safe to show to the caller. A name that is no endpoint, not even a valid one, is denied the
    /// same way as a forbidden one. Who was shut out since the login is told `revoked`.
    pub async fn enter(&self, caller: &Arc<Caller>, wanted: Wanted<'_>, client: SocketAddr) -> Result<Session, Denial> {
        self.enter_saying(caller, wanted, Spoken::default(), client).await
    }

    /// As [`Door::enter`], where the face has read what the caller's protocol says first.
    ///
    /// # Errors
    /// As [`Door::enter`].
    pub async fn enter_saying(
        &self,
        caller: &Arc<Caller>,
        wanted: Wanted<'_>,
        spoken: Spoken,
        client: SocketAddr,
    ) -> Result<Session, Denial> {
        self.enter_as(fresh(), caller, wanted, spoken, client).await
    }

    /// As [`Door::enter_saying`], for the session that [`Door::approach`] gave the id of.
    ///
    /// # Errors
    /// As [`Door::enter`].
    pub async fn enter_as(
        &self,
        session: SessionId,
        caller: &Arc<Caller>,
        wanted: Wanted<'_>,
        spoken: Spoken,
        client: SocketAddr,
    ) -> Result<Session, Denial> {
        let (request, members) = self.requested(session, caller, wanted, spoken, client).await?;
        self.open(request, members).await
    }

    /// What comes of a request before the client has said anything in the endpoint's own protocol: the way in of callers
    /// whom something else has identified (a channel of SSH, a stream of `fairlead connect`).
    ///
    /// # Errors
    /// As [`Door::enter`]; also where nothing that the client could say would be allowed, so that an endpoint of a protocol
    /// that is read looks like any other to those who may not reach it.
    pub async fn approach(
        &self,
        caller: &Arc<Caller>,
        wanted: Wanted<'_>,
        tls: TlsFacts,
        client: SocketAddr,
    ) -> Result<Approach, Denial> {
        if let Wanted::Exactly(url) = wanted
            && is_read(url.protocol)
        {
            // The URL alone says which face it is for, whether or not there is such an endpoint.
            return Ok(Approach::Unspoken(fresh(), url.protocol));
        }
        let spoken = Spoken {
            tls,
            ..Spoken::default()
        };
        let (request, members) = self.requested(fresh(), caller, wanted, spoken, client).await?;
        let protocol = request.target.as_ref().map(|target| target.endpoint.protocol);
        if let Some(protocol) = protocol.filter(|protocol| is_read(*protocol)) {
            self.gate.may_speak(&request)?;
            return Ok(Approach::Unspoken(request.session, protocol));
        }
        let session = self.open(request, members).await?;
        Ok(Approach::Open(Box::new(session)))
    }

    /// Decides the acts inside a session of MQTT.
    pub fn acts(&self, permit: &Permit) -> Acts {
        self.gate.acts(permit)
    }

    /// The gateway's clock.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    /// Decides and opens; a session that one member of a pool does not open is tried once on each other, under a permit of
    /// its own for that agent.
    async fn open(&self, mut request: AccessRequest, others: Vec<Target>) -> Result<Session, Denial> {
        let mut others = others.into_iter().peekable();
        let mut before = None;
        loop {
            let permit = match self.gate.decide(&request) {
                Ok(permit) => permit,
                Err(denial) => return Err(before.unwrap_or(denial)),
            };
            let unopened = match self.sessions.open(permit, others.peek().is_some()).await {
                Ok(session) => return Ok(session),
                Err(unopened) => unopened,
            };
            let Some(next) = others.next().filter(|_| unopened.elsewhere) else {
                return Err(unopened.denial);
            };
            before = Some(unopened.denial);
            request.target = Some(next);
            request.now = self.clock.now();
        }
    }

    /// Everything that the gate looks at, as it stands now, and the other members of a pool.
    async fn requested(
        &self,
        session: SessionId,
        caller: &Arc<Caller>,
        wanted: Wanted<'_>,
        spoken: Spoken,
        client: SocketAddr,
    ) -> Result<(AccessRequest, Vec<Target>), Denial> {
        // Before anything is looked up, so that no change in between goes unseen.
        let as_of = self.sessions.changes_noted();
        let asked = wanted.asked();
        // Both at once: each is a way to the store's thread and back.
        let (present, mut members) = tokio::join!(self.present(caller), self.find(wanted));
        let Some(present) = present else {
            let request = AccessRequest {
                session,
                ..self.request(caller, asked, None, client, as_of)
            };
            return Err(self.gate.shut_out(&request));
        };
        if members.len() > 1 {
            let now = self.clock.now();
            // Rules may read which agent it is: where some may be asked, only those are.
            let (allowed, other): (Vec<_>, Vec<_>) = members
                .into_iter()
                .partition(|member| self.gate.foresees(&present, member, client, now));
            members = if allowed.is_empty() { other } else { allowed };
            self.sessions.order(&mut members);
        }
        let mut members = members.into_iter();
        let target = members.next();
        let request = AccessRequest {
            session,
            spoken,
            ..self.request(&Arc::new(present), asked, target, client, as_of)
        };
        Ok((request, members.collect()))
    }

    /// The endpoint that is wanted: several targets where it is a pool, none where there is none.
    async fn find(&self, wanted: Wanted<'_>) -> Vec<Target> {
        let named = |host| name::parse_host(host, &self.domain).ok();
        match wanted {
            Wanted::Port(host, port) => match named(host) {
                Some((host, site)) => self.directory.find(&host, &site, port).await,
                None => Vec::new(),
            },
            Wanted::Speaking(host, protocols) => match named(host) {
                Some((host, site)) => self.directory.find_speaking(&host, &site, protocols).await,
                None => Vec::new(),
            },
            Wanted::Exactly(url) => {
                let mut found = self.directory.find(&url.host, &url.site, url.port).await;
                found.retain(|target| target.endpoint == *url);
                found
            }
        }
    }

    /// What `caller` may reach among the next endpoints after `after`, and where the following page begins; `None` at the
    /// end. No line is written: nothing is opened.
    ///
    /// # Errors
    /// `internal` when the store cannot be asked.
    pub async fn reachable(
        &self,
        caller: &Caller,
        site: Option<&Label>,
        after: Option<&Target>,
        client: SocketAddr,
    ) -> Result<Option<(Vec<Reachable>, Target)>, Reason> {
        let page = self.directory.page(site, after).await.ok_or(Reason::Internal)?;
        let Some(last) = page.last().cloned() else {
            return Ok(None);
        };
        let now = self.clock.now();
        let allowed = page
            .into_iter()
            .filter(|target| self.gate.foresees(caller, target, client, now));
        let shown = allowed.map(|target| Reachable {
            online: self.sessions.is_online(&target),
            endpoint: target.endpoint,
            builtin: target.builtin,
        });
        Ok(Some((shown.collect(), last)))
    }

    /// What `caller` could expect of the endpoint of this URL, and whether its agent is linked. An endpoint that does not
    /// exist is denied like a forbidden one, with the same line in the audit.
    pub async fn outlook(
        &self,
        caller: &Arc<Caller>,
        url: &EndpointUrl,
        wanted: &Inquiry,
        client: SocketAddr,
    ) -> (Outlook, bool) {
        let mut members = self.find(Wanted::Exactly(url)).await;
        self.sessions.order(&mut members);
        let target = members.into_iter().next();
        let found = target.as_ref().map(|target| {
            let outlook = self.gate.outlook(caller, target, wanted, client, self.clock.now());
            (outlook, self.sessions.is_online(target))
        });
        match found {
            Some((outlook, online)) if outlook != Outlook::Denied => (outlook, online),
            _ => {
                let request = self.request(caller, url.to_string(), target, client, 0);
                let _told = self.gate.refuse_look_up(&request);
                (Outlook::Denied, false)
            }
        }
    }

    /// The SSH host keys of the endpoint that `host` and `port` name, for a caller who may reach it.
    ///
    /// # Errors
    /// A [`Denial`] as [`Door::enter`] gives it, with its line in the audit.
    pub async fn host_keys(
        &self,
        caller: &Arc<Caller>,
        host: &str,
        port: u16,
        client: SocketAddr,
    ) -> Result<Vec<String>, Denial> {
        let named = match name::parse_host(host, &self.domain) {
            Ok((host, site)) => self.directory.keyed(&host, &site, port).await,
            Err(_) => Vec::new(),
        };
        let now = self.clock.now();
        let known = named.first().map(|keyed| keyed.target.clone());
        let mut allowed = named
            .into_iter()
            .filter(|keyed| self.gate.foresees(caller, &keyed.target, client, now))
            .peekable();
        if allowed.peek().is_some() {
            let keys: BTreeSet<String> = allowed.flat_map(|keyed| keyed.keys).collect();
            return Ok(keys.into_iter().collect());
        }
        let shown: String = host.chars().filter(|c| !c.is_control()).take(ASKED_LIMIT).collect();
        let request = self.request(caller, format!("{shown}:{port}"), known, client, 0);
        Err(self.gate.refuse_look_up(&request))
    }

    /// A token that leads a client without a certificate to the endpoint of this URL, as this caller, and for how long it
    /// can be used first.
    ///
    /// # Errors
    /// As a look-up: what does not exist is denied like what is forbidden, with its line in the audit. `offline` where no
    /// agent would serve it, `limit` where there are as many tokens as there may be.
    pub async fn route(
        &self,
        caller: &Arc<Caller>,
        url: &EndpointUrl,
        client: SocketAddr,
    ) -> Result<(SecretString, Duration), Unrouted> {
        let members = self.find(Wanted::Exactly(url)).await;
        let (known, now) = (members.first().cloned(), self.clock.now());
        let mut allowed = members
            .into_iter()
            .filter(|member| self.gate.foresees(caller, member, client, now))
            .peekable();
        if allowed.peek().is_none() {
            let request = self.request(caller, url.to_string(), known, client, 0);
            return Err(Unrouted::Denied(self.gate.refuse_look_up(&request)));
        }
        let Some(target) = allowed.find(|member| self.sessions.is_online(member)) else {
            return Err(Unrouted::NotNow(Reason::Offline));
        };
        let issued = self.routing.issue(caller, url, Instant::now());
        let token = issued.map_err(|Full| Unrouted::NotNow(Reason::Limit))?;
        let written = self.gate.trail().route(caller, &target, client);
        written.map_err(|_| Unrouted::NotNow(Reason::AuditFailed))?;
        Ok((token, routing::VALID_FOR))
    }

    /// Opens the session that a routing token leads to; the caller, what they proved and the policy are asked anew.
    ///
    /// # Errors
    /// [`Stray`] when the token leads nowhere, which is in the audit then, or the door says no.
    pub async fn enter_by_token(&self, token: &str, client: SocketAddr) -> Result<Session, Stray> {
        let followed = self.routing.follow(token, client.ip(), Instant::now());
        let Route { caller, endpoint } = followed.map_err(|stale| {
            let mut record = Record::new("auth.fail");
            record.client_ip = Some(client.ip().to_string());
            if let Some(route) = stale.route() {
                record.caller = Some(route.caller.name.to_string());
                record.endpoint = Some(route.endpoint.to_string());
            }
            self.gate.trail().stranger(record, client.ip(), stale.why());
            Stray::Stale {
                is_guess: stale.route().is_none(),
            }
        })?;
        let entered = self.enter(&caller, Wanted::Exactly(&endpoint), client).await;
        entered.map_err(Stray::Denied)
    }

    /// The caller as the store knows them now; `None` once they are shut out, or what they proved at their login no longer
    /// lets them in. A connection may live for days after it.
    pub async fn present(&self, caller: &Caller) -> Option<Caller> {
        self.callers.present(&caller.id(), &caller.by).await
    }

    /// Has cancelled what the session with this key does; `who` is what the certificate says of who shows it, where one was
    /// presented. Nobody is told how it went.
    ///
    /// # Errors
    /// The stable name of why not, which is in the audit.
    pub async fn cancel(&self, key: &CancelKey, who: Option<&Caller>, client: SocketAddr) -> Result<(), &'static str> {
        let who = who.map(Caller::id);
        let cancelled = self.sessions.cancel(key, who.as_ref(), client).await;
        cancelled.map_err(|error| {
            let mut record = Record::new("cancel.refuse");
            record.client_ip = Some(client.ip().to_string());
            self.gate.trail().stranger(record, client.ip(), error.name());
            error.name()
        })
    }

    /// Refuses something that is no endpoint at all (a shell on the gateway, a forward to a socket), with its audit line.
    pub fn turn_away(&self, caller: &Arc<Caller>, asked: &str, client: SocketAddr) -> Denial {
        let request = self.request(caller, asked.to_owned(), None, client, 0);
        match self.gate.decide(&request) {
            Err(denial) => denial,
            // Without a target there is nothing that the gate could permit.
            Ok(permit) => Denial {
                session: permit.session(),
                told: Reason::Denied,
            },
        }
    }

    /// Notes that somebody tried to log in and did not get in, for the reason with the stable name `why`; `shut_out` when
    /// that brought its source a penalty.
    pub fn login_failed(&self, login: &str, why: &'static str, shut_out: bool, client: SocketAddr) {
        let mut record = Record::new("auth.fail");
        record.client_ip = Some(client.ip().to_string());
        record.fact("login", login);
        if shut_out {
            record.fact("shut_out", true);
        }
        self.gate.trail().stranger(record, client.ip(), why);
    }

    /// Notes that somebody who asked for `name` presented no certificate, or none that lets them in.
    pub fn not_identified(&self, why: &'static str, name: Option<&str>, client: SocketAddr) {
        let mut record = Record::new("auth.fail");
        record.client_ip = Some(client.ip().to_string());
        if let Some(name) = name {
            record.fact("server_name", shown(name));
        }
        self.gate.trail().stranger(record, client.ip(), why);
    }

    fn request(
        &self,
        caller: &Arc<Caller>,
        asked: String,
        target: Option<Target>,
        client: SocketAddr,
        as_of: u64,
    ) -> AccessRequest {
        AccessRequest {
            session: fresh(),
            caller: Arc::clone(caller),
            asked,
            target,
            client,
            now: self.clock.now(),
            as_of,
            spoken: Spoken::default(),
        }
    }
}

fn fresh() -> SessionId {
    SessionId::from_bytes(uuid::Uuid::now_v7().into_bytes())
}
