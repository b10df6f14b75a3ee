//! Redeeming join strings: the store spends them atomically, the authority issues, the server sets every name.

use std::net::IpAddr;
use std::time::Duration;

use fairlead_identity::authority::{self, RequestedKey};
use fairlead_identity::join::JoinSecret;
use fairlead_identity::keys;
use fairlead_identity::name::Label;
use fairlead_identity::principal::{Kind, Principal};
use fairlead_identity::ssh;
use fairlead_runtime::audit::Record;
use fairlead_wire::enroll::{EnrollAnswer, EnrollRequest, Enrolled, PROOF_CONTEXT};
use fairlead_wire::refusal::{Reason, Refused};

use super::callers::named;
use super::links::{internal, serial};
use super::{Registry, hex, unix};
use crate::link::AgentKey;
use crate::session::Changed;
use crate::store::{
    AgentId, CallerKind, CallerName, CertificateRecord, Claim, Holder, KeyKind, Names, NewCallerKey, Proposal,
    RedeemError, Redeemed, Store, StoreError, TokenKind,
};

/// How long a machine's login key is good.
pub(crate) const LOGIN_KEY_LIFE_SECONDS: i64 = 90 * 24 * 3600;
/// How long a workload's key is good after its last certificate was issued: as long as an agent may be away by default.
const WORKLOAD_KEY_LIFE_SECONDS: i64 = 120 * 24 * 3600;

/// A refusal with its words for the person who enrols.
type Refusal = (Reason, String);

/// Whom a certificate is for, by the store.
struct Subject {
    kind: TokenKind,
    name: String,
    site: Option<String>,
    groups: Names,
}

impl Registry {
    pub(super) async fn redeem(&self, request: EnrollRequest, exporter: [u8; 32], client: IpAddr) -> EnrollAnswer {
        match self.issue(&request, &exporter, client).await {
            Ok(enrolled) => EnrollAnswer::enrolled(enrolled),
            // The first time has its own line; that a device still waits needs none each minute.
            Err((Reason::Pending, text)) => EnrollAnswer::refused(Refused::new(Reason::Pending, &text)),
            Err((reason, text)) => {
                let mut record = Record::new(if request.proof.is_empty() { "enroll" } else { "renew" });
                record.client_ip = Some(client.to_string());
                record.decision = Some("deny".into());
                record.reason = Some(reason.name().into());
                // A refusal stays one when it cannot be logged.
                let _unlogged = self.trail.event(&record);
                EnrollAnswer::refused(Refused::new(reason, &text))
            }
        }
    }

    /// A new certificate over a running link, for the key it stands on.
    pub(super) async fn renew_linked(
        &self,
        agent: &AgentKey,
        spki: [u8; 32],
        csr_der: &[u8],
    ) -> Result<Vec<Vec<u8>>, Refusal> {
        let key = authority::csr_key(csr_der).map_err(|error| (Reason::Malformed, error.to_string()))?;
        let subject = self.known_key(&key).await?;
        let same_agent = subject.name == agent.name.as_str() && subject.site.as_deref() == Some(agent.site.as_str());
        if key.spki_sha256 != spki || subject.kind != TokenKind::Agent || !same_agent {
            return Err((Reason::Denied, "the request is for another key than the link's".into()));
        }
        let enrolled = self.certify(&subject, csr_der, &key, None, None).await?;
        Ok(enrolled.certificate_chain)
    }

    async fn issue(&self, request: &EnrollRequest, exporter: &[u8; 32], client: IpAddr) -> Result<Enrolled, Refusal> {
        let key = authority::csr_key(&request.csr_der).map_err(|error| (Reason::Malformed, error.to_string()))?;
        if request.proof.is_empty() {
            let subject = self.redeemed(request, &key, client).await?;
            let machine = request.reported.get("hostname").map_or("", String::as_str);
            return self
                .certify(&subject, &request.csr_der, &key, Some(client), Some(machine))
                .await;
        }
        if !key.signed(&[PROOF_CONTEXT, exporter].concat(), &request.proof) {
            return Err((
                Reason::Denied,
                "the proof is not of this key, or of another connection".into(),
            ));
        }
        let subject = self.known_key(&key).await?;
        self.certify(&subject, &request.csr_der, &key, Some(client), None).await
    }

