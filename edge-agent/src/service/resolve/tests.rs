use super::*;

struct Says(Vec<&'static str>);

impl Resolver for Says {
    fn lookup<'a>(&'a self, _host: &'a str) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>> {
        let answer = self.0.iter().map(|text| text.parse().unwrap()).collect();
        Box::pin(async move { Ok(answer) })
    }
}

fn upstream(host: &str, cidrs: &[&str]) -> TcpUpstream {
    TcpUpstream {
        host: host.into(),
        port: 5432,
        allow_cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
    }
}

#[tokio::test]
async fn a_literal_is_the_customers_word() {
    let found = resolve(&upstream("127.0.0.1", &[]), &Says(vec![])).await.unwrap();
    assert_eq!(found, ["127.0.0.1:5432".parse().unwrap()]);
}

#[tokio::test]
async fn special_addresses_behind_a_name_are_refused_in_every_spelling() {
    for address in [
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "::ffff:169.254.169.254",
        "fd00:ec2::254",
    ] {
        let refused = resolve(&upstream("db.lan", &[]), &Says(vec!["10.9.0.5", address])).await;
        assert!(
            matches!(refused, Err(ResolveError::Forbidden { .. })),
            "{address}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn every_address_must_lie_in_the_ranges() {
    let inside = resolve(
        &upstream("db.lan", &["10.9.0.0/24"]),
        &Says(vec!["10.9.0.5", "::ffff:10.9.0.6"]),
    )
    .await;
    assert_eq!(inside.unwrap().len(), 2);
    let mixed = resolve(
        &upstream("db.lan", &["10.9.0.0/24"]),
        &Says(vec!["10.9.0.5", "10.8.0.5"]),
    )
    .await;
    assert!(matches!(mixed, Err(ResolveError::Forbidden { .. })));
}

#[tokio::test]
async fn an_endless_or_empty_answer_is_refused() {
    assert!(matches!(
        resolve(&upstream("db.lan", &[]), &Says(vec![])).await,
        Err(ResolveError::Count { .. })
    ));
    let many = Says(vec!["10.9.0.5"; 65]);
    assert!(matches!(
        resolve(&upstream("db.lan", &[]), &many).await,
        Err(ResolveError::Count { count: 65, .. })
    ));
}
