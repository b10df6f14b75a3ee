//! The running gateway as administration sees it.

use std::sync::Arc;

use anyhow::bail;
use fairlead_policy::{AccessPolicy, Enforcement, MqttFacts, Source, policy_digest};
use fairlead_runtime::audit::Record;
use fairlead_runtime::clock::Clock;
use fairlead_runtime::metrics::Metrics;
use fairlead_runtime::tasks::TaskGroup;
use fairlead_wire::id::SessionId;
use fairlead_wire::mqtt::{About, Supposed};
use fairlead_wire::open;
use fairlead_wire::refusal::Reason;
use tokio::sync::Mutex;

use crate::access::{Gate, Trail};
use crate::admin::api::{AgentWord, PolicyTried, RuleAt, SessionLost};
use crate::admin::{
    self, AgentQuestion, AuthorityTaken, Change, Live, LiveSession, NotAudited, PolicyInForce, PolicyRefused,
};
use crate::authority::{Authorities, AuthorityFiles};
use crate::link::{AgentKey, Question, Roster};
use crate::own_certificates::OwnCertificates;
use crate::policy_set::PolicySet;
use crate::registry;
use crate::session::{Changed, Reviewer, Table, WouldCut};
use crate::store::AgentId;

/// The authority in force, with where another would come from and what shows it.
#[derive(Clone)]
pub(crate) struct AuthorityInForce {
    pub(crate) files: AuthorityFiles,
    pub(crate) authorities: Arc<Authorities>,
    pub(crate) own: Arc<OwnCertificates>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// Answers administration from the rooms that hold live state.
pub(crate) struct LiveGateway {
    pub(crate) gate: Arc<Gate>,
    pub(crate) policy_set: PolicySet,
    /// Held by the reload under way: the set that was read last is the one in force and the one kept.
    pub(crate) reloading: Arc<Mutex<()>>,
    pub(crate) roster: Arc<Roster>,
    pub(crate) table: Arc<Table>,
    pub(crate) reviewer: Reviewer,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) authority: AuthorityInForce,
    /// Owner of the worker thread that compiles policy.
    pub(crate) house: TaskGroup,
    /// Cancelled once the gateway takes no new work.
    pub(crate) stopping: fairlead_runtime::stop::CancellationToken,
}

impl LiveGateway {
    /// Reads the access policy again; a set with mistakes changes nothing and is remembered for the health answer.
    ///
    /// # Errors
    /// The mistakes, in words with places.
    pub(crate) async fn reload_policy(&self) -> Result<PolicyInForce, PolicyRefused> {
        let turn = Arc::clone(&self.reloading).lock_owned().await;
        let (set, gate, table) = (self.policy_set.clone(), Arc::clone(&self.gate), Arc::clone(&self.table));
        // Ten thousand rules take a while to compile; links and sessions do not wait for it. The turn goes along, since
        // this work goes on when whoever asked for it has gone.
        let reloaded = self.house.blocking("policy", move || {
            let _turn = turn;
            let reloaded = reload(&set, &gate);
            if reloaded.is_ok() {
                table.note(Changed::Policy);
            }
            reloaded
        });
        let reloaded = reloaded.await.unwrap_or_else(|error| Err(vec![error.to_string()]));
        reloaded.map_err(|mistakes| PolicyRefused { mistakes })
    }

    /// Takes up the authority as the files have it. Order: the audit line, the authority, the gateway's own certificates,
    /// then word to the links; a failure in between leaves the one before.
    ///
    /// # Errors
    /// Why, in words.
    pub(crate) async fn take_up_authority(&self) -> Result<AuthorityTaken, String> {
        let turn = Arc::clone(&self.reloading).lock_owned().await;
        let (authority, trail) = (self.authority.clone(), self.gate.trail().clone());
        let taken = self.house.blocking("authority", move || {
            let _turn = turn;
            authority.take_up(&trail).map_err(|error| format!("{error:#}"))
        });
        taken.await.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Which live sessions a policy would cut if it were in force now; nothing is cut.
    pub(crate) async fn would_cut(&self, policy: &Arc<AccessPolicy>) -> Result<Vec<WouldCut>, String> {
        self.reviewer.would_cut(policy).await
    }
}

impl AuthorityInForce {
    fn take_up(&self, trail: &Trail) -> anyhow::Result<AuthorityTaken> {
        let (next, present) = (self.files.in_force(self.clock.now())?, self.authorities.x509());
        if next.issuer.trust_domain() != present.issuer.trust_domain() {
            bail!("the authority in the files is of another trust domain");
        }
        let taken = AuthorityTaken {
            number: next.number,
            roots: next.roots.certificates().count(),
        };
        if next.number != present.number || next.roots.sha256s() != present.roots.sha256s() {
            let mut record = Record::new("ca.change");
            record.decision = Some("allow".into());
            record.fact("issuing_from", present.number);
            record.fact("issuing_to", next.number);
            record.fact("roots", taken.roots);
            trail
                .event(&record)
                .map_err(|_| anyhow::anyhow!("the audit log cannot be written"))?;
        }
        self.authorities.replace(Arc::new(next));
        if let Err(error) = self.own.renew() {
            self.authorities.replace(present);
            return Err(error.context("the gateway cannot get certificates of its own from it"));
        }
        self.authorities.announce();
        tracing::info!(
            issuing = taken.number,
            roots = taken.roots,
            "certificate authority taken up"
        );
        Ok(taken)
    }
}

impl Live for LiveGateway {
    fn reload_authority(&self) -> admin::Answer<'_, Result<AuthorityTaken, String>> {
        Box::pin(self.take_up_authority())
    }