    /// Spends the join string.
    async fn redeemed(&self, request: &EnrollRequest, key: &RequestedKey, client: IpAddr) -> Result<Subject, Refusal> {
        let secret: [u8; 32] = request
            .secret
            .as_slice()
            .try_into()
            .map_err(|_| (Reason::Malformed, "the secret is not 32 bytes".to_owned()))?;
        let (digest, spki, now) = (
            JoinSecret::from_bytes(secret).sha256(),
            key.spki_sha256,
            self.unix_now(),
        );
        let proposal = Proposal {
            name: request.proposed_name.clone(),
            reported: request.reported.clone(),
        };
        let redeemed = self.store.run(move |store| {
            let claim = Claim {
                secret_sha256: &digest,
                spki: &spki,
                proposal: &proposal,
            };
            store.redeem_as(&claim, now)
        });
        let redeemed = redeemed.await.map_err(refusal)?;
        if let (true, Some(site)) = (redeemed.replaced, &redeemed.site) {
            (self.shut_out)(&AgentId::new(site.as_str(), redeemed.name.as_str()));
        }
        if redeemed.pending {
            return Err(self.held(&redeemed, client));
        }
        let Redeemed {
            kind,
            name,
            site,
            groups,
            ..
        } = redeemed;
        // A join string may give a caller who is there groups and labels.
        let changed = kind.caller().and_then(|kind| named(&CallerName::new(kind, &name)));
        if let Some(id) = changed {
            self.table.note(Changed::Caller(id));
        }
        Ok(Subject {
            kind,
            name,
            site,
            groups,
        })
    }

    /// A name waits for approval: said in the audit log once, to the device each time.
    fn held(&self, redeemed: &Redeemed, client: IpAddr) -> Refusal {
        let site = redeemed.site.clone().unwrap_or_default();
        if !redeemed.repeated {
            let mut record = Record::new("enroll.pending");
            record.client_ip = Some(client.to_string());
            record.agent = Some(redeemed.name.clone());
            record.site = Some(site.clone());
            record.decision = Some("deny".into());
            record.reason = Some(Reason::Pending.name().into());
            // Nothing is given; a failure to log it is in the gateway's log.
            let _unlogged = self.trail.event(&record);
        }
        pending(&AgentId::new(site, redeemed.name.as_str()))
    }

    /// Whose key this is: an agent's that was not away for too long, or a login key that has not ended.
    async fn known_key(&self, key: &RequestedKey) -> Result<Subject, Refusal> {
        let (spki, now) = (key.spki_sha256, self.unix_now());
        let login = ssh::parse_public_line(&key.ssh_line).map_err(|error| (Reason::Malformed, error.to_string()))?;
        let fingerprint = ssh::fingerprint(&login);
        let found = self.store.run(move |store| {
            let agent = store.agent_with_key(&spki)?;
            let user = if agent.is_some() {
                None
            } else {
                store.login_key_owner(&fingerprint, now)?
            };
            Ok((agent, user))
        });
        let found: Result<_, StoreError> = found.await;
        match found.map_err(|error| (internal(&error), String::new()))? {
            (Some(agent), _) if agent.disabled => Err((Reason::Revoked, "this agent was shut out".into())),
            (Some(agent), _) if agent.pending => Err(pending(&agent.id)),
            (Some(agent), _) => {
                let away = i64::try_from(self.lives.absent.as_secs()).unwrap_or(i64::MAX);
                if agent.not_after.is_some_and(|end| end.saturating_add(away) < now) {
                    return Err((
                        Reason::Expired,
                        "this agent was away for too long; enrol it anew".into(),
                    ));
                }
                let AgentId { site, name } = agent.id;
                Ok(Subject {
                    kind: TokenKind::Agent,
                    name,
                    site: Some(site),
                    groups: Names::new(),
                })
            }
            (None, Some(caller)) => Ok(Subject {
                kind: caller.id.kind.into(),
                name: caller.id.name,
                site: caller.site,
                groups: caller.groups,
            }),
            (None, None) => Err((
                Reason::Revoked,
                "this key is not known here (any longer); a new join string is needed".into(),
            )),
        }
    }

