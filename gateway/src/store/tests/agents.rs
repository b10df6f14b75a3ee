use super::*;

#[test]
fn sites_do_not_see_each_other() {
    let mut store = store();
    let here = enrol(&mut store, 1, "plant-7", "pump");
    let there = enrol(&mut store, 2, "plant-8", "pump");
    store.bind_host(&here, "billing").unwrap();
    store
        .replace_endpoints(
            &here,
            &[endpoint("pump", "ssh", 22), endpoint("billing", "postgres", 5432)],
            NOW,
        )
        .unwrap();

    assert_eq!(store.agents(&SiteScope::One("plant-8".into())).unwrap().len(), 1);
    assert_eq!(store.agents(&SiteScope::Every).unwrap().len(), 2);
    assert!(store.hosts(&SiteScope::One("plant-8".into())).unwrap().is_empty());
    assert!(store.endpoint_owner("plant-8", "pump", 22).unwrap().is_empty());
    assert!(store.endpoint_owner("plant-8", "billing", 5432).unwrap().is_empty());

    store.set_agent_labels(&there, &map(&[("tier", "core")])).unwrap();
    assert_eq!(store.agent(&here).unwrap().unwrap().labels, map(&[("tier", "edge")]));
    store.delete_agent(&there).unwrap();
    assert!(store.agent(&here).unwrap().is_some());
    assert_eq!(store.endpoint_owner("plant-7", "pump", 22).unwrap().len(), 1);
}

#[test]
fn touch_keeps_what_was_heard_and_knows_no_strangers() {
    let mut store = store();
    let id = enrol(&mut store, 1, "plant-7", "pump");
    store.touch(&id, &map(&[("os", "debian")]), NOW + 7).unwrap();
    let row = store.agent(&id).unwrap().unwrap();
    assert_eq!((row.last_seen, row.reported), (Some(NOW + 7), map(&[("os", "debian")])));
    let stranger = AgentId::new("plant-8", "pump");
    assert!(matches!(
        store.touch(&stranger, &Labels::new(), NOW),
        Err(StoreError::NotFound { .. })
    ));
    let long = map(&[("os", &"x".repeat(300))]);
    assert!(matches!(store.touch(&id, &long, NOW), Err(StoreError::Invalid { .. })));
}

#[test]
fn a_certificate_for_another_key_is_not_recorded() {
    let mut store = store();
    let id = enrol(&mut store, 1, "plant-7", "pump");
    let mut record = CertificateRecord {
        issuer: 1,
        serial: "0a1b".into(),
        spki: [1; 32],
        not_after: NOW + 1000,
    };
    store
        .record_certificate(&Holder::Agent(id.clone()), &record, NOW)
        .unwrap();
    let row = store.agent(&id).unwrap().unwrap();
    assert_eq!((row.serial.as_deref(), row.not_after), (Some("0a1b"), Some(NOW + 1000)));
    record.spki = [2; 32];
    let refused = store.record_certificate(&Holder::Agent(id), &record, NOW);
    assert!(matches!(refused, Err(StoreError::Conflict { .. })));
    let nobody = store.record_certificate(&Holder::Caller(CallerName::user("bob")), &record, NOW);
    assert!(matches!(nobody, Err(StoreError::NotFound { .. })));
}

#[test]
fn an_agents_name_stays_its_own() {
    let mut store = store();
    let pump = enrol(&mut store, 1, "plant-7", "pump");
    let valve = enrol(&mut store, 2, "plant-7", "valve");
    assert!(matches!(
        store.bind_host(&valve, "pump"),
        Err(StoreError::Conflict { .. })
    ));
    store.bind_host(&pump, "pump").unwrap();
    store.bind_host(&valve, "billing").unwrap();
    store.bind_host(&valve, "billing").unwrap();
    let taken = store.create_token(&agent_token(3, "plant-7", "billing"));
    assert!(matches!(taken, Err(StoreError::Conflict { .. })));
    let mut hosted = agent_token(4, "plant-7", "meter");
    hosted.grant.hosts = names(&["pump"]);
    assert!(matches!(store.create_token(&hosted), Err(StoreError::Conflict { .. })));
    let stranger = AgentId::new("plant-8", "pump");
    assert!(matches!(
        store.bind_host(&stranger, "billing"),
        Err(StoreError::NotFound { .. })
    ));
}

#[test]
fn an_endpoint_is_found_only_where_its_host_belongs_to_the_agent() {
    let mut store = store();
    let pump = enrol(&mut store, 1, "plant-7", "pump");
    let valve = enrol(&mut store, 2, "plant-7", "valve");
    let offers = [
        endpoint("valve", "ssh", 22),
        endpoint("pump", "ssh", 22),
        endpoint("billing", "postgres", 5432),
    ];
    store.replace_endpoints(&pump, &offers, NOW).unwrap();
    assert!(
        store.endpoint_owner("plant-7", "valve", 22).unwrap().is_empty(),
        "another agent's name"
    );
    assert!(
        store.endpoint_owner("plant-7", "billing", 5432).unwrap().is_empty(),
        "not bound yet"
    );

    store.bind_host(&pump, "billing").unwrap();
    let found = store.endpoint_owner("plant-7", "billing", 5432).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].agent, found[0].protocol.as_str()), (&pump, "postgres"));
    assert!(store.endpoint_owner("plant-7", "billing", 22).unwrap().is_empty());

    store.bind_host(&valve, "billing").unwrap();
    store
        .replace_endpoints(&valve, &[endpoint("billing", "postgres", 5432)], NOW)
        .unwrap();
    assert_eq!(store.endpoint_owner("plant-7", "billing", 5432).unwrap().len(), 2);
    assert!(store.unbind_host(&pump, "billing").unwrap());
    assert!(!store.unbind_host(&pump, "billing").unwrap());
    assert_eq!(
        store.endpoint_owner("plant-7", "billing", 5432).unwrap()[0].agent,
        valve
    );
    store.set_agent_disabled(&valve, true).unwrap();
    assert!(store.endpoint_owner("plant-7", "billing", 5432).unwrap().is_empty());
}

#[test]
fn a_bad_offer_replaces_nothing() {
    let mut store = store();
    let pump = enrol(&mut store, 1, "plant-7", "pump");
    store
        .replace_endpoints(&pump, &[endpoint("pump", "ssh", 22)], NOW)
        .unwrap();
    let bad = [endpoint("pump", "tcp", 80), endpoint("pump", "tcp", 0)];
    assert!(matches!(
        store.replace_endpoints(&pump, &bad, NOW),
        Err(StoreError::Invalid { .. })
    ));
    let many = vec![endpoint("pump", "tcp", 80); MAX_ENDPOINTS_PER_AGENT + 1];
    assert!(matches!(
        store.replace_endpoints(&pump, &many, NOW),
        Err(StoreError::Limit { .. })
    ));
    assert_eq!(store.endpoints_of(&pump).unwrap(), [endpoint("pump", "ssh", 22)]);
}

#[test]
fn deleting_takes_bindings_and_endpoints_along() {
    let mut store = store();
    let pump = enrol(&mut store, 1, "plant-7", "pump");
    store.bind_host(&pump, "billing").unwrap();
    store
        .replace_endpoints(&pump, &[endpoint("pump", "ssh", 22)], NOW)
        .unwrap();
    store.delete_agent(&pump).unwrap();
    assert!(store.hosts(&SiteScope::Every).unwrap().is_empty());
    assert!(store.endpoints_of(&pump).unwrap().is_empty());
    assert!(matches!(store.delete_agent(&pump), Err(StoreError::NotFound { .. })));
}
