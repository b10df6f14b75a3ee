use super::*;

fn fleet(secret: u8, pattern: &str, uses: u32, approval: bool) -> NewToken {
    let mut token = agent_token(secret, "plant-7", pattern);
    token.terms = Terms::Fleet { uses, approval };
    token
}

fn claim(store: &mut SqliteStore, secret: u8, key: u8, name: &str, now: i64) -> Result<Redeemed, RedeemError> {
    let proposal = Proposal {
        name: name.into(),
        reported: map(&[("os", "linux")]),
    };
    let claim = Claim {
        secret_sha256: &[secret; 32],
        spki: &[key; 32],
        proposal: &proposal,
    };
    store.redeem_as(&claim, now)
}

fn pump(number: u8) -> AgentId {
    AgentId::new("plant-7", format!("pump-{number}"))
}

fn certify(store: &mut SqliteStore, id: &AgentId, key: u8, not_after: i64) -> Result<(), StoreError> {
    let record = CertificateRecord {
        issuer: 1,
        serial: "ab".into(),
        spki: [key; 32],
        not_after,
    };
    store.record_certificate(&Holder::Agent(id.clone()), &record, NOW)
}

#[test]
fn each_key_counts_once_and_no_more_than_the_string_has_uses() {
    let mut store = store();
    store.create_token(&fleet(1, "pump-*", 2, false)).unwrap();
    for key in [1, 2] {
        for repeated in [false, true] {
            let redeemed = claim(&mut store, 1, key, &format!("pump-{key}"), NOW).unwrap();
            assert_eq!((redeemed.repeated, redeemed.pending), (repeated, false));
        }
    }
    assert!(matches!(
        claim(&mut store, 1, 3, "pump-3", NOW),
        Err(RedeemError::UsedUp { uses: 2 })
    ));
    assert_eq!(store.agents(&SiteScope::Every).unwrap().len(), 2);
}

#[test]
fn a_use_that_comes_to_nothing_is_none() {
    let mut store = store();
    store.create_token(&fleet(1, "pump-*", 1, false)).unwrap();
    enrol(&mut store, 9, "plant-7", "pump-9");
    store.bind_host(&AgentId::new("plant-7", "pump-9"), "pump-hmi").unwrap();
    for name in ["", "valve-1", "Pump-1", "pump-", "pump--1"] {
        assert!(
            matches!(claim(&mut store, 1, 1, name, NOW), Err(RedeemError::BadName { .. })),
            "{name}"
        );
    }
    for name in ["pump-9", "pump-hmi"] {
        assert!(
            matches!(claim(&mut store, 1, 1, name, NOW), Err(RedeemError::Conflict { .. })),
            "{name}"
        );
    }
    claim(&mut store, 1, 1, "pump-1", NOW).unwrap();
}

#[test]
fn the_first_key_holds_the_name_until_it_is_approved_and_gets_nothing_before() {
    let mut store = store();
    store.create_token(&fleet(1, "pump-*", 5, true)).unwrap();
    let held = claim(&mut store, 1, 1, "pump-1", NOW).unwrap();
    assert!(held.pending && !held.repeated);
    let second = claim(&mut store, 1, 2, "pump-1", NOW).unwrap_err().to_string();
    assert!(second.contains("held by another key"), "{second}");
    assert!(
        certify(&mut store, &pump(1), 1, LATER).is_err(),
        "no certificate before approval"
    );
    let row = store.agent(&pump(1)).unwrap().unwrap();
    assert!(row.pending && row.reported == map(&[("os", "linux")]) && row.labels == map(&[("tier", "edge")]));

    store.approve_agents(&[pump(1)]).unwrap();
    store.approve_agents(&[pump(1)]).unwrap();
    // The string has ended meanwhile; what was held is still there, also after a lost answer.
    let late = LATER + 5 * 86_400;
    for _ in 0..2 {
        let collected = claim(&mut store, 1, 1, "pump-1", late).unwrap();
        assert!(collected.repeated && !collected.pending);
        certify(&mut store, &pump(1), 1, late + 100).unwrap();
    }
    assert!(matches!(
        claim(&mut store, 1, 3, "pump-3", late),
        Err(RedeemError::Expired)
    ));
    assert!(
        matches!(claim(&mut store, 1, 1, "pump-1", late + 100), Err(RedeemError::Expired)),
        "the string is no way round the end of a certificate"
    );
}