    /// Issues, and keeps what was issued.
    async fn certify(
        &self,
        subject: &Subject,
        csr_der: &[u8],
        key: &RequestedKey,
        client: Option<IpAddr>,
        machine: Option<&str>,
    ) -> Result<Enrolled, Refusal> {
        // The first time it says what machine it is for; a renewal is about a key that is known.
        let (is_first, machine) = (machine.is_some(), machine.unwrap_or_default());
        let failed = |error: &dyn std::fmt::Display| (internal(error), String::new());
        let now = self.unix_now();
        let who = self.principal(subject).map_err(|error| failed(&error))?;
        let life = self.life(subject.kind);
        let serial_number = keys::random_serial().map_err(|error| failed(&error))?;
        let in_force = self.authorities.x509();
        let issued = in_force
            .issuer
            .issue(csr_der, &who, &[], life, self.clock.now(), serial_number)
            .map_err(|error| (Reason::Malformed, error.to_string()))?;
        let ssh_certificate = match subject.kind {
            TokenKind::Agent => String::new(),
            TokenKind::User | TokenKind::Workload => {
                self.user_certificate(&key.ssh_line, &who, &subject.groups, life)?
            }
        };
        let record = CertificateRecord {
            serial: issued.serial_hex.clone(),
            spki: key.spki_sha256,
            not_after: unix(issued.not_after),
            issuer: in_force.number,
        };
        let roots = in_force.root_ders();
        let holder = subject.holder().ok_or_else(|| failed(&"an agent without a site"))?;
        let login = subject.kind.caller().map(|kind| login_key(kind, key, machine, now));
        let login = login.transpose().map_err(|error| (Reason::Malformed, error))?;
        // Over a link the roots are told apart, and the agent says when it has kept them.
        let told: Option<Names> = client.map(|_| in_force.roots.sha256s().iter().map(|root| hex(root)).collect());
        self.record_issue(subject, &who, client, is_first)?;
        let kept = self.store.run(move |store| {
            if let (Some(login), Holder::Caller(id)) = (login, &holder) {
                keep_login_key(store, id, &login, is_first)?;
            }
            if let (Some(roots), Holder::Agent(id)) = (told, &holder) {
                store.note_roots(id, &roots)?;
            }
            store.record_certificate(&holder, &record, now)
        });
        kept.await.map_err(|error: StoreError| failed(&error))?;
        Ok(Enrolled {
            certificate_chain: issued.chain_der,
            principal: who.to_string(),
            ssh_certificate,
            ssh_user_ca: self.ssh_user_cas(),
            ssh_host_ca: self.ssh_host_cas(),
            domain: self.domain.clone(),
            gateway_addresses: self.announce.clone(),
            name: subject.name.clone(),
            site: subject.site.clone().unwrap_or_default(),
            roots,
        })
    }

    /// The line that goes before the certificate is kept and given; a join string that is spent already can be used again
    /// with the same key.
    fn record_issue(
        &self,
        subject: &Subject,
        who: &Principal,
        client: Option<IpAddr>,
        is_first: bool,
    ) -> Result<(), Refusal> {
        let mut record = Record::new(if is_first { "enroll" } else { "renew" });
        record.client_ip = client.map(|client| client.to_string());
        record.site.clone_from(&subject.site);
        match subject.kind {
            TokenKind::Agent => record.agent = Some(subject.name.clone()),
            TokenKind::User => record.caller = Some(subject.name.clone()),
            TokenKind::Workload => {
                record.caller = Some(subject.name.clone());
                record.fact("caller_kind", "workload");
            }
        }
        record.decision = Some("allow".into());
        record.fact("principal", who.to_string());
        let text = "the gateway cannot write its audit log; try again";
        self.trail
            .event(&record)
            .map_err(|_| (Reason::AuditFailed, text.to_owned()))
    }

    fn principal(&self, subject: &Subject) -> anyhow::Result<Principal> {
        let kind = match subject.kind {
            TokenKind::Agent => Kind::Agent,
            TokenKind::User => Kind::User,
            TokenKind::Workload => Kind::Workload,
        };
        let site = subject.site.as_deref().map(str::parse::<Label>).transpose()?;
        Ok(Principal::new(&self.trust_domain, site, kind, subject.name.parse()?)?)
    }

