//! Join strings of fleets: many keys, each under the name that its device proposes; and names that are known beforehand.

use rusqlite::{Connection, params};

use super::columns::{agent_id, json, label, labels as check_labels};
use super::{
    AgentId, AgentRow, Claim, Labels, MAX_AGENTS, MAX_BINDINGS, MAX_IMPORT, NamePattern, NewAgent, RedeemError,
    Redeemed, StoreError, Terms, TokenGrant, TokenKind, agents, hosts,
};

/// Refuses grants that no fleet can have.
pub(super) fn check(grant: &TokenGrant, uses: u32) -> Result<(), StoreError> {
    NamePattern::new(&grant.name)?;
    if grant.kind != TokenKind::Agent {
        return Err(StoreError::Invalid {
            what: "pattern",
            why: "for agents only",
        });
    }
    if !(1..=MAX_AGENTS).contains(&uses) {
        return Err(StoreError::Invalid {
            what: "uses",
            why: "1 to 100000, as many as there may be agents",
        });
    }
    if !grant.hosts.is_empty() && uses > MAX_BINDINGS {
        return Err(StoreError::Limit {
            what: "agents bound to one host, and so uses of a join string that binds one",
            limit: MAX_BINDINGS,
        });
    }
    Ok(())
}

/// What a use of a fleet's string brings about: the first key that proposes a free name holds it.
///
/// `held` is the name this very key got before; it may come for it again as long as the row is its own.
pub(super) fn redeem(
    db: &Connection,
    grant: &TokenGrant,
    terms: Terms,
    claim: &Claim<'_>,
    held: Option<Held>,
    now: i64,
) -> Result<Redeemed, RedeemError> {
    let site = grant.site.as_deref().unwrap_or_default();
    if let Some(held) = held {
        return collect(db, &AgentId::new(site, held.name), claim, held.expires, now);
    }
    let id = AgentId::new(site, &claim.proposal.name);
    may_have(&NamePattern::new(&grant.name)?, &id)?;
    let row = agents::get(db, &id)?;
    let pending = match &row {
        Some(row) if row.disabled || row.spki.is_some() => return Err(taken(&id)),
        // Imported: an administrator has named it already.
        Some(_) => false,
        None => {
            agents::name_is_free(db, &id)?;
            matches!(terms, Terms::Fleet { approval: true, .. })
        }
    };
    if let Some(other) = agents::with_key(db, claim.spki)? {
        return Err(RedeemError::Conflict {
            what: format!("this key is already agent {}", other.id),
            help: "a key has one name; move the state directory away to enrol with a new key".into(),
        });
    }
    let mut labels = grant.labels.clone();
    // What was said of this one agent is worth more than what was said of all.
    labels.extend(row.map(|row| row.labels).unwrap_or_default());
    agents::enrol(db, &id, &labels, claim.spki, now)?;
    db.execute(
        "UPDATE agents SET pending = ?3, reported = ?4 WHERE site = ?1 AND name = ?2",
        params![id.site, id.name, pending, reported(&claim.proposal.reported)?],
    )?;
    grant.hosts.iter().try_for_each(|host| hosts::bind(db, &id, host))?;
    let row = agents::get(db, &id)?.ok_or(RedeemError::Unknown)?;
    Ok(of_agent(db, row)?)
}

/// What a key of a fleet got before.
pub(super) struct Held {
    /// The name.
    pub(super) name: String,
    /// When the string ends.
    pub(super) expires: i64,
}

/// The same key comes again: for a name that was approved meanwhile, or because it never got the answer.
fn collect(db: &Connection, id: &AgentId, claim: &Claim<'_>, expires: i64, now: i64) -> Result<Redeemed, RedeemError> {
    let row = agents::get(db, id)?.filter(|row| !row.disabled && row.spki.as_ref() == Some(claim.spki));
    let Some(row) = row else {
        return Err(RedeemError::Rejected { id: id.clone() });
    };
    let proposed = &claim.proposal.name;
    if !proposed.is_empty() && *proposed != id.name {
        return Err(RedeemError::Conflict {
            what: format!(
                "this key holds the name {} in site {} already, not {proposed}",
                id.name, id.site
            ),
            help: format!(
                "propose {} again, or move the state directory away to enrol with a new key",
                id.name
            ),
        });
    }
    // Whoever had a certificate renews it; a string that has ended is no way round the end of one.
    if expires <= now && row.not_after.is_some_and(|end| end <= now) {
        return Err(RedeemError::Expired);
    }
    Ok(Redeemed {
        repeated: true,
        ..of_agent(db, row)?
    })
}

fn may_have(pattern: &NamePattern, id: &AgentId) -> Result<(), RedeemError> {
    let allowed = label(&id.name, "name").is_ok() && pattern.fits(&id.name);
    if allowed {
        return Ok(());
    }
    Err(RedeemError::BadName {
        name: id.name.clone(),
        pattern: pattern.to_string(),
    })
}

fn taken(id: &AgentId) -> RedeemError {
    RedeemError::Conflict {
        what: format!("the name {} in site {} is held by another key", id.name, id.site),
        help: format!(
            "choose another name; if this is the same device with a new key, have `fairlead token create --agent {id} --replace` made for it"
        ),
    }
}

/// The answer for an agent's row as it stands.
pub(super) fn of_agent(db: &Connection, row: AgentRow) -> Result<Redeemed, StoreError> {
    Ok(Redeemed {
        kind: TokenKind::Agent,
        hosts: hosts::of(db, &row.id)?,
        name: row.id.name,
        site: Some(row.id.site),
        labels: row.labels,
        groups: Default::default(),
        repeated: false,
        pending: row.pending,
        replaced: false,
    })
}

fn reported(facts: &Labels) -> Result<String, StoreError> {
    // Only for people to look at: what does not fit is left out rather than refused.
    let good = check_labels(facts, "reported facts").is_ok();
    json(if good { facts } else { &EMPTY }, "agents.reported")
}

static EMPTY: Labels = Labels::new();

/// Lets a name that is held become an agent; one that is an agent already stays as it is.
pub(super) fn approve(db: &Connection, id: &AgentId) -> Result<(), StoreError> {
    let statement = "UPDATE agents SET pending = 0 WHERE site = ?1 AND name = ?2";
    if db.execute(statement, [&id.site, &id.name])? == 1 {
        return Ok(());
    }
    Err(agents::unknown(id))
}

/// Writes agents that have no key yet.
pub(super) fn import(db: &Connection, new: &[NewAgent]) -> Result<(), StoreError> {
    let known: u32 = db.query_row("SELECT count(*) FROM agents", [], |row| row.get(0))?;
    let more = u32::try_from(new.len()).unwrap_or(u32::MAX);
    for (what, limit, is) in [
        ("agents in one import", MAX_IMPORT, more),
        ("agents", MAX_AGENTS, known.saturating_add(more)),
    ] {
        if is > limit {
            return Err(StoreError::Limit { what, limit });
        }
    }
    for agent in new {
        let id = &agent.id;
        agent_id(id)?;
        check_labels(&agent.labels, "labels")?;
        if agents::get(db, id)?.is_some() {
            return Err(StoreError::Conflict {
                what: format!("there is an agent {} in site {} already", id.name, id.site),
                help: "leave its line out; `fairlead agents label` changes labels".into(),
            });
        }
        agents::name_is_free(db, id)?;
        db.execute(
            "INSERT INTO agents (site, name, labels) VALUES (?1, ?2, ?3)",
            [&id.site, &id.name, &json(&agent.labels, "agents.labels")?],
        )?;
    }
    Ok(())
}
