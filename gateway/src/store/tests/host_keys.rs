use super::*;

fn report(port: u16, keys: &[&str]) -> ReportedHostKeys {
    ReportedHostKeys {
        host: "pump".into(),
        port,
        keys: keys.iter().map(ToString::to_string).collect(),
    }
}

fn lines(keys: &[&str]) -> KeyLines {
    report(22, keys).keys
}

#[test]
fn the_first_report_is_trusted_and_a_new_key_is_held_until_the_operator_trusts_it() {
    let mut store = store();
    let id = enrol(&mut store, 1, "plant-7", "pump");
    let mut tell = |keys: &[&str], now| store.report_host_keys(&id, &[1; 32], &report(22, keys), now).unwrap();
    assert_eq!(tell(&["ed a", "ec b"], NOW), HostKeyNews::Trusted);
    assert_eq!(tell(&["ed a", "ec b"], NOW + 1), HostKeyNews::Known);
    assert_eq!(
        tell(&["ed a"], NOW + 2),
        HostKeyNews::Known,
        "fewer keys are no new key"
    );
    assert_eq!(tell(&["ed x"], NOW + 3), HostKeyNews::Held { tell: true });
    assert_eq!(tell(&["ed x"], NOW + 4), HostKeyNews::Held { tell: false });
    assert_eq!(tell(&["ed y"], NOW + 5), HostKeyNews::Held { tell: false });
    assert_eq!(tell(&["ed z"], NOW + 3 + 3600), HostKeyNews::Held { tell: true });
    assert_eq!(
        store.trusted_host_keys(&id, "pump", 22).unwrap(),
        lines(&["ed a", "ec b"])
    );
    let row = store.host_keys_of(&id).unwrap().remove(0);
    assert_eq!((row.held, row.held_at), (Some(lines(&["ed z"])), Some(NOW + 3 + 3600)));

    assert_eq!(store.trust_host_keys(&id).unwrap().len(), 1);
    assert_eq!(store.trusted_host_keys(&id, "pump", 22).unwrap(), lines(&["ed z"]));
    assert!(
        store.trust_host_keys(&id).unwrap().is_empty(),
        "nothing is held any longer"
    );
}

#[test]
fn a_server_that_shows_its_old_keys_again_is_held_no_longer() {
    let mut store = store();
    let id = enrol(&mut store, 1, "plant-7", "pump");
    for keys in [&["ed a"], &["ed x"], &["ed a"]] {
        store.report_host_keys(&id, &[1; 32], &report(22, keys), NOW).unwrap();
    }
    assert_eq!(store.host_keys_of(&id).unwrap()[0].held, None);
    // And however often it goes to and fro, there is one line to tell of it.
    for _ in 0..10 {
        let news = store
            .report_host_keys(&id, &[1; 32], &report(22, &["ed x"]), NOW)
            .unwrap();
        assert_eq!(news, HostKeyNews::Held { tell: false });
        store
            .report_host_keys(&id, &[1; 32], &report(22, &["ed a"]), NOW)
            .unwrap();
    }
}

#[test]
fn keys_belong_to_the_agents_own_key_and_to_one_endpoint() {
    let mut store = store();
    let id = enrol(&mut store, 1, "plant-7", "pump");
    store
        .report_host_keys(&id, &[1; 32], &report(22, &["ed a"]), NOW)
        .unwrap();
    assert!(store.trusted_host_keys(&id, "pump", 2222).unwrap().is_empty());
    let namesake = enrol(&mut store, 2, "plant-8", "pump");
    assert!(store.trusted_host_keys(&namesake, "pump", 22).unwrap().is_empty());

    // Deleted and enrolled anew with another key: the old pins are not the new device's.
    store.delete_agent(&id).unwrap();
    let id = enrol(&mut store, 3, "plant-7", "pump");
    assert!(store.trusted_host_keys(&id, "pump", 22).unwrap().is_empty());
    let news = store
        .report_host_keys(&id, &[3; 32], &report(22, &["ed b"]), NOW)
        .unwrap();
    assert_eq!(news, HostKeyNews::Trusted);
    // A report by a key that is not the agent's (any longer) is nobody's.
    let stranger = store.report_host_keys(&id, &[1; 32], &report(2222, &["ed c"]), NOW);
    assert!(matches!(stranger, Err(StoreError::NotFound { .. })));
    assert_eq!(store.trusted_host_keys(&id, "pump", 22).unwrap(), lines(&["ed b"]));
}

#[test]
fn pins_are_bounded_and_none_gives_way_to_another() {
    let mut store = store();
    let id = enrol(&mut store, 1, "plant-7", "pump");
    for port in 1..=MAX_ENDPOINTS_PER_AGENT as u16 {
        store
            .report_host_keys(&id, &[1; 32], &report(port, &["ed a"]), NOW)
            .unwrap();
    }
    let more = store.report_host_keys(&id, &[1; 32], &report(9999, &["ed a"]), NOW);
    assert!(matches!(more, Err(StoreError::Limit { .. })));
    let held = store
        .report_host_keys(&id, &[1; 32], &report(1, &["ed b"]), NOW)
        .unwrap();
    assert_eq!(held, HostKeyNews::Held { tell: true });
    for keys in [&[][..], &["x"; 1][..0], &["a\nb"]] {
        let refused = store.report_host_keys(&id, &[1; 32], &report(22, keys), NOW);
        assert!(matches!(refused, Err(StoreError::Invalid { .. })));
    }
}

#[test]
fn every_endpoint_stands_in_the_list_once_whatever_the_page_is() {
    let mut store = store();
    let here = enrol(&mut store, 1, "plant-7", "pump");
    let there = enrol(&mut store, 2, "plant-8", "pump");
    store.bind_host(&here, "hmi").unwrap();
    let offered = [
        endpoint("pump", "ssh", 22),
        endpoint("pump", "tcp", 80),
        endpoint("hmi", "tcp", 502),
    ];
    store.replace_endpoints(&here, &offered, NOW).unwrap();
    store.replace_endpoints(&there, &offered[..1], NOW).unwrap();
    store.unbind_host(&here, "hmi").unwrap();
    for limit in 1..4 {
        let (mut seen, mut after) = (Vec::new(), EndpointPlace::default());
        loop {
            let page = store.endpoints_after(&SiteScope::Every, &after, limit).unwrap();
            let Some(last) = page.last() else { break };
            after = last.place();
            seen.extend(page.iter().map(|row| (row.owner.agent.site.clone(), row.port)));
        }
        let wanted = [("plant-7", 22), ("plant-7", 80), ("plant-8", 22)];
        assert_eq!(seen, wanted.map(|(site, port)| (site.to_owned(), port)));
    }
    let one = SiteScope::One("plant-8".into());
    assert_eq!(
        store
            .endpoints_after(&one, &EndpointPlace::default(), 10)
            .unwrap()
            .len(),
        1
    );
}
