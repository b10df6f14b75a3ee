//! Join strings: made once, spent once.

use rusqlite::{Connection, Row, params};

use super::columns::{from_json, groups, json, label, labels as check_labels, names, site as site_name, token_kind};
use super::{
    AgentId, MAX_WAITING_TOKENS, NewToken, NewUser, RedeemError, Redeemed, StoreError, TokenGrant, TokenKind, agents,
    hosts, users,
};

/// An expired string's digest is kept for a day, so that its bearer is told "expired" and not "unknown".
const KEEP_EXPIRED_SECONDS: i64 = 86_400;

pub(super) fn create(db: &Connection, token: &NewToken) -> Result<(), StoreError> {
    let grant = &token.grant;
    check(token)?;
    db.execute(
        "DELETE FROM tokens WHERE expires < ?1",
        [token.created.saturating_sub(KEEP_EXPIRED_SECONDS)],
    )?;
    let statement = "SELECT count(*) FROM tokens WHERE expires > ?1 AND used_spki IS NULL";
    let waiting: u32 = db.query_row(statement, [token.created], |row| row.get(0))?;
    if waiting >= MAX_WAITING_TOKENS {
        return Err(StoreError::Limit {
            what: "join strings that wait to be used",
            limit: MAX_WAITING_TOKENS,
        });
    }
    match agent_of(grant)? {
        Some(id) => {
            agent_may_enrol(db, &id, None)?;
            grant
                .hosts
                .iter()
                .try_for_each(|host| hosts::name_is_free(db, &id, host))?;
        }
        None => user_may_join(db, grant)?,
    }
    db.execute(
        "INSERT INTO tokens (secret_sha256, kind, site, name, labels, groups, hosts, created, expires)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            token.secret_sha256,
            token_kind(grant.kind),
            grant.site,
            grant.name,
            json(&grant.labels, "tokens.labels")?,
            json(&grant.groups, "tokens.groups")?,
            json(&grant.hosts, "tokens.hosts")?,
            token.created,
            token.expires
        ],
    )?;
    Ok(())
}

pub(super) fn redeem(
    db: &Connection,
    secret_sha256: &[u8; 32],
    spki: &[u8; 32],
    now: i64,
) -> Result<Redeemed, RedeemError> {
    // The row count decides the race; everything else only explains a loss. Nothing else may mark a string as spent.
    let won = db.execute(
        "UPDATE tokens SET used_spki = ?2, used_at = ?3
         WHERE secret_sha256 = ?1 AND used_spki IS NULL AND expires > ?3",
        params![secret_sha256, spki, now],
    )? == 1;
    let (grant, expires, used_spki) = find(db, secret_sha256)?.ok_or(RedeemError::Unknown)?;
    match used_spki {
        Some(other) if other != *spki => return Err(RedeemError::Spent),
        _ if expires <= now => return Err(RedeemError::Expired),
        _ => {}
    }
    match agent_of(&grant)? {
        Some(id) => redeem_agent(db, &id, &grant, spki, now, won),
        None => redeem_user(db, &grant, now, won),
    }
}

fn redeem_agent(
    db: &Connection,
    id: &AgentId,
    grant: &TokenGrant,
    spki: &[u8; 32],
    now: i64,
    won: bool,
) -> Result<Redeemed, RedeemError> {
    agent_may_enrol(db, id, Some(spki))?;
    // A retry writes nothing: labels and bindings may have been changed since, and stay so.
    if won {
        agents::enrol(db, id, &grant.labels, spki, now)?;
        grant.hosts.iter().try_for_each(|host| hosts::bind(db, id, host))?;
    }
    let row = agents::get(db, id)?.ok_or(RedeemError::Unknown)?;
    Ok(Redeemed {
        kind: TokenKind::Agent,
        name: row.id.name,
        site: Some(row.id.site),
        labels: row.labels,
        groups: grant.groups.clone(),
        hosts: hosts::of(db, id)?,
        repeated: !won,
    })
}

fn redeem_user(db: &Connection, grant: &TokenGrant, now: i64, won: bool) -> Result<Redeemed, RedeemError> {
    user_may_join(db, grant)?;
    if won {
        write_user(db, grant, now)?;
    }
    let row = users::get(db, &grant.name)?.ok_or(RedeemError::Unknown)?;
    Ok(Redeemed {
        kind: TokenKind::User,
        name: row.name,
        site: row.site,
        labels: row.labels,
        groups: row.groups,
        hosts: grant.hosts.clone(),
        repeated: !won,
    })
}

