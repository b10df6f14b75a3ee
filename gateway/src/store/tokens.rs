//! Join strings: made once, spent once.

use rusqlite::{Connection, Row, params};

use super::callers::optional;
use super::columns::{
    from_json, groups, json, label, labels as check_labels, names, site as site_name, terms, terms_from, token_kind,
    token_kind_from,
};
use super::{
    AgentId, CallerName, Claim, MAX_WAITING_TOKENS, NewCaller, NewToken, RedeemError, Redeemed, StoreError, Terms,
    TokenGrant, TokenKind, WaitingToken, agents, callers, fleet, hosts,
};

/// An expired string's digest is kept for a day, so that its bearer is told "expired" and not "unknown".
const KEEP_EXPIRED_SECONDS: i64 = 86_400;

pub(super) fn create(db: &Connection, token: &NewToken) -> Result<(), StoreError> {
    let grant = &token.grant;
    check(token)?;
    sweep(db, token.created)?;
    let statement = "SELECT count(*) FROM tokens WHERE expires > ?1 AND used < uses";
    let waiting: u32 = db.query_row(statement, [token.created], |row| row.get(0))?;
    if waiting >= MAX_WAITING_TOKENS {
        return Err(StoreError::Limit {
            what: "join strings that wait to be used",
            limit: MAX_WAITING_TOKENS,
        });
    }
    match agent_of(grant)? {
        Some(_) if matches!(token.terms, Terms::Fleet { .. }) => {}
        Some(id) => {
            match token.terms {
                Terms::Replace => has_a_key(db, &id)?,
                _ => agent_may_enrol(db, &id, None)?,
            }
            grant
                .hosts
                .iter()
                .try_for_each(|host| hosts::name_is_free(db, &id, host))?;
        }
        None => caller_may_join(db, grant)?,
    }
    let (terms, uses) = terms(token.terms);
    db.execute(
        "INSERT INTO tokens (secret_sha256, kind, site, name, labels, groups, hosts, created, expires, terms, uses)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        params![
            token.secret_sha256,
            token_kind(grant.kind),
            grant.site,
            grant.name,
            json(&grant.labels, "tokens.labels")?,
            json(&grant.groups, "tokens.groups")?,
            json(&grant.hosts, "tokens.hosts")?,
            token.created,
            token.expires,
            terms,
            uses
        ],
    )?;
    Ok(())
}

/// Forgets strings that ended long ago, but for those under which a device of a fleet still waits for its certificate.
fn sweep(db: &Connection, now: i64) -> Result<(), StoreError> {
    db.execute(
        "DELETE FROM tokens WHERE expires < ?1 AND NOT EXISTS (
             SELECT 1 FROM token_uses AS u JOIN agents AS a ON a.site = tokens.site AND a.name = u.name AND a.spki = u.spki
             WHERE u.secret_sha256 = tokens.secret_sha256 AND a.serial IS NULL)",
        [now.saturating_sub(KEEP_EXPIRED_SECONDS)],
    )?;
    Ok(())
}

