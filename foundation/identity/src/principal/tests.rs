use super::*;

#[test]
fn principals_read_back_as_written() {
    for (text, kind, site) in [
        (
            "spiffe://gw.example.com/site/plant-7/agent/pump-7",
            Kind::Agent,
            Some("plant-7"),
        ),
        ("spiffe://gw.example.com/user/alice", Kind::User, None),
        (
            "spiffe://gw.example.com/site/clinic1/user/alice",
            Kind::User,
            Some("clinic1"),
        ),
        ("spiffe://gw.example.com/workload/acme-etl", Kind::Workload, None),
        (
            "spiffe://gw.example.com/site/clinic1/workload/etl",
            Kind::Workload,
            Some("clinic1"),
        ),
        ("spiffe://gw.example.com/gateway/gw-1", Kind::Gateway, None),
    ] {
        let principal: Principal = text.parse().unwrap();
        assert_eq!(principal.to_string(), text);
        assert_eq!(principal.kind(), kind);
        assert_eq!(principal.site().map(Label::as_str), site);
        assert_eq!(principal.trust_domain(), "gw.example.com");
    }
}

#[test]
fn anything_else_is_refused() {
    for text in [
        "",
        "spiffe://",
        "spiffe://gw.example.com",
        "spiffe://gw.example.com/",
        "spiffe://gw.example.com/agent/pump-7",
        "spiffe://gw.example.com/site/plant-7/gateway/gw-1",
        "spiffe://gw.example.com/site/plant-7/agent/pump-7/",
        "spiffe://gw.example.com/site/plant-7/agent/pump-7?x=1",
        "spiffe://gw.example.com/site/plant-7/agent/pump-7#x",
        "spiffe://gw.example.com/site/plant-7/agent/pump%2D7",
        "spiffe://gw.example.com/site//agent/pump-7",
        "spiffe://gw.example.com/site/plant-7/agent/..",
        "spiffe://gw.example.com/site/plant-7/Agent/pump-7",
        "spiffe://gw.example.com/site/plant-7/agent/Pump-7",
        "spiffe://gw.example.com/site/internal/agent/pump-7",
        "spiffe://gw.example.com/sites/plant-7/agent/pump-7",
        "spiffe://gw.example.com/role/admin",
        "SPIFFE://gw.example.com/user/alice",
        "https://gw.example.com/user/alice",
        "spiffe://GW.example.com/user/alice",
        "spiffe://gw..com/user/alice",
        "spiffe://gw.example.com:443/user/alice",
        "spiffe://user@gw.example.com/user/alice",
        "spiffe:///user/alice",
        " spiffe://gw.example.com/user/alice",
        "spiffe://gw.example.com/user/alice\n",
        "spiffe://gw.example.com/user/alice\0",
    ] {
        assert!(text.parse::<Principal>().is_err(), "{text:?}");
    }
    let long = format!("spiffe://{}.com/user/alice", "a.".repeat(200));
    assert!(long.parse::<Principal>().is_err());
}

#[test]
fn a_principal_cannot_be_put_together_wrongly() {
    let name: Label = "x".parse().unwrap();
    let site: Label = "plant-7".parse().unwrap();
    let agent = Principal::new("gw.example.com", None, Kind::Agent, name.clone());
    assert!(matches!(agent, Err(PrincipalError::SiteMismatch(Kind::Agent, _))));
    let gateway = Principal::new("gw.example.com", Some(site), Kind::Gateway, name.clone());
    assert!(matches!(gateway, Err(PrincipalError::SiteMismatch(Kind::Gateway, _))));
    let domain = Principal::new("gw.example.com/user/bob", None, Kind::User, name);
    assert!(matches!(domain, Err(PrincipalError::BadTrustDomain(_))));
}
