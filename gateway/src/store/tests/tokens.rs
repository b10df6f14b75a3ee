use super::*;

#[test]
fn a_join_string_writes_the_agent_it_is_for() {
    let mut store = store();
    let mut token = agent_token(1, "plant-7", "pump-7");
    token.grant.hosts = names(&["billing"]);
    store.create_token(&token).unwrap();
    assert!(
        store.agent(&AgentId::new("plant-7", "pump-7")).unwrap().is_none(),
        "a string alone makes no agent"
    );

    let redeemed = store.redeem(&[1; 32], &[9; 32], NOW).unwrap();
    assert_eq!(
        (redeemed.name.as_str(), redeemed.site.as_deref()),
        ("pump-7", Some("plant-7"))
    );
    assert_eq!(redeemed.hosts, names(&["billing"]));
    assert!(!redeemed.repeated);

    let row = store.agent(&AgentId::new("plant-7", "pump-7")).unwrap().unwrap();
    assert_eq!(row.labels, map(&[("tier", "edge")]));
    assert_eq!((row.spki, row.enrolled_at), (Some([9; 32]), Some(NOW)));
}

#[test]
fn the_same_key_may_repeat_and_undoes_no_later_change() {
    let mut store = store();
    let id = enrol(&mut store, 1, "plant-7", "pump-7");
    store.set_agent_labels(&id, &map(&[("tier", "core")])).unwrap();
    let again = store.redeem(&[1; 32], &[1; 32], NOW + 5).unwrap();
    assert!(again.repeated);
    assert_eq!(again.labels, map(&[("tier", "core")]));
}

#[test]
fn another_key_is_told_spent() {
    let mut store = store();
    enrol(&mut store, 1, "plant-7", "pump-7");
    assert!(matches!(store.redeem(&[1; 32], &[2; 32], NOW), Err(RedeemError::Spent)));
}

#[test]
fn life_ends_at_the_second_for_the_winner_too() {
    let mut store = store();
    store.create_token(&agent_token(1, "plant-7", "pump-7")).unwrap();
    assert!(matches!(
        store.redeem(&[1; 32], &[1; 32], LATER),
        Err(RedeemError::Expired)
    ));
    store.redeem(&[1; 32], &[1; 32], LATER - 1).unwrap();
    assert!(matches!(
        store.redeem(&[1; 32], &[1; 32], LATER),
        Err(RedeemError::Expired)
    ));
}

#[test]
fn a_string_nobody_made_is_unknown() {
    assert!(matches!(
        store().redeem(&[1; 32], &[1; 32], NOW),
        Err(RedeemError::Unknown)
    ));
}

#[test]
fn an_enrolled_agent_gets_no_second_string() {
    let mut store = store();
    enrol(&mut store, 1, "plant-7", "pump-7");
    let text = store
        .create_token(&agent_token(2, "plant-7", "pump-7"))
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("already enrolled") && text.contains("fairlead agents delete pump-7.plant-7"),
        "{text}"
    );
    store.create_token(&agent_token(3, "plant-8", "pump-7")).unwrap();
}

#[test]
fn of_two_waiting_strings_for_one_agent_the_second_is_not_spent() {
    let mut store = store();
    store.create_token(&agent_token(1, "plant-7", "pump-7")).unwrap();
    store.create_token(&agent_token(2, "plant-7", "pump-7")).unwrap();
    store.redeem(&[1; 32], &[1; 32], NOW).unwrap();
    for _ in 0..2 {
        assert!(matches!(
            store.redeem(&[2; 32], &[2; 32], NOW),
            Err(RedeemError::Conflict { .. })
        ));
    }
    let id = AgentId::new("plant-7", "pump-7");
    assert_eq!(store.agent(&id).unwrap().unwrap().spki, Some([1; 32]));
}

#[test]
fn a_failure_after_the_mark_leaves_the_string_unspent() {
    let mut store = store();
    let mut token = agent_token(1, "plant-7", "pump-7");
    token.grant.hosts = names(&["pump-8"]);
    store.create_token(&token).unwrap();
    let other = enrol(&mut store, 2, "plant-7", "pump-8");
    assert!(matches!(
        store.redeem(&[1; 32], &[1; 32], NOW),
        Err(RedeemError::Conflict { .. })
    ));
    assert!(store.agent(&AgentId::new("plant-7", "pump-7")).unwrap().is_none());
    store.delete_agent(&other).unwrap();
    assert!(!store.redeem(&[1; 32], &[5; 32], NOW).unwrap().repeated);
}

#[test]
fn deleting_an_agent_ends_its_strings_and_frees_its_name() {
    let mut store = store();
    let id = enrol(&mut store, 1, "plant-7", "pump-7");
    store.delete_agent(&id).unwrap();
    assert!(matches!(
        store.redeem(&[1; 32], &[1; 32], NOW),
        Err(RedeemError::Unknown)
    ));
    enrol(&mut store, 2, "plant-7", "pump-7");
}

