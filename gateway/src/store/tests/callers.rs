use super::*;

#[test]
fn a_name_is_given_once() {
    let mut store = store();
    add_user(&mut store, "alice");
    let user = store.caller(&CallerName::user("alice")).unwrap().unwrap();
    let again = NewCaller {
        id: CallerName::user("alice"),
        site: None,
        groups: Names::new(),
        labels: Labels::new(),
        keys: Vec::new(),
        issuer: None,
        created: NOW,
    };
    assert!(matches!(store.add_caller(&again), Err(StoreError::Conflict { .. })));
    assert_eq!(store.caller(&CallerName::user("alice")).unwrap().unwrap(), user);
    assert_eq!(store.callers(CallerKind::User, &SiteScope::Every).unwrap().len(), 1);
    assert!(
        store
            .callers(CallerKind::User, &SiteScope::One("plant-7".into()))
            .unwrap()
            .is_empty()
    );
}

#[test]
fn keys_are_bounded_and_expired_login_keys_make_room() {
    let mut store = store();
    add_user(&mut store, "alice");
    for number in 0..MAX_KEYS_PER_CALLER {
        store
            .add_caller_key(
                &CallerName::user("alice"),
                &key(&format!("SHA256:{number}"), Some(NOW + 10)),
            )
            .unwrap();
    }
    assert!(matches!(
        store.add_caller_key(&CallerName::user("alice"), &key("SHA256:x", None)),
        Err(StoreError::Limit { .. })
    ));
    store
        .add_caller_key(&CallerName::user("alice"), &key("SHA256:0", Some(LATER)))
        .unwrap();
    let mut later = key("SHA256:x", None);
    later.added = NOW + 10;
    store.add_caller_key(&CallerName::user("alice"), &later).unwrap();
    let left: Vec<_> = store
        .caller_keys(&CallerName::user("alice"))
        .unwrap()
        .into_iter()
        .map(|key| key.fingerprint)
        .collect();
    assert_eq!(left, ["SHA256:0", "SHA256:x"]);
    assert!(matches!(
        store.add_caller_key(&CallerName::user("nobody"), &later),
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
    let mut user = NewCaller {
        id: CallerName::user("alice"),
        site: None,
        groups: names(&["Field.ops_1"]),
        labels: Labels::new(),
        keys: vec![key("SHA256:a", None), key("", None)],
        issuer: None,
        created: NOW,
    };
    assert!(matches!(store.add_caller(&user), Err(StoreError::Invalid { .. })));
    assert!(store.caller(&CallerName::user("alice")).unwrap().is_none());
    user.keys.pop();
    store.add_caller(&user).unwrap();
    assert_eq!(store.caller_keys(&CallerName::user("alice")).unwrap().len(), 1);
    let bad = store.set_caller_groups(&CallerName::user("alice"), &names(&["field ops"]));
    assert!(matches!(bad, Err(StoreError::Invalid { .. })));
}

#[test]
fn users_and_workloads_share_neither_names_nor_rows() {
    let mut store = store();
    add_user(&mut store, "alice");
    let (user, workload) = (CallerName::user("alice"), CallerName::workload("alice"));
    let taken = |refused| matches!(refused, Err(StoreError::Conflict { .. }));
    let mut token = user_token(9, "alice", &[]);
    token.grant.kind = TokenKind::Workload;
    assert!(taken(store.create_token(&token)));
    let new = NewCaller {
        id: workload.clone(),
        site: None,
        groups: Names::new(),
        labels: Labels::new(),
        keys: Vec::new(),
        issuer: None,
        created: NOW,
    };
    assert!(taken(store.add_caller(&new)));
    // Nothing that is done to the one reaches the other.
    assert!(store.caller(&workload).unwrap().is_none());
    assert!(matches!(
        store.revoke_caller(&workload),
        Err(StoreError::NotFound { .. })
    ));
    assert!(matches!(
        store.delete_caller(&workload),
        Err(StoreError::NotFound { .. })
    ));
    assert!(!store.caller(&user).unwrap().unwrap().disabled);
    assert!(
        store
            .callers(CallerKind::Workload, &SiteScope::Every)
            .unwrap()
            .is_empty()
    );
    store.delete_caller(&user).unwrap();
    store.add_caller(&new).unwrap();
}

#[test]
fn one_issuer_and_uri_are_one_workload() {
    let mut store = store();
    let workload = |name: &str, uri: &str, digest: u8| NewCaller {
        id: CallerName::workload(name),
        site: None,
        groups: Names::new(),
        labels: Labels::new(),
        keys: Vec::new(),
        issuer: Some(Issuer {
            ca_pem: "PEM".into(),
            san_uri: uri.into(),
            digest: [digest; 32],
        }),
        created: NOW,
    };
    store
        .add_caller(&workload("etl", "spiffe://vendor.example/etl", 1))
        .unwrap();
    let again = store.add_caller(&workload("etl-2", "spiffe://vendor.example/etl", 1));
    assert!(matches!(again, Err(StoreError::Conflict { .. })), "{again:?}");
    store
        .add_caller(&workload("etl-2", "spiffe://vendor.example/etl", 2))
        .unwrap();
    let found = store.workloads_with_uri("spiffe://vendor.example/etl").unwrap();
    assert_eq!(found.len(), 2);
    assert!(
        store
            .workloads_with_uri("spiffe://vendor.example/other")
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_revoked_caller_keeps_the_name_and_loses_everything_that_earns_certificates() {
    let mut store = store();
    store.create_token(&user_token(1, "alice", &["field"])).unwrap();
    store.redeem(&[1; 32], &[1; 32], NOW).unwrap();
    let alice = CallerName::user("alice");
    let login = NewCallerKey {
        spki: Some([1; 32]),
        ..key("SHA256:a", Some(LATER))
    };
    store.add_caller_key(&alice, &login).unwrap();
    store.create_token(&user_token(2, "alice", &[])).unwrap();
    store.revoke_caller(&alice).unwrap();
    assert!(store.login_key_owner("SHA256:a", NOW).unwrap().is_none());
    store.set_caller_disabled(&alice, false).unwrap();
    assert!(store.caller_keys(&alice).unwrap().is_empty());
    // Neither the string that was spent by the same key nor the one that waits is good again.
    for (secret, spki) in [([1; 32], [1; 32]), ([2; 32], [1; 32])] {
        assert!(matches!(store.redeem(&secret, &spki, NOW), Err(RedeemError::Unknown)));
    }
}

#[test]
fn a_login_key_that_is_taken_away_does_not_come_back_by_its_join_string() {
    let mut store = store();
    store.create_token(&user_token(1, "alice", &[])).unwrap();
    store.redeem(&[1; 32], &[1; 32], NOW).unwrap();
    let alice = CallerName::user("alice");
    let login = NewCallerKey {
        spki: Some([1; 32]),
        ..key("SHA256:a", Some(LATER))
    };
    store.add_caller_key(&alice, &login).unwrap();
    assert!(store.remove_caller_key(&alice, "SHA256:a").unwrap());
    assert!(matches!(
        store.redeem(&[1; 32], &[1; 32], NOW),
        Err(RedeemError::Unknown)
    ));
    assert!(!store.remove_caller_key(&alice, "SHA256:a").unwrap());
}

#[test]
fn a_revoked_agent_stays_known_and_cannot_enrol() {
    let mut store = store();
    let id = enrol(&mut store, 1, "plant-7", "pump-7");
    store.revoke_agent(&id).unwrap();
    assert!(store.agent(&id).unwrap().unwrap().disabled);
    assert!(store.redeem(&[1; 32], &[1; 32], NOW).is_err());
    let again = store.create_token(&agent_token(2, "plant-7", "pump-7"));
    assert!(matches!(again, Err(StoreError::Conflict { .. })));
    let mut replacing = agent_token(3, "plant-7", "pump-7");
    replacing.terms = Terms::Replace;
    store.create_token(&replacing).unwrap();
    // Only another key than the revoked one brings it back.
    assert!(store.redeem(&[3; 32], &[1; 32], NOW).is_err());
    store.redeem(&[3; 32], &[9; 32], NOW).unwrap();
    let row = store.agent(&id).unwrap().unwrap();
    assert_eq!((row.disabled, row.spki), (false, Some([9; 32])));
}

#[test]
fn keys_are_found_by_the_beginning_of_their_fingerprint() {
    let mut store = store();
    add_user(&mut store, "alice");
    add_user(&mut store, "bob");
    for (user, fingerprint) in [("alice", "SHA256:abc"), ("alice", "SHA256:aBc"), ("bob", "SHA256:ab%")] {
        store
            .add_caller_key(&CallerName::user(user), &key(fingerprint, None))
            .unwrap();
    }
    let found = |prefix: &str| store.keys_from(prefix, 10).unwrap().len();
    assert_eq!(found("SHA256:ab"), 2);
    assert_eq!(found("SHA256:aB"), 1);
    assert_eq!(found("SHA256:ab%"), 1);
    assert_eq!(found("SHA256:_"), 0);
}