    fn online(&self) -> Vec<admin::OnlineAgent> {
        let online = self.roster.online().into_iter();
        online
            .map(|agent| admin::OnlineAgent {
                agent: AgentId::new(agent.agent.site.as_str(), agent.agent.name.as_str()),
                transport: agent.transport,
                address: agent.address,
                since: agent.since,
            })
            .collect()
    }

    fn conflicts(&self) -> Vec<admin::IdentityConflict> {
        let conflicts = self.roster.conflicts().into_iter();
        conflicts
            .map(|(agent, conflict)| admin::IdentityConflict {
                agent: AgentId::new(agent.site.as_str(), agent.name.as_str()),
                serving: conflict.serving,
                other: conflict.rival,
                since: conflict.since,
                last: conflict.last,
                tries: conflict.tries,
            })
            .collect()
    }

    fn sessions(&self) -> Vec<LiveSession> {
        let rows = self.table.list().into_iter();
        rows.map(|row| LiveSession {
            session: row.session,
            caller: row.caller.name.to_string(),
            kind: row.caller.kind.as_str(),
            endpoint: row.endpoint,
            agent: AgentId::new(row.site, row.agent),
            rule: row.rule,
            client_ip: row.client_ip,
            proved: row.proved,
            acts: row.acts,
            started: row.started,
            bytes_in: row.bytes_in,
            bytes_out: row.bytes_out,
        })
        .collect()
    }

    fn end(&self, session: SessionId, reason: Reason) -> bool {
        self.table.end(session, reason)
    }

    fn reload(&self) -> admin::Answer<'_, Result<PolicyInForce, PolicyRefused>> {
        Box::pin(self.reload_policy())
    }

    fn policy(&self) -> Arc<AccessPolicy> {
        self.gate.policy()
    }

    fn policy_files(&self) -> Result<Vec<Source>, String> {
        let kept = self.policy_set.kept().unwrap_or_default();
        if policy_digest(&kept) == self.gate.policy_digest() {
            return Ok(kept);
        }
        Err("the files of the policy in force could not be kept in the state directory; reload to try again".into())
    }

    fn try_policy(&self) -> admin::Answer<'_, Result<PolicyTried, PolicyRefused>> {
        Box::pin(async move {
            let set = self.policy_set.clone();
            let compiled = self.house.blocking("policy", move || set.compile()).await;
            let refused = |mistakes| PolicyRefused { mistakes };
            let compiled = compiled
                .unwrap_or_else(|error| Err(vec![error.to_string()]))
                .map_err(refused)?;
            let policy = Arc::new(compiled.policy);
            let cut = self.would_cut(&policy).await.map_err(|error| refused(vec![error]))?;
            Ok(PolicyTried {
                digest: policy.digest(),
                warnings: compiled.warnings.iter().map(|warning| warning.0.to_string()).collect(),
                would_cut: cut.into_iter().map(session_lost).collect(),
            })
        })
    }

    fn ask_agent<'a>(&'a self, question: &'a AgentQuestion) -> admin::Answer<'a, AgentWord> {
        Box::pin(async move { agent_word(&self.roster, question).await })
    }

    fn metrics(&self) -> Result<String, String> {
        self.metrics.encode().map_err(|error| error.to_string())
    }

    fn ready(&self) -> Result<(), String> {
        if self.stopping.is_cancelled() {
            return Err("the gateway is stopping".into());
        }
        match self.policy_set.trouble() {
            Some(mistake) => Err(format!(
                "the access policy has mistakes, an earlier one is in force: {mistake}"
            )),
            None => Ok(()),
        }
    }

    fn changed(&self, change: &Change) {
        match change {
            Change::AgentGone(id) => shut_out(&self.table, &self.roster, id),
            Change::AgentRenamed(id) => {
                // What was permitted was permitted under the old name.
                self.table.end_through(&id.site, &id.name, Reason::PolicyChanged);
                if let Some(agent) = key(id) {
                    self.roster.disconnect(&agent, Reason::Renamed);
                }
            }
            // New sessions see every change at once; live ones are decided again.
            Change::Caller(id) => {
                if let Some(id) = registry::named(id) {
                    self.table.note(Changed::Caller(id));
                }
            }
            Change::Agent(id) => {
                if let Some(agent) = key(id) {
                    self.roster.look_again(&agent);
                    let AgentKey { site, name } = agent;
                    self.table.note(Changed::Agent { site, name });
                }
            }
        }
    }

    fn audit(&self, record: &Record) -> Result<(), NotAudited> {
        self.gate.trail().event(record).map_err(|_| NotAudited)
    }
}

