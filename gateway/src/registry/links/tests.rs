use super::*;

fn offered(url: &str, mode: WireMode) -> OfferedEndpoint {
    OfferedEndpoint {
        url: url.into(),
        mode: mode.into(),
        pooling_enabled: false,
        ..OfferedEndpoint::default()
    }
}

#[test]
fn an_agent_offers_its_own_name_and_bound_hosts_and_nothing_else() {
    let agent = AgentKey {
        site: "plant-7".parse().unwrap(),
        name: "pump-7".parse().unwrap(),
    };
    let bound = Names::from(["hmi".to_owned()]);
    let offer = Offer {
        endpoints: vec![
            offered("ssh://pump-7.plant-7.internal", WireMode::Builtin),
            offered("tcp://hmi.plant-7.internal:502", WireMode::Tunnel),
            offered("ssh://pump-8.plant-7.internal", WireMode::Tunnel),
            offered("ssh://pump-7.plant-8.internal", WireMode::Tunnel),
            offered("tcp://pump-7.plant-7.internal:22", WireMode::Tunnel),
            offered("tcp://pump-7.plant-7.internal:80", WireMode::Builtin),
            offered("mysql://pump-7.plant-7.internal", WireMode::Tunnel),
            offered("nonsense", WireMode::Tunnel),
            offered("tls://hmi.plant-7.internal:443", WireMode::Tunnel),
            offered("tls://hmi.plant-7.internal:8443", WireMode::Tunnel),
            offered("tls://pump-7.plant-7.internal:443", WireMode::Tunnel),
        ],
    };
    // Another agent stands for the same host; at the same port the two are a pool, at another a clash of names.
    let others = Places::from([
        ("hmi".to_owned(), "tls".to_owned(), 443),
        ("hmi".to_owned(), "tcp".to_owned(), 503),
    ]);
    let (rows, answer) = sort_out(&agent, &bound, &others, offer);
    assert_eq!(rows.len(), 4);
    assert_eq!(answer.accepted.len(), 4);
    let reasons: Vec<_> = answer
        .refused
        .iter()
        .filter_map(|refused| Reason::from_code(refused.reason))
        .collect();
    use Reason::{Conflict, Malformed, NotBound, Unsupported};
    assert_eq!(
        reasons,
        [
            NotBound,
            NotBound,
            Conflict,
            Unsupported,
            Unsupported,
            Malformed,
            Conflict
        ]
    );
}

#[test]
fn a_name_that_was_enrolled_anew_is_not_the_old_keys() {
    use crate::store::{NewToken, SqliteStore, TokenGrant, TokenKind};
    let mut store = SqliteStore::in_memory().unwrap();
    let id = AgentId::new("plant-7", "pump-7");
    let enrol = |store: &mut SqliteStore, key: u8| {
        let grant = TokenGrant {
            kind: TokenKind::Agent,
            name: id.name.clone(),
            site: Some(id.site.clone()),
            labels: Default::default(),
            groups: Names::new(),
            hosts: Names::new(),
        };
        let token = NewToken {
            secret_sha256: [key; 32],
            grant,
            terms: Default::default(),
            created: 0,
            expires: 900,
        };
        store.create_token(&token).unwrap();
        store.redeem(&[key; 32], &[key; 32], 1).unwrap();
    };
    enrol(&mut store, 1);
    assert!(holds(&mut store, &id, [1; 32]).unwrap());
    store.delete_agent(&id).unwrap();
    assert!(!holds(&mut store, &id, [1; 32]).unwrap());
    enrol(&mut store, 2);
    assert!(!holds(&mut store, &id, [1; 32]).unwrap());
    assert!(holds(&mut store, &id, [2; 32]).unwrap());
}