pub(super) fn redeem(db: &Connection, claim: &Claim<'_>, now: i64) -> Result<Redeemed, RedeemError> {
    // The row count decides the race; everything else only explains a loss. Nothing else may count a use. Whatever fails
    // after it undoes it.
    let won = db.execute(
        "UPDATE tokens SET used = used + 1
         WHERE secret_sha256 = ?1 AND used < uses AND expires > ?3
         AND NOT EXISTS (SELECT 1 FROM token_uses WHERE secret_sha256 = ?1 AND spki = ?2)",
        params![claim.secret_sha256, claim.spki, now],
    )? == 1;
    let (grant, terms, expires) = find(db, claim.secret_sha256)?.ok_or(RedeemError::Unknown)?;
    let held = held_name(db, claim)?;
    match (&held, terms) {
        _ if won => {}
        // What a device of a fleet holds, it may collect later.
        (Some(_), Terms::Fleet { .. }) => {}
        _ if expires <= now => return Err(RedeemError::Expired),
        (Some(_), _) => {}
        (None, Terms::Fleet { uses, .. }) => return Err(RedeemError::UsedUp { uses }),
        (None, _) => return Err(RedeemError::Spent),
    }
    let redeemed = match agent_of(&grant)? {
        Some(_) if matches!(terms, Terms::Fleet { .. }) => {
            let held = held.map(|name| fleet::Held { name, expires });
            fleet::redeem(db, &grant, terms, claim, held, now)?
        }
        Some(id) => redeem_agent(db, &id, &grant, terms, claim, now, won)?,
        None => redeem_caller(db, &grant, now, won)?,
    };
    if won {
        db.execute(
            "INSERT INTO token_uses (secret_sha256, spki, name, used_at) VALUES (?1, ?2, ?3, ?4)",
            params![claim.secret_sha256, claim.spki, redeemed.name, now],
        )?;
    }
    Ok(redeemed)
}

/// Under which name this key used the string before.
fn held_name(db: &Connection, claim: &Claim<'_>) -> Result<Option<String>, StoreError> {
    let statement = "SELECT name FROM token_uses WHERE secret_sha256 = ?1 AND spki = ?2";
    optional(db.query_row(statement, params![claim.secret_sha256, claim.spki], |row| row.get(0)))
}

fn redeem_agent(
    db: &Connection,
    id: &AgentId,
    grant: &TokenGrant,
    terms: Terms,
    claim: &Claim<'_>,
    now: i64,
    won: bool,
) -> Result<Redeemed, RedeemError> {
    let mut replaced = false;
    if won && terms == Terms::Replace {
        has_a_key(db, id)?;
        replaced = agents::replace_key(db, id, claim.spki, now)?;
        // The very key that was revoked does not come back by its own replacement.
        agent_may_enrol(db, id, Some(claim.spki))?;
    } else {
        agent_may_enrol(db, id, Some(claim.spki))?;
        // A retry writes nothing: labels and bindings may have been changed since, and stay so.
        if won {
            // An agent that was imported has labels already.
            let mut labels = agents::get(db, id)?.map(|row| row.labels).unwrap_or_default();
            labels.extend(grant.labels.clone());
            agents::enrol(db, id, &labels, claim.spki, now)?;
            grant.hosts.iter().try_for_each(|host| hosts::bind(db, id, host))?;
        }
    }
    let row = agents::get(db, id)?.ok_or(RedeemError::Unknown)?;
    Ok(Redeemed {
        repeated: !won,
        replaced,
        ..fleet::of_agent(db, row)?
    })
}

fn redeem_caller(db: &Connection, grant: &TokenGrant, now: i64, won: bool) -> Result<Redeemed, RedeemError> {
    caller_may_join(db, grant)?;
    if won {
        write_caller(db, grant, now)?;
    }
    let row = callers::get(db, &caller_of(grant)?)?.ok_or(RedeemError::Unknown)?;
    Ok(Redeemed {
        kind: grant.kind,
        name: row.id.name,
        site: row.site,
        labels: row.labels,
        groups: row.groups,
        hosts: grant.hosts.clone(),
        repeated: !won,
        pending: false,
        replaced: false,
    })
}

/// A new caller gets what the string grants; one who is there keeps everything and gets the string's groups and labels
/// too.
fn write_caller(db: &Connection, grant: &TokenGrant, now: i64) -> Result<(), StoreError> {
    let id = caller_of(grant)?;
    let Some(mut row) = callers::get(db, &id)? else {
        return callers::add(
            db,
            &NewCaller {
                id,
                site: grant.site.clone(),
                groups: grant.groups.clone(),
                labels: grant.labels.clone(),
                keys: Vec::new(),
                issuer: None,
                created: now,
            },
        );
    };
    row.groups.extend(grant.groups.iter().cloned());
    row.labels
        .extend(grant.labels.iter().map(|(key, value)| (key.clone(), value.clone())));
    callers::set_groups(db, &id, &row.groups)?;
    callers::set_labels(db, &id, &row.labels)
}

