//! Giving an agent another name: everything that is addressed by the name follows.

use rusqlite::{Connection, params};

use super::columns::label;
use super::{AgentId, StoreError, agents, hosts};

/// Renames an agent within its site. Its old name stays bound to it as a host, so that what its own file offers under that
/// name, and those who call it so, go on.
pub(super) fn agent(db: &Connection, id: &AgentId, to: &str) -> Result<(), StoreError> {
    label(to, "agent name")?;
    let new = AgentId::new(id.site.as_str(), to);
    if agents::get(db, id)?.is_none() {
        return Err(agents::unknown(id));
    }
    if agents::get(db, &new)?.is_some() {
        return Err(StoreError::Conflict {
            what: format!("there is an agent {} in site {} already", new.name, new.site),
            help: "choose another name, or delete that agent first".into(),
        });
    }
    // A host of its own may become its name, as after a rename and back.
    hosts::unbind(db, id, to)?;
    agents::name_is_free(db, &new)?;
    // Bindings, endpoints and whatever else hangs on the row follow by their foreign keys.
    db.execute(
        "UPDATE agents SET name = ?3 WHERE site = ?1 AND name = ?2",
        [&id.site, &id.name, to],
    )?;
    for statement in [
        "UPDATE tokens SET name = ?3 WHERE kind = 'agent' AND site = ?1 AND name = ?2",
        "UPDATE certificates SET name = ?3 WHERE kind = 'agent' AND site = ?1 AND name = ?2",
        "UPDATE token_uses SET name = ?3 WHERE name = ?2
         AND secret_sha256 IN (SELECT secret_sha256 FROM tokens WHERE kind = 'agent' AND site = ?1)",
    ] {
        db.execute(statement, params![id.site, id.name, to])?;
    }
    hosts::bind(db, &new, &id.name)
}