/// Ends an agent's sessions and its link as `revoked`.
pub(crate) fn shut_out(table: &Table, roster: &Roster, id: &AgentId) {
    // Before the link goes, so that sessions end for this reason and not for the loss of it.
    table.end_through(&id.site, &id.name, Reason::Revoked);
    if let Some(agent) = key(id) {
        roster.disconnect(&agent, Reason::Revoked);
    }
}

fn session_lost(cut: WouldCut) -> SessionLost {
    SessionLost {
        id: cut.given.session.to_string(),
        caller: cut.given.caller.name.to_string(),
        endpoint: cut.given.target.endpoint.to_string(),
        why: cut.lost.why.to_owned(),
        rule: cut.lost.rule.map(RuleAt::from),
    }
}

/// What an agent says to a question; why not, where it says nothing.
fn supposed(facts: &MqttFacts) -> Supposed {
    Supposed {
        client_id: facts.client_id.clone(),
        username: facts.username.clone(),
        about: facts.act.as_ref().map(|act| About {
            topic: act.topic.clone(),
            qos: u32::from(act.qos),
            retain: act.retain,
        }),
    }
}

async fn agent_word(roster: &Roster, question: &AgentQuestion) -> AgentWord {
    let AgentQuestion { agent, request } = question;
    let silent = |reason: String| AgentWord {
        reason: Some(reason),
        ..AgentWord::default()
    };
    let Some(agent) = key(agent) else {
        return silent("not asked: its name is not one".into());
    };
    let caller = open::Caller {
        name: request.caller.name.clone(),
        kind: request.caller.kind.as_str().to_owned(),
        groups: request.caller.groups.clone(),
        labels: request.caller.labels.clone(),
        site: request.caller.site.clone().unwrap_or_default(),
        ssh_keys: Vec::new(),
    };
    let acts = match request.enforce {
        Enforcement::Tunnel => Vec::new(),
        Enforcement::Acts(acts) => acts.iter().map(|act| (*act).to_owned()).collect(),
    };
    let question = Question {
        caller,
        endpoint: request.endpoint.clone(),
        client: (request.conn.client_ip, request.conn.client_port).into(),
        // What is about one act names it alone, also where every act is enforced.
        acts: match &request.mqtt {
            Some(MqttFacts { act: Some(act), .. }) => vec![act.action.to_owned()],
            _ => acts,
        },
        mqtt: request.mqtt.as_ref().map(supposed),
        at: request.now,
    };
    match roster.ask(&agent, question).await {
        Ok(said) => AgentWord {
            allowed: Some(said.allowed),
            reason: (!said.allowed).then_some(said.reason),
            rule: (!said.rule.is_empty()).then_some(RuleAt {
                name: said.rule,
                file: said.file,
                line: said.line,
            }),
        },
        Err(error) if error.reason == Reason::Offline => silent("not asked (offline)".into()),
        Err(error) if error.reason == Reason::Unsupported => {
            silent("not asked (it does not know such questions)".into())
        }
        Err(error) => silent(
            format!("no answer ({}) {}", error.reason.name(), error.detail)
                .trim_end()
                .to_owned(),
        ),
    }
}

fn reload(set: &PolicySet, gate: &Gate) -> Result<PolicyInForce, Vec<String>> {
    match set.compile() {
        Ok(compiled) => {
            let warnings = compiled.warnings.iter().map(|warning| warning.0.to_string()).collect();
            let digest = compiled.policy.digest();
            gate.replace_policy(compiled.policy);
            set.keep(&compiled.sources);
            set.set_trouble(None);
            Ok(PolicyInForce { digest, warnings })
        }
        Err(mistakes) => {
            set.set_trouble(mistakes.first().cloned());
            Err(mistakes)
        }
    }
}

fn key(id: &AgentId) -> Option<AgentKey> {
    Some(AgentKey {
        site: id.site.parse().ok()?,
        name: id.name.parse().ok()?,
    })
}