fn caller_of(grant: &TokenGrant) -> Result<CallerName, StoreError> {
    let kind = grant
        .kind
        .caller()
        .ok_or(StoreError::Damaged { column: "tokens.kind" })?;
    Ok(CallerName::new(kind, &grant.name))
}

/// Join strings for a caller end to be good, the spent ones included.
pub(super) fn withdraw(db: &Connection, id: &CallerName) -> Result<(), StoreError> {
    let statement = "DELETE FROM tokens WHERE kind = ?1 AND name = ?2";
    db.execute(statement, [id.kind.as_str(), &id.name])?;
    Ok(())
}

/// Join strings that this key has spent end to be good: their bearer could ask again.
pub(super) fn withdraw_spent(db: &Connection, spki: &[u8; 32]) -> Result<(), StoreError> {
    let statement = "DELETE FROM tokens WHERE secret_sha256 IN (SELECT secret_sha256 FROM token_uses WHERE spki = ?1)";
    db.execute(statement, [spki])?;
    Ok(())
}

/// Refuses while a key other than `spki` stands in the agent's row: else a join string would be a way to take its name over.
fn agent_may_enrol(db: &Connection, id: &AgentId, spki: Option<&[u8; 32]>) -> Result<(), StoreError> {
    let row = agents::get(db, id)?;
    if row.as_ref().is_some_and(|row| row.disabled) {
        return Err(disabled(id));
    }
    let Some(standing) = row.and_then(|row| row.spki) else {
        return agents::name_is_free(db, id);
    };
    if spki == Some(&standing) {
        return Ok(());
    }
    Err(StoreError::Conflict {
        what: format!("agent {} in site {} is already enrolled", id.name, id.site),
        help: format!(
            "to enrol its machine anew, make the join string with --replace, or delete it first with `fairlead agents delete {id}`; for another machine choose another name"
        ),
    })
}

/// Refuses to replace the key of an agent that has none.
fn has_a_key(db: &Connection, id: &AgentId) -> Result<(), StoreError> {
    let row = agents::get(db, id)?;
    match row {
        Some(row) if row.spki.is_some() && !row.pending => Ok(()),
        _ => Err(StoreError::Conflict {
            what: format!(
                "agent {} in site {} is not enrolled, so there is no key to replace",
                id.name, id.site
            ),
            help: "leave --replace out".into(),
        }),
    }
}

fn disabled(id: &AgentId) -> StoreError {
    StoreError::Conflict {
        what: format!("agent {} in site {} is disabled", id.name, id.site),
        help: format!(
            "enrol it with a new key by a join string with --replace, or delete it first with `fairlead agents delete {id}`"
        ),
    }
}

fn caller_may_join(db: &Connection, grant: &TokenGrant) -> Result<(), StoreError> {
    let id = caller_of(grant)?;
    let Some(row) = callers::get(db, &id)? else {
        return callers::name_is_free(db, &id);
    };
    if row.disabled {
        return Err(StoreError::Conflict {
            what: format!("{id} is disabled"),
            help: format!("enable the {} first, or choose another name", id.kind.as_str()),
        });
    }
    if grant.site.is_some() && row.site != grant.site {
        return Err(StoreError::Conflict {
            what: match row.site {
                Some(site) => format!("{id} belongs to site {site}"),
                None => format!("{id} belongs to no single site"),
            },
            help: "leave --site out, or choose another name: nobody changes sites".into(),
        });
    }
    Ok(())
}

