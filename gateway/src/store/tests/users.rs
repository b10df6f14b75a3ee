use super::*;

#[test]
fn a_key_matches_its_own_user_until_it_expires_or_the_user_is_disabled() {
    let mut store = store();
    add_user(&mut store, "alice");
    add_user(&mut store, "bob");
    let registered = NewUserKey {
        kind: KeyKind::Registered,
        ..key("SHA256:a", Some(LATER))
    };
    store.add_user_key("alice", &registered).unwrap();
    let matches =
        |store: &SqliteStore, user: &str, now| store.user_key_matches(user, "SHA256:a", now).unwrap().is_some();
    assert!(matches(&store, "alice", NOW));
    assert!(!matches(&store, "bob", NOW));
    assert!(!matches(&store, "carol", NOW));
    assert!(!matches(&store, "alice", LATER));
    store.set_user_disabled("alice", true).unwrap();
    assert!(!matches(&store, "alice", NOW));
    store.set_user_disabled("alice", false).unwrap();
    assert!(store.remove_user_key("alice", "SHA256:a").unwrap());
    assert!(!matches(&store, "alice", NOW));
}

#[test]
fn a_login_key_alone_lets_nobody_in() {
    let mut store = store();
    add_user(&mut store, "alice");
    store.add_user_key("alice", &key("SHA256:a", Some(LATER))).unwrap();
    assert!(store.user_key_matches("alice", "SHA256:a", NOW).unwrap().is_none());
}

#[test]
fn a_name_is_given_once() {
    let mut store = store();
    add_user(&mut store, "alice");
    let user = store.user("alice").unwrap().unwrap();
    let again = NewUser {
        name: "alice".into(),
        site: None,
        groups: Names::new(),
        labels: Labels::new(),
        keys: Vec::new(),
        created: NOW,
    };
    assert!(matches!(store.add_user(&again), Err(StoreError::Conflict { .. })));
    assert_eq!(store.user("alice").unwrap().unwrap(), user);
    assert_eq!(store.users(&SiteScope::Every).unwrap().len(), 1);
    assert!(store.users(&SiteScope::One("plant-7".into())).unwrap().is_empty());
}

#[test]
fn keys_are_bounded_and_expired_login_keys_make_room() {
    let mut store = store();
    add_user(&mut store, "alice");
    for number in 0..MAX_KEYS_PER_USER {
        store
            .add_user_key("alice", &key(&format!("SHA256:{number}"), Some(NOW + 10)))
            .unwrap();
    }
    assert!(matches!(
        store.add_user_key("alice", &key("SHA256:x", None)),
        Err(StoreError::Limit { .. })
    ));
    store.add_user_key("alice", &key("SHA256:0", Some(LATER))).unwrap();
    let mut later = key("SHA256:x", None);
    later.added = NOW + 10;
    store.add_user_key("alice", &later).unwrap();
    let left: Vec<_> = store
        .user_keys("alice")
        .unwrap()
        .into_iter()
        .map(|key| key.fingerprint)
        .collect();
    assert_eq!(left, ["SHA256:0", "SHA256:x"]);
    assert!(matches!(
        store.add_user_key("nobody", &later),
        Err(StoreError::NotFound { .. })
    ));
}

#[test]
fn meta_remembers() {
    let mut store = store();
    assert_eq!(store.meta("digest").unwrap(), None);
    store.set_meta("digest", "a").unwrap();
    store.set_meta("digest", "b").unwrap();
    assert_eq!(store.meta("digest").unwrap().as_deref(), Some("b"));
    assert!(store.set_meta("", "b").is_err());
}

#[test]
fn a_user_is_added_with_all_keys_or_not_at_all() {
    let mut store = store();
    let mut user = NewUser {
        name: "alice".into(),
        site: None,
        groups: names(&["Field.ops_1"]),
        labels: Labels::new(),
        keys: vec![key("SHA256:a", None), key("", None)],
        created: NOW,
    };
    assert!(matches!(store.add_user(&user), Err(StoreError::Invalid { .. })));
    assert!(store.user("alice").unwrap().is_none());
    user.keys.pop();
    store.add_user(&user).unwrap();
    assert_eq!(store.user_keys("alice").unwrap().len(), 1);
    let bad = store.set_user_groups("alice", &names(&["field ops"]));
    assert!(matches!(bad, Err(StoreError::Invalid { .. })));
}
