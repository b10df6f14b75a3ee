use super::*;
use crate::store::{Labels, Names, NewCaller, NewCallerKey, SqliteStore};

const NOW: i64 = 1_800_000_000;
const LATER: i64 = NOW + 900;

fn add(store: &mut SqliteStore, id: CallerName, keys: &[(&str, KeyKind)]) {
    let key = |(fingerprint, kind): &(&str, KeyKind)| NewCallerKey {
        fingerprint: (*fingerprint).into(),
        kind: *kind,
        public_key: "ssh-ed25519 AAAA".into(),
        label: String::new(),
        spki: (*kind == KeyKind::Login).then_some([7; 32]),
        added: NOW,
        expires: Some(LATER),
    };
    let new = NewCaller {
        id,
        site: None,
        groups: Names::new(),
        labels: Labels::new(),
        keys: keys.iter().map(key).collect(),
        issuer: None,
        created: NOW,
    };
    store.add_caller(&new).unwrap();
}

fn lets_in(store: &mut SqliteStore, kind: CallerKind, name: &str, by: &Credential, now: i64) -> bool {
    let name = name.parse().unwrap();
    caller(store, &CallerId { kind, name }, by, now).unwrap().is_some()
}

fn by_key(fingerprint: &str) -> Credential {
    Credential::Key {
        fingerprint: fingerprint.into(),
    }
}

fn by_certificate(fingerprint: &str) -> Credential {
    Credential::Certificate {
        fingerprint: fingerprint.into(),
    }
}

#[test]
fn a_key_lets_its_own_user_in_until_it_expires_is_taken_away_or_the_user_is_disabled() {
    let mut store = SqliteStore::in_memory().unwrap();
    let alice = CallerName::user("alice");
    add(&mut store, alice.clone(), &[("SHA256:a", KeyKind::Registered)]);
    add(&mut store, CallerName::user("bob"), &[]);
    let a = by_key("SHA256:a");
    let asked = |store: &mut SqliteStore, name: &str, now| lets_in(store, CallerKind::User, name, &a, now);
    assert!(asked(&mut store, "alice", NOW));
    assert!(!asked(&mut store, "bob", NOW));
    assert!(!asked(&mut store, "carol", NOW));
    assert!(!asked(&mut store, "alice", LATER));
    store.set_caller_disabled(&alice, true).unwrap();
    assert!(!asked(&mut store, "alice", NOW));
    store.set_caller_disabled(&alice, false).unwrap();
    assert!(store.remove_caller_key(&alice, "SHA256:a").unwrap());
    assert!(!asked(&mut store, "alice", NOW));
}

#[test]
fn a_login_key_lets_in_under_a_certificate_only_and_takes_its_certificates_with_it() {
    let mut store = SqliteStore::in_memory().unwrap();
    let alice = CallerName::user("alice");
    add(&mut store, alice.clone(), &[("SHA256:a", KeyKind::Login)]);
    let user = CallerKind::User;
    assert!(!lets_in(&mut store, user, "alice", &by_key("SHA256:a"), NOW));
    let a = by_certificate("SHA256:a");
    assert!(lets_in(&mut store, user, "alice", &a, NOW));
    assert!(!lets_in(&mut store, user, "alice", &a, LATER));
    assert!(!lets_in(&mut store, user, "alice", &by_certificate("SHA256:b"), NOW));
    store.remove_caller_key(&alice, "SHA256:a").unwrap();
    assert!(!lets_in(&mut store, user, "alice", &a, NOW));
}

#[test]
fn a_workloads_certificate_is_no_users() {
    let mut store = SqliteStore::in_memory().unwrap();
    add(&mut store, CallerName::workload("etl"), &[("SHA256:a", KeyKind::Login)]);
    let a = by_certificate("SHA256:a");
    assert!(lets_in(&mut store, CallerKind::Workload, "etl", &a, NOW));
    assert!(!lets_in(&mut store, CallerKind::User, "etl", &a, NOW));
    assert!(!lets_in(&mut store, CallerKind::Unidentified, "etl", &a, NOW));
}