fn check(token: &NewToken) -> Result<(), StoreError> {
    let grant = &token.grant;
    match token.terms {
        Terms::Fleet { uses, .. } => fleet::check(grant, uses)?,
        Terms::Once | Terms::Replace => label(&grant.name, "name")?,
    }
    if let Some(site) = &grant.site {
        site_name(site)?;
    }
    check_labels(&grant.labels, "labels")?;
    groups(&grant.groups)?;
    names(&grant.hosts, "hosts")?;
    if token.expires <= token.created {
        return Err(StoreError::Invalid {
            what: "life of the join string",
            why: "longer than nothing",
        });
    }
    if grant.kind == TokenKind::Agent && !grant.groups.is_empty() {
        return Err(StoreError::Invalid {
            what: "groups",
            why: "an agent has none",
        });
    }
    if grant.kind != TokenKind::Agent && !grant.hosts.is_empty() {
        return Err(StoreError::Invalid {
            what: "hosts",
            why: "only agents have hosts",
        });
    }
    Ok(())
}

fn agent_of(grant: &TokenGrant) -> Result<Option<AgentId>, StoreError> {
    match (grant.kind, &grant.site) {
        (TokenKind::User | TokenKind::Workload, _) => Ok(None),
        (TokenKind::Agent, Some(site)) => Ok(Some(AgentId::new(site, &grant.name))),
        (TokenKind::Agent, None) => Err(StoreError::Invalid {
            what: "site",
            why: "an agent always has one",
        }),
    }
}

type Found = (TokenGrant, Terms, i64);

/// The join strings that are good at `now`.
pub(super) fn waiting(db: &Connection, now: i64) -> Result<Vec<WaitingToken>, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT lower(hex(substr(secret_sha256, 1, 8))) AS id, kind, site, name, created, expires, uses, used
         FROM tokens WHERE expires > ?1 AND used < uses ORDER BY expires",
    )?;
    let rows = statement.query_map([now], |row| {
        Ok(WaitingToken {
            id: row.get("id")?,
            kind: row.get("kind")?,
            site: row.get("site")?,
            name: row.get("name")?,
            created: row.get("created")?,
            expires: row.get("expires")?,
            uses: row.get("uses")?,
            used: row.get("used")?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The row stays until it is swept: uses that were counted are not forgotten.
pub(super) fn withdraw_one(db: &Connection, beginning: &str, now: i64) -> Result<WaitingToken, StoreError> {
    let is_meant = |token: &WaitingToken| !beginning.is_empty() && token.id.starts_with(beginning);
    let mut found = waiting(db, now)?.into_iter().filter(is_meant);
    let token = match (found.next(), found.next()) {
        (Some(token), None) => token,
        (None, _) => {
            let what = format!("good join string whose id begins {beginning}");
            return Err(StoreError::NotFound { what });
        }
        (Some(one), Some(other)) => {
            return Err(StoreError::Conflict {
                what: format!(
                    "{beginning} is the beginning of more than one: {}, {}",
                    one.id, other.id
                ),
                help: "give more of the id".into(),
            });
        }
    };
    let statement =
        "UPDATE tokens SET expires = ?2 WHERE lower(hex(substr(secret_sha256, 1, 8))) = ?1 AND expires > ?2";
    db.execute(statement, params![token.id, now])?;
    Ok(token)
}

fn find(db: &Connection, secret_sha256: &[u8; 32]) -> Result<Option<Found>, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT kind, site, name, labels, groups, hosts, terms, uses, expires FROM tokens WHERE secret_sha256 = ?1",
    )?;
    let mut rows = statement.query([secret_sha256])?;
    rows.next()?.map(from_row).transpose()
}

fn from_row(row: &Row<'_>) -> Result<Found, StoreError> {
    let grant = TokenGrant {
        kind: token_kind_from(&row.get::<_, String>("kind")?)?,
        name: row.get("name")?,
        site: row.get("site")?,
        labels: from_json(&row.get::<_, String>("labels")?, "tokens.labels")?,
        groups: from_json(&row.get::<_, String>("groups")?, "tokens.groups")?,
        hosts: from_json(&row.get::<_, String>("hosts")?, "tokens.hosts")?,
    };
    let terms = terms_from(&row.get::<_, String>("terms")?, row.get("uses")?)?;
    Ok((grant, terms, row.get("expires")?))
}