    fn life(&self, kind: TokenKind) -> Duration {
        match kind {
            TokenKind::Agent => self.lives.agent,
            TokenKind::User => self.lives.user,
            TokenKind::Workload => self.lives.workload,
        }
    }

    fn user_certificate(
        &self,
        key_line: &str,
        who: &Principal,
        groups: &Names,
        life: Duration,
    ) -> Result<String, Refusal> {
        let groups: Vec<String> = groups.iter().cloned().collect();
        let serial = serial().map_err(|error| (internal(&error), String::new()))?;
        self.authorities
            .ssh
            .issue_user_certificate(key_line, who, &groups, life, self.clock.now(), serial)
            .map_err(|error| (Reason::Malformed, error.to_string()))
    }
}

impl Subject {
    /// Whose certificate it will be; `None` for an agent without a site.
    fn holder(&self) -> Option<Holder> {
        match (self.kind.caller(), &self.site) {
            (Some(kind), _) => Some(Holder::Caller(CallerName::new(kind, &self.name))),
            (None, Some(site)) => Some(Holder::Agent(AgentId::new(site, &self.name))),
            (None, None) => None,
        }
    }
}

fn login_key(kind: CallerKind, key: &RequestedKey, machine: &str, now: i64) -> Result<NewCallerKey, String> {
    let public = ssh::parse_public_line(&key.ssh_line).map_err(|error| error.to_string())?;
    let life = match kind {
        CallerKind::User => LOGIN_KEY_LIFE_SECONDS,
        CallerKind::Workload => WORKLOAD_KEY_LIFE_SECONDS,
    };
    Ok(NewCallerKey {
        fingerprint: ssh::fingerprint(&public),
        kind: KeyKind::Login,
        public_key: key.ssh_line.clone(),
        label: machine.chars().filter(|c| c.is_ascii_graphic()).take(64).collect(),
        spki: Some(key.spki_sha256),
        added: now,
        expires: now.checked_add(life),
    })
}

/// The first certificate registers the key it is for. A renewal keeps a workload's key alive, since nobody is there to
/// spend another join string; a person's ends when it ends. Asked in the turn in which the certificate is kept: whoever
/// was shut out meanwhile gets none.
fn keep_login_key(
    store: &mut dyn Store,
    id: &CallerName,
    key: &NewCallerKey,
    is_first: bool,
) -> Result<(), StoreError> {
    let gone = || StoreError::NotFound { what: id.to_string() };
    if store.caller(id)?.is_none_or(|caller| caller.disabled) {
        return Err(gone());
    }
    if is_first {
        return store.add_caller_key(id, key);
    }
    let held = store
        .caller_keys(id)?
        .into_iter()
        .any(|held| held.fingerprint == key.fingerprint);
    match (id.kind, key.expires) {
        _ if !held => Err(gone()),
        (CallerKind::Workload, Some(expires)) => store.extend_login_key(id, &key.fingerprint, expires).map(drop),
        _ => Ok(()),
    }
}

fn pending(id: &AgentId) -> Refusal {
    (
        Reason::Pending,
        format!(
            "agent {} in site {} waits for approval; the gateway's operator gives it with `fairlead agents approve {id}`",
            id.name, id.site
        ),
    )
}

fn refusal(error: RedeemError) -> Refusal {
    let reason = match &error {
        RedeemError::Unknown => Reason::BadToken,
        RedeemError::Expired => Reason::TokenExpired,
        RedeemError::Spent | RedeemError::UsedUp { .. } => Reason::TokenSpent,
        RedeemError::BadName { .. } => Reason::BadName,
        RedeemError::Rejected { .. } => Reason::Revoked,
        RedeemError::Conflict { .. } => Reason::Conflict,
        RedeemError::Store(StoreError::Limit { .. }) => Reason::Limit,
        RedeemError::Store(error) => return (internal(error), "the gateway's store failed; try again".into()),
    };
    (reason, error.to_string())
}