#[test]
fn a_string_with_devices_that_wait_outlives_its_end_and_others_do_not() {
    let mut store = store();
    store.create_token(&fleet(1, "pump-*", 5, true)).unwrap();
    store.create_token(&fleet(2, "valve-*", 5, true)).unwrap();
    claim(&mut store, 1, 1, "pump-1", NOW).unwrap();
    let mut other = agent_token(3, "plant-7", "hmi");
    other.created = LATER + 90_000;
    other.expires = other.created + 900;
    store.create_token(&other).unwrap();
    assert!(claim(&mut store, 1, 1, "pump-1", LATER + 90_000).unwrap().pending);
    assert!(matches!(
        claim(&mut store, 2, 2, "valve-1", LATER + 90_000),
        Err(RedeemError::Unknown)
    ));
}

#[test]
fn a_rejected_key_stays_rejected_and_the_name_is_free() {
    let mut store = store();
    store.create_token(&fleet(1, "pump-*", 5, true)).unwrap();
    claim(&mut store, 1, 1, "pump-1", NOW).unwrap();
    store.delete_agent(&pump(1)).unwrap();
    for name in ["pump-1", "pump-2"] {
        assert!(
            matches!(claim(&mut store, 1, 1, name, NOW), Err(RedeemError::Rejected { .. })),
            "{name}"
        );
    }
    assert!(claim(&mut store, 1, 2, "pump-1", NOW).unwrap().pending);
    assert!(matches!(
        claim(&mut store, 1, 1, "pump-1", NOW),
        Err(RedeemError::Rejected { .. })
    ));
}

#[test]
fn a_key_has_one_name() {
    let mut store = store();
    store.create_token(&fleet(1, "pump-*", 5, false)).unwrap();
    store.create_token(&fleet(2, "*", 5, false)).unwrap();
    claim(&mut store, 1, 1, "pump-1", NOW).unwrap();
    let text = claim(&mut store, 1, 1, "pump-2", NOW).unwrap_err().to_string();
    assert!(text.contains("holds the name pump-1"), "{text}");
    let text = claim(&mut store, 2, 1, "valve-1", NOW).unwrap_err().to_string();
    assert!(text.contains("already agent pump-1.plant-7"), "{text}");
}

#[test]
fn imported_names_need_no_approval_and_keep_their_labels() {
    let mut store = store();
    let agent = |number: u8| NewAgent {
        id: pump(number),
        labels: map(&[("tier", "core"), ("row", "3")]),
    };
    store.import_agents(&[agent(1), agent(2)]).unwrap();
    assert!(matches!(
        store.import_agents(&[agent(3), agent(2)]),
        Err(StoreError::Conflict { .. })
    ));
    assert!(store.agent(&pump(3)).unwrap().is_none(), "all of them or none");
    store.create_token(&fleet(1, "pump-*", 5, true)).unwrap();
    let redeemed = claim(&mut store, 1, 1, "pump-1", NOW).unwrap();
    assert!(!redeemed.pending);
    assert_eq!(redeemed.labels, map(&[("tier", "core"), ("row", "3")]));
    assert!(claim(&mut store, 1, 4, "pump-4", NOW).unwrap().pending);
    let listed: Vec<_> = store
        .agents(&SiteScope::Every)
        .unwrap()
        .into_iter()
        .map(|row| row.id)
        .collect();
    assert_eq!(listed, [pump(4), pump(1), pump(2)], "those that wait come first");

    store.create_token(&agent_token(2, "plant-7", "pump-2")).unwrap();
    let labels = store.redeem(&[2; 32], &[2; 32], NOW).unwrap().labels;
    assert_eq!(
        labels,
        map(&[("tier", "edge"), ("row", "3")]),
        "a string of its own says more"
    );
}

#[test]
fn a_new_key_takes_the_old_ones_place_and_everything_else_stays() {
    let mut store = store();
    let mut token = agent_token(1, "plant-7", "pump-1");
    token.grant.hosts = names(&["hmi"]);
    store.create_token(&token).unwrap();
    store.redeem(&[1; 32], &[1; 32], NOW).unwrap();
    certify(&mut store, &pump(1), 1, LATER).unwrap();

    let mut replace = agent_token(2, "plant-7", "pump-1");
    replace.terms = Terms::Replace;
    replace.grant.labels = Labels::new();
    store.create_token(&replace).unwrap();
    let redeemed = store.redeem(&[2; 32], &[2; 32], NOW).unwrap();
    assert!(redeemed.replaced && !redeemed.repeated);
    assert_eq!(
        (redeemed.labels, redeemed.hosts),
        (map(&[("tier", "edge")]), names(&["hmi"]))
    );
    let row = store.agent(&pump(1)).unwrap().unwrap();
    assert_eq!((row.spki, row.serial, row.not_after), (Some([2; 32]), None, None));
    assert!(
        certify(&mut store, &pump(1), 1, LATER).is_err(),
        "the old key is worth nothing"
    );
    assert!(store.agent_with_key(&[1; 32]).unwrap().is_none());
    assert!(
        store.redeem(&[1; 32], &[1; 32], NOW).is_err(),
        "nor is the string that brought it"
    );
    let again = store.redeem(&[2; 32], &[2; 32], NOW).unwrap();
    assert!(again.repeated && !again.replaced);
    assert!(matches!(store.redeem(&[2; 32], &[3; 32], NOW), Err(RedeemError::Spent)));
}

