//! Redis behind an agent, plain and with TLS of the customer's own authority.

use fairlead_tests::clients::{Finished, run, stock};
use fairlead_tests::customer::CustomerCa;
use fairlead_tests::lab::{DOMAIN, Lab, Person};
use fairlead_tests::redis::Redis;

/// Stock redis-cli through the gateway.
async fn redis_cli(lab: &Lab, person: &Person, host: &str, arguments: &[&str]) -> Finished {
    let mut cli = stock("redis-cli");
    cli.args(["-h", "127.0.0.1", "-p"])
        .arg(lab.address().port().to_string())
        .args(["--tls", "--sni"])
        .arg(format!("{host}.{DOMAIN}"))
        .arg("--cacert")
        .arg(person.path("ca.pem"))
        .arg("--cert")
        .arg(person.path("cert.pem"))
        .arg("--key")
        .arg(person.path("login.key.pem"))
        .args(arguments);
    run(cli).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_cli_reaches_a_plain_redis_by_both_spellings_of_its_name() {
    let mut lab = Lab::start().await;
    let redis = Redis::start(&lab.path("redis"), None).await;
    let upstream = format!("tcp://127.0.0.1:{}", redis.port);
    lab.agent("cache").endpoint("tcp://cache:6379", &upstream).start().await;
    let alice = lab.user("alice", &["field"]).await;
    let set = redis_cli(&lab, &alice, "cache.default", &["set", "tank", "7"])
        .await
        .succeeded();
    assert_eq!(set.text().trim(), "OK");
    let get = redis_cli(&lab, &alice, "cache--default", &["get", "tank"])
        .await
        .succeeded();
    assert_eq!(get.text().trim(), "7");
    let end = lab.gateway_audit().awaited("session.end", None).await;
    assert_eq!(end.text("endpoint"), "tcp://cache.default.internal:6379");
    assert!(end.number("bytes_in") > Some(0) && end.number("bytes_out") > Some(0));
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tls_upstream_is_trusted_as_the_customers_file_says() {
    let mut lab = Lab::start().await;
    let ca = CustomerCa::make(&lab.path("customer")).await;
    let other = CustomerCa::make(&lab.path("other")).await;
    let files = ca.server("redis", &["IP:127.0.0.1"]).await;
    let misnamed = ca.server("misnamed", &["DNS:elsewhere.lan"]).await;
    let redis = Redis::start(&lab.path("redis"), Some(&files)).await;
    let elsewhere = Redis::start(&lab.path("elsewhere"), Some(&misnamed)).await;
    let behind =
        |redis: &Redis, trust: &str| format!("{{ url: \"tls://127.0.0.1:{}\", tls: {{ {trust} }} }}", redis.port);
    let (full, by_ca, wrong) = (
        format!("mode: verify-full, ca_file: \"{}\"", ca.ca_file.display()),
        format!("mode: verify-ca, ca_file: \"{}\"", ca.ca_file.display()),
        format!("mode: verify-ca, ca_file: \"{}\"", other.ca_file.display()),
    );
    for (name, redis, trust, is_trusted) in [
        ("full", &redis, full.as_str(), true),
        ("named", &elsewhere, &full, false),
        ("authority", &elsewhere, &by_ca, true),
        ("stranger", &redis, &wrong, false),
        ("nothing", &elsewhere, "mode: require", true),
    ] {
        let url = format!("tls://{name}:6380");
        lab.agent(name)
            .endpoint_behind(&url, &behind(redis, trust))
            .start()
            .await;
        let alice = lab.user(&format!("alice-{name}"), &["field"]).await;
        let said = redis_cli(&lab, &alice, &format!("{name}.default"), &["ping"]).await;
        if is_trusted {
            assert_eq!(said.succeeded().text().trim(), "PONG", "{name}");
        } else {
            assert!(!said.text().contains("PONG"), "{name}: {}", said.text());
            let end = lab.agent_audit(name).awaited("session.end", None).await;
            assert_eq!(end.text("reason"), "upstream-failed");
            assert!(
                end.fact("detail").starts_with("TLS with 127.0.0.1: "),
                "{}",
                end.fact("detail")
            );
        }
    }
    lab.stop().await;
}