/// A new user gets what the string grants; one who is there keeps everything and gets the string's groups and labels too.
fn write_user(db: &Connection, grant: &TokenGrant, now: i64) -> Result<(), StoreError> {
    let Some(mut row) = users::get(db, &grant.name)? else {
        return users::add(
            db,
            &NewUser {
                name: grant.name.clone(),
                site: grant.site.clone(),
                groups: grant.groups.clone(),
                labels: grant.labels.clone(),
                keys: Vec::new(),
                created: now,
            },
        );
    };
    row.groups.extend(grant.groups.iter().cloned());
    row.labels
        .extend(grant.labels.iter().map(|(key, value)| (key.clone(), value.clone())));
    users::set_groups(db, &row.name, &row.groups)?;
    users::set_labels(db, &row.name, &row.labels)
}

/// Refuses while a key other than `spki` stands in the agent's row: else a join string would be a way to take its name over.
fn agent_may_enrol(db: &Connection, id: &AgentId, spki: Option<&[u8; 32]>) -> Result<(), StoreError> {
    let row = agents::get(db, id)?;
    if row.as_ref().is_some_and(|row| row.disabled) {
        return Err(StoreError::Conflict {
            what: format!("agent {} in site {} is disabled", id.name, id.site),
            help: format!("delete it first with `fairlead agents delete {id}`"),
        });
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
            "to enrol its machine anew, first delete it with `fairlead agents delete {id}`; for another machine choose another name"
        ),
    })
}

fn user_may_join(db: &Connection, grant: &TokenGrant) -> Result<(), StoreError> {
    let Some(row) = users::get(db, &grant.name)? else {
        return Ok(());
    };
    if row.disabled {
        return Err(StoreError::Conflict {
            what: format!("user {} is disabled", row.name),
            help: "enable the user first, or choose another name".into(),
        });
    }
    if grant.site.is_some() && row.site != grant.site {
        return Err(StoreError::Conflict {
            what: match row.site {
                Some(site) => format!("user {} belongs to site {site}", row.name),
                None => format!("user {} belongs to no single site", row.name),
            },
            help: "leave --site out, or choose another name: a user does not change sites".into(),
        });
    }
    Ok(())
}

fn check(token: &NewToken) -> Result<(), StoreError> {
    let grant = &token.grant;
    label(&grant.name, "name")?;
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
            why: "only users have groups",
        });
    }
    if grant.kind == TokenKind::User && !grant.hosts.is_empty() {
        return Err(StoreError::Invalid {
            what: "hosts",
            why: "only agents have hosts",
        });
    }
    Ok(())
}

fn agent_of(grant: &TokenGrant) -> Result<Option<AgentId>, StoreError> {
    match (grant.kind, &grant.site) {
        (TokenKind::User, _) => Ok(None),
        (TokenKind::Agent, Some(site)) => Ok(Some(AgentId::new(site, &grant.name))),
        (TokenKind::Agent, None) => Err(StoreError::Invalid {
            what: "site",
            why: "an agent always has one",
        }),
    }
}

type Found = (TokenGrant, i64, Option<[u8; 32]>);

fn find(db: &Connection, secret_sha256: &[u8; 32]) -> Result<Option<Found>, StoreError> {
    let mut statement = db.prepare(
        "SELECT kind, site, name, labels, groups, hosts, expires, used_spki FROM tokens WHERE secret_sha256 = ?1",
    )?;
    let mut rows = statement.query([secret_sha256])?;
    rows.next()?.map(from_row).transpose()
}

fn from_row(row: &Row<'_>) -> Result<Found, StoreError> {
    let kind = match row.get::<_, String>("kind")?.as_str() {
        "agent" => TokenKind::Agent,
        "user" => TokenKind::User,
        _ => return Err(StoreError::Damaged { column: "tokens.kind" }),
    };
    let grant = TokenGrant {
        kind,
        name: row.get("name")?,
        site: row.get("site")?,
        labels: from_json(&row.get::<_, String>("labels")?, "tokens.labels")?,
        groups: from_json(&row.get::<_, String>("groups")?, "tokens.groups")?,
        hosts: from_json(&row.get::<_, String>("hosts")?, "tokens.hosts")?,
    };
    Ok((grant, row.get("expires")?, row.get("used_spki")?))
}