#[test]
fn a_disabled_agent_or_user_cannot_come_back_by_a_string() {
    let mut store = store();
    let id = enrol(&mut store, 1, "plant-7", "pump-7");
    store.set_agent_disabled(&id, true).unwrap();
    assert!(matches!(
        store.redeem(&[1; 32], &[1; 32], NOW),
        Err(RedeemError::Conflict { .. })
    ));

    add_user(&mut store, "alice");
    store.create_token(&user_token(2, "alice", &[])).unwrap();
    store.set_caller_disabled(&CallerName::user("alice"), true).unwrap();
    assert!(matches!(
        store.redeem(&[2; 32], &[2; 32], NOW),
        Err(RedeemError::Conflict { .. })
    ));
    assert!(matches!(
        store.create_token(&user_token(3, "alice", &[])),
        Err(StoreError::Conflict { .. })
    ));
}

#[test]
fn a_user_string_makes_the_user_or_adds_groups() {
    let mut store = store();
    store.create_token(&user_token(1, "alice", &["field"])).unwrap();
    store.create_token(&user_token(2, "alice", &["night"])).unwrap();
    assert_eq!(store.redeem(&[1; 32], &[1; 32], NOW).unwrap().groups, names(&["field"]));
    assert_eq!(
        store.redeem(&[2; 32], &[2; 32], NOW).unwrap().groups,
        names(&["field", "night"])
    );
    store
        .set_caller_groups(&CallerName::user("alice"), &Names::new())
        .unwrap();
    assert!(
        store.redeem(&[2; 32], &[2; 32], NOW).unwrap().groups.is_empty(),
        "a retry brings no group back"
    );
}

#[test]
fn a_user_does_not_change_sites() {
    let mut store = store();
    add_user(&mut store, "alice");
    let mut token = user_token(1, "alice", &[]);
    token.grant.site = Some("plant-7".into());
    assert!(matches!(store.create_token(&token), Err(StoreError::Conflict { .. })));
}

#[test]
fn malformed_grants_are_refused() {
    let mut store = store();
    let breakages: [fn(&mut NewToken); 9] = [
        |t| t.grant.name = String::new(),
        |t| t.grant.name = "Pump".into(),
        |t| t.grant.name = "a--b".into(),
        |t| t.grant.name = "x".repeat(31),
        |t| t.grant.site = None,
        |t| t.grant.site = Some("internal".into()),
        |t| t.expires = t.created,
        |t| t.grant.groups = names(&["field"]),
        |t| t.grant.labels = map(&[("a", "b\nc")]),
    ];
    for (index, break_it) in breakages.iter().enumerate() {
        let mut token = agent_token(1, "plant-7", "pump-7");
        break_it(&mut token);
        assert!(
            matches!(store.create_token(&token), Err(StoreError::Invalid { .. })),
            "breakage {index}"
        );
    }
}

#[test]
fn long_expired_strings_are_swept() {
    let mut store = store();
    store.create_token(&agent_token(1, "plant-7", "pump-7")).unwrap();
    let mut token = agent_token(2, "plant-7", "pump-8");
    token.created = LATER + 90_000;
    token.expires = token.created + 900;
    store.create_token(&token).unwrap();
    assert!(matches!(
        store.redeem(&[1; 32], &[1; 32], LATER + 90_000),
        Err(RedeemError::Unknown)
    ));
}

#[test]
fn fifty_threads_with_fifty_connections_have_one_winner() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("state.db");
    SqliteStore::open(&path)
        .unwrap()
        .create_token(&agent_token(1, "plant-7", "pump-7"))
        .unwrap();
    let start = Arc::new(Barrier::new(50));
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let racer = |racer: u8| {
            let (path, start) = (path.clone(), Arc::clone(&start));
            scope.spawn(move || {
                let mut store = SqliteStore::open(&path).unwrap();
                start.wait();
                store.redeem(&[1; 32], &[racer; 32], NOW)
            })
        };
        let racers: Vec<_> = (0..50).map(racer).collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).collect()
    });
    let winner = outcomes.iter().position(Result::is_ok).expect("somebody wins");
    for (racer, outcome) in outcomes.iter().enumerate() {
        assert!(
            racer == winner || matches!(outcome, Err(RedeemError::Spent)),
            "{racer}: {outcome:?}"
        );
    }
    let row = SqliteStore::open(&path)
        .unwrap()
        .agent(&AgentId::new("plant-7", "pump-7"))
        .unwrap()
        .unwrap();
    assert_eq!(row.spki, Some([winner as u8; 32]));
}