#[test]
fn only_a_key_that_stands_can_be_replaced() {
    let mut store = store();
    let mut replace = agent_token(1, "plant-7", "pump-1");
    replace.terms = Terms::Replace;
    let text = store.create_token(&replace).unwrap_err().to_string();
    assert!(text.contains("leave --replace out"), "{text}");
    let id = enrol(&mut store, 2, "plant-7", "pump-1");
    store.create_token(&replace).unwrap();
    store.delete_agent(&id).unwrap();
    assert!(matches!(
        store.redeem(&[1; 32], &[1; 32], NOW),
        Err(RedeemError::Unknown)
    ));
}

#[test]
fn malformed_fleets_are_refused() {
    let mut store = store();
    for (pattern, uses) in [("pump-1", 1), ("", 1), ("Pump*", 1), ("pump-*", 0), ("pump-*", 100_001)] {
        let refused = store.create_token(&fleet(1, pattern, uses, true));
        assert!(matches!(refused, Err(StoreError::Invalid { .. })), "{pattern} {uses}");
    }
    let mut pooled = fleet(1, "pump-*", 257, true);
    pooled.grant.hosts = names(&["hmi"]);
    assert!(matches!(store.create_token(&pooled), Err(StoreError::Limit { .. })));
}

#[test]
fn fifty_connections_share_ten_uses() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("state.db");
    SqliteStore::open(&path)
        .unwrap()
        .create_token(&fleet(1, "pump-*", 10, false))
        .unwrap();
    let start = Barrier::new(50);
    let won: usize = std::thread::scope(|scope| {
        let racer = |racer: u8| {
            let (path, start) = (&path, &start);
            scope.spawn(move || {
                let mut store = SqliteStore::open(path).unwrap();
                start.wait();
                // Two keys for each name.
                let claimed = claim(&mut store, 1, racer, &format!("pump-{}", racer / 2), NOW);
                usize::from(claimed.is_ok())
            })
        };
        let racers: Vec<_> = (0..50).map(racer).collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).sum()
    });
    assert_eq!(won, 10);
    let rows = SqliteStore::open(&path).unwrap().agents(&SiteScope::Every).unwrap();
    assert_eq!(rows.len(), 10);
}

#[test]
fn everything_follows_a_new_name_and_the_old_one_stays_a_host() {
    let mut store = store();
    store.create_token(&fleet(1, "pump-*", 5, false)).unwrap();
    claim(&mut store, 1, 1, "pump-1", NOW).unwrap();
    certify(&mut store, &pump(1), 1, LATER).unwrap();
    store.bind_host(&pump(1), "hmi").unwrap();
    let endpoints = [endpoint("pump-1", "ssh", 22), endpoint("hmi", "tcp", 80)];
    store.replace_endpoints(&pump(1), &endpoints, NOW).unwrap();
    enrol(&mut store, 9, "plant-7", "pump-9");
    for taken in ["pump-9", "Pump", ""] {
        assert!(store.rename_agent(&pump(1), taken).is_err(), "{taken}");
    }
    store.rename_agent(&pump(1), "pump-2").unwrap();
    assert!(store.agent(&pump(1)).unwrap().is_none());
    let row = store.agent(&pump(2)).unwrap().unwrap();
    assert_eq!((row.spki, row.serial.as_deref()), (Some([1; 32]), Some("ab")));
    assert_eq!(store.hosts_of(&pump(2)).unwrap(), names(&["hmi", "pump-1"]));
    let owner = store.endpoint_owner("plant-7", "pump-1", 22).unwrap();
    assert_eq!(owner[0].agent, pump(2));
    assert_eq!(claim(&mut store, 1, 1, "", NOW).unwrap().name, "pump-2");

    store.rename_agent(&pump(2), "pump-1").unwrap();
    assert_eq!(store.hosts_of(&pump(1)).unwrap(), names(&["hmi", "pump-2"]));
    assert!(matches!(
        store.rename_agent(&pump(7), "pump-8"),
        Err(StoreError::NotFound { .. })
    ));
}
