mod agents;
mod callers;
mod file;
mod fleet;
mod handle;
mod host_keys;
mod tokens;

use std::path::Path;
use std::sync::{Arc, Barrier};

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;

const NOW: i64 = 1_800_000_000;
const LATER: i64 = NOW + 900;

fn store() -> SqliteStore {
    SqliteStore::in_memory().unwrap()
}

fn names(list: &[&str]) -> Names {
    list.iter().map(ToString::to_string).collect()
}

fn map(list: &[(&str, &str)]) -> Labels {
    list.iter()
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .collect()
}

fn agent_token(secret: u8, site: &str, name: &str) -> NewToken {
    let grant = TokenGrant {
        kind: TokenKind::Agent,
        name: name.into(),
        site: Some(site.into()),
        labels: map(&[("tier", "edge")]),
        groups: Names::new(),
        hosts: Names::new(),
    };
    NewToken {
        secret_sha256: [secret; 32],
        grant,
        terms: Terms::Once,
        created: NOW,
        expires: LATER,
    }
}

fn user_token(secret: u8, name: &str, groups: &[&str]) -> NewToken {
    let mut token = agent_token(secret, "default", name);
    token.grant.kind = TokenKind::User;
    token.grant.site = None;
    token.grant.groups = names(groups);
    token
}

/// Enrols with an SPKI of the same byte as the secret.
fn enrol(store: &mut SqliteStore, secret: u8, site: &str, name: &str) -> AgentId {
    store.create_token(&agent_token(secret, site, name)).unwrap();
    store.redeem(&[secret; 32], &[secret; 32], NOW).unwrap();
    AgentId::new(site, name)
}

fn endpoint(host: &str, protocol: &str, port: u16) -> EndpointRow {
    EndpointRow {
        host: host.into(),
        protocol: protocol.into(),
        port,
        mode: Mode::Tunnel,
        pooling: false,
    }
}

fn add_user(store: &mut SqliteStore, name: &str) {
    let user = NewCaller {
        id: CallerName::user(name),
        site: None,
        groups: names(&["field"]),
        labels: Labels::new(),
        keys: Vec::new(),
        issuer: None,
        created: NOW,
    };
    store.add_caller(&user).unwrap();
}

fn key(fingerprint: &str, expires: Option<i64>) -> NewCallerKey {
    let public_key = "ssh-ed25519 AAAA test".into();
    NewCallerKey {
        fingerprint: fingerprint.into(),
        kind: KeyKind::Login,
        public_key,
        label: String::new(),
        spki: None,
        added: NOW,
        expires,
    }
}
