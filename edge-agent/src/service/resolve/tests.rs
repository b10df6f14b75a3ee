use super::*;

struct Says(Vec<&'static str>);

impl Resolver for Says {
    fn lookup<'a>(&'a self, _host: &'a str) -> Lookup<'a> {
        let answer = self.0.iter().map(|text| text.parse().unwrap()).collect();
        Box::pin(async move { Ok(answer) })
    }
}

struct Silent;

impl Resolver for Silent {
    fn lookup<'a>(&'a self, _host: &'a str) -> Lookup<'a> {
        Box::pin(std::future::pending())
    }
}

fn upstream(host: &str, cidrs: &[&str]) -> TcpUpstream {
    TcpUpstream {
        host: host.into(),
        port: 5432,
        tls: None,
        allow_cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
    }
}

async fn resolved(upstream: &TcpUpstream, resolver: &dyn Resolver) -> Result<Vec<SocketAddr>, ResolveError> {
    resolve(upstream, resolver, || Ok(Surroundings::default())).await
}

#[tokio::test]
async fn a_literal_is_the_customers_word() {
    for (literal, dialled) in [("127.0.0.1", "127.0.0.1:5432"), ("::1", "[::1]:5432")] {
        let found = resolved(&upstream(literal, &[]), &Says(vec![])).await.unwrap();
        assert_eq!(found, [dialled.parse().unwrap()]);
    }
}

#[tokio::test]
async fn special_addresses_behind_a_name_are_refused_in_every_spelling() {
    for address in [
        "127.0.0.1",
        "::1",
        "fe80::1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
    ] {
        let refused = resolved(&upstream("db.lan", &[]), &Says(vec!["10.9.0.5", address])).await;
        let error = refused.expect_err(address);
        assert!(matches!(error, ResolveError::Forbidden { .. }), "{address}: {error}");
        assert_eq!(error.name(), "address-refused");
        assert!(error.to_string().contains("db.lan"), "{error}");
    }
}

#[tokio::test]
async fn every_address_must_lie_in_the_ranges() {
    let ranges = &["10.9.0.0/24"];
    let inside = resolved(&upstream("db.lan", ranges), &Says(vec!["10.9.0.5", "::ffff:10.9.0.6"])).await;
    let dialled = ["10.9.0.5:5432", "10.9.0.6:5432"].map(|address| address.parse().unwrap());
    assert_eq!(inside.unwrap(), dialled);
    let mixed = resolved(&upstream("db.lan", ranges), &Says(vec!["10.9.0.5", "10.8.0.5"])).await;
    assert!(matches!(mixed, Err(ResolveError::Forbidden { .. })));
}

#[tokio::test]
async fn an_endless_or_empty_answer_is_refused() {
    let empty = resolved(&upstream("db.lan", &[]), &Says(vec![])).await;
    assert!(matches!(empty, Err(ResolveError::Count { .. })));
    let many = resolved(&upstream("db.lan", &[]), &Says(vec!["10.9.0.5"; 65])).await;
    assert!(matches!(many, Err(ResolveError::Count { count: 65, .. })));
}

#[tokio::test(start_paused = true)]
async fn a_name_server_that_does_not_answer_is_given_up() {
    let refused = resolved(&upstream("db.lan", &[]), &Silent).await;
    assert_eq!(refused.unwrap_err().name(), "lookup-failed");
}

#[tokio::test]
async fn without_the_hosts_own_addresses_nothing_is_dialled() {
    let unknown = || Err(io::Error::other("no netlink"));
    let refused = resolve(&upstream("db.lan", &[]), &Says(vec!["10.9.0.5"]), unknown).await;
    assert_eq!(refused.unwrap_err().name(), "address-refused");
}
