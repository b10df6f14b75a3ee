//! Workloads with certificates of their vendor's own issuer, over QUIC (`fairlead-call/1`) and at the TLS front door: who
//! gets in, what must not pass, and what a revocation cuts.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use fairlead_runtime::frame;
use fairlead_tests::clients::{Finished, Running, run_with, stock};
use fairlead_tests::programs::{AgentHome, DEVICE, DOMAIN, PATIENCE, Scene, until};
use fairlead_tests::upstream::Echo;
use fairlead_wire::call::{Body, CallAnswer, CallRequest, EndpointsRequest, Question};
use fairlead_wire::codec::{self, MAX_CONTROL_FRAME, MAX_PREAUTH_FRAME};
use fairlead_wire::version::ALPN_CALL;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use super::forge::{DAY, Forge, Made, Presented, RSA_2048, Recipe};
use super::peer;

const URI: &str = "spiffe://vendor.example/etl";
const P384: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"];
/// SECURITY.md P9; the rest is for a busy machine.
const CUT_WITHIN: Duration = Duration::from_secs(4);

/// A gateway with an endpoint that echoes, a vendor's authority, and the workload `etl` that it certifies.
struct Vendor {
    scene: Scene,
    forge: Forge,
    authority: Made,
    _echo: Echo,
}

impl Vendor {
    async fn set() -> Self {
        let echo = Echo::start().await;
        let scene = Scene::with_endpoints(&AgentHome::tcp(DEVICE, echo.address.port())).await;
        let forge = Forge::new(scene.path("forge"), &scene.home).await;
        let authority = Recipe::authority("/CN=Vendor", "").with(|recipe| recipe.key = P384);
        let authority = forge.make("vendor", &authority, None).await;
        let vendor = Self {
            scene,
            forge,
            authority,
            _echo: echo,
        };
        vendor.register(&vendor.authority).await;
        vendor
    }

    /// `fairlead workloads add` with a file of this authority.
    async fn register(&self, authority: &Made) {
        let file = authority.pem.display().to_string();
        let add = [
            "workloads",
            "add",
            "etl",
            "--ca",
            &file,
            "--san",
            URI,
            "--group",
            "field",
        ];
        self.scene.home.fairlead(&add).await.succeeded();
    }

    async fn leaf(&self, name: &str, recipe: Recipe) -> Made {
        self.forge.make(name, &recipe, Some(&self.authority)).await
    }

    /// Stock openssl to the device's name at the gateway.
    fn s_client(&self, certificate: &Made, key: &Made, arguments: &[&str]) -> Command {
        let name = format!("{DEVICE}.default.{DOMAIN}");
        let mut client = stock("openssl");
        client
            .args(["s_client", "-quiet", "-verify_return_error", "-connect"])
            .arg(self.scene.address().to_string())
            .args(["-servername", &name, "-verify_hostname", &name, "-CAfile"])
            .arg(self.scene.alice.dir().join("ca.pem"))
            .arg("-cert")
            .arg(&certificate.pem)
            .arg("-key")
            .arg(&key.key_pem)
            .args(arguments);
        client
    }

    /// What openssl says when it is refused.
    async fn refused_by_tls(&self, certificate: &Made, version: &str) -> Finished {
        let said = run_with(self.s_client(certificate, certificate, &[version]), b"anybody?\n").await;
        assert!(!said.text().contains("anybody?"), "let in: {}", said.text());
        said
    }

    /// Stock openssl with a session that echoes.
    async fn session(&self, made: &Made, version: &str) -> Running {
        let mut command = self.s_client(made, made, &[version]);
        command.stdin(std::process::Stdio::piped());
        let mut client = Running::start(command);
        client.stdin.as_mut().unwrap().write_all(b"over TLS\n").await.unwrap();
        assert_eq!(client.line().await, "over TLS");
        client
    }

    /// A conversation over QUIC from `source`.
    async fn call(&self, source: Ipv4Addr, presented: &Presented) -> Result<quinn::Connection, String> {
        peer::connect(source, self.scene.address(), Some(presented), ALPN_CALL).await
    }
}

/// What the gateway answers to the question for endpoints; its words where it ends the conversation.
async fn endpoints(connection: &quinn::Connection) -> Result<Vec<String>, String> {
    let request = CallRequest {
        version_min: 1,
        version_max: 1,
        requires: Vec::new(),
        question: Some(Question::Endpoints(EndpointsRequest::default())),
    };
    let ask = async {
        let (mut send, mut recv) = connection.open_bi().await.ok()?;
        send.write_all(&codec::encode(&request, MAX_PREAUTH_FRAME).unwrap())
            .await
            .ok()?;
        send.finish().ok()?;
        let mut urls = Vec::new();
        while let Some(answer) = frame::read_frame(&mut recv, MAX_CONTROL_FRAME).await.ok()? {
            let answer: CallAnswer = codec::decode_body(&answer).unwrap();
            match answer.body.unwrap() {
                Body::Endpoints(page) => urls.extend(page.endpoints.into_iter().map(|endpoint| endpoint.url)),
                Body::Refused(refused) => return Some(Err(refused.known_reason().name().to_owned())),
                other => panic!("{other:?}"),
            }
        }
        Some(Ok(urls))
    };
    match timeout(PATIENCE, ask).await.expect("an answer") {
        Some(answer) => answer,
        None => Err(timeout(PATIENCE, connection.closed())
            .await
            .expect("closed")
            .to_string()),
    }
}

fn leaf() -> Recipe {
    Recipe::leaf("clientAuth,serverAuth", &format!("URI:{URI}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_of_its_vendors_own_issuer_is_let_in_and_cut_off_when_it_is_revoked() {
    let mut vendor = Vendor::set().await;
    let small = vendor.leaf("small", leaf()).await;
    let large = vendor.leaf("large", leaf().with(|recipe| recipe.key = P384)).await;
    for (number, made) in (1..).zip([&small, &large]) {
        let (source, presented) = (Ipv4Addr::new(127, 2, 0, number), Presented::new(&[made], made));
        let connection = vendor.call(source, &presented).await.unwrap();
        assert_eq!(endpoints(&connection).await.unwrap().len(), 2);
        for version in ["-tls1_2", "-tls1_3"] {
            drop(vendor.session(made, version).await);
        }
    }
    let opened = vendor.scene.home.audit(&["\"session.permit\"", "workload", "etl"]);
    assert_eq!(opened.len(), 4, "{opened:?}");
    // A link is not for workloads, whoever certified them.
    let presented = Presented::new(&[&small], &small);
    let linked = peer::link(Ipv4Addr::new(127, 2, 0, 9), vendor.scene.address(), Some(&presented)).await;
    assert!(matches!(linked, peer::Outcome::Refused(_)), "{linked:?}");

    let live = vendor.session(&large, "-tls1_3").await;
    let talking = vendor.call(Ipv4Addr::new(127, 2, 0, 3), &presented).await.unwrap();
    assert_eq!(endpoints(&talking).await.unwrap().len(), 2);
    let revoked = vendor.scene.home.fairlead(&["revoke", "workload", "etl"]).await;
    let began = Instant::now();
    assert!(revoked.succeeded().stderr.contains("1 live session ends"));
    let said = timeout(CUT_WITHIN, live.finish()).await.expect("cut in time");
    println!(
        "a vendor's workload was cut {:.0?} after the command answered",
        began.elapsed()
    );
    assert!(said.stderr.contains("alert certificate revoked"), "{}", said.stderr);
    assert_eq!(endpoints(&talking).await.unwrap_err(), "revoked");
    for round in 0..2 {
        let again = vendor.call(Ipv4Addr::new(127, 2, 0, 4), &presented).await.unwrap();
        let told = endpoints(&again).await.unwrap_err();
        assert!(told.contains("no good any longer"), "{told}");
        let said = vendor.refused_by_tls(&large, "-tls1_3").await;
        assert!(said.stderr.contains("alert certificate revoked"), "{}", said.stderr);
        if round == 0 {
            vendor.scene.gateway.kill().await;
            vendor.scene.gateway = vendor.scene.home.start().await;
        }
    }
    // Another authority in the old one's place: the name is the same, what was certified before is nothing.
    vendor
        .scene
        .home
        .fairlead(&["workloads", "delete", "etl"])
        .await
        .succeeded();
    let successor = Recipe::authority("/CN=Vendor", "");
    let successor = vendor.forge.make("successor", &successor, None).await;
    vendor.register(&successor).await;
    let said = vendor.refused_by_tls(&small, "-tls1_3").await;
    assert!(said.stderr.contains("alert access denied"), "{}", said.stderr);
    let new = vendor.forge.make("new", &leaf(), Some(&successor)).await;
    drop(vendor.session(&new, "-tls1_3").await);
    vendor.scene.is_sound().await;
}

/// A certificate that must not pass: what it is, how it is made, why it is refused.
type Case = (&'static str, Presented, Made, &'static str);

async fn cases(vendor: &Vendor) -> Vec<Case> {
    let uri = |uri: &str| Recipe::leaf("clientAuth", uri);
    let mut cases = Vec::new();
    let recipes = [
        ("another-name", uri("URI:spiffe://vendor.example/other"), "wrong-ca"),
        (
            "two-names",
            uri(&format!("URI:{URI},URI:spiffe://vendor.example/b")),
            "wrong-ca",
        ),
        (
            "our-own-names",
            uri(&format!("URI:spiffe://{DOMAIN}/workload/etl")),
            "wrong-ca",
        ),
        ("no-name", uri(""), "wrong-ca"),
        (
            "for-servers",
            Recipe::leaf("serverAuth", &format!("URI:{URI}")),
            "wrong-usage",
        ),
        (
            "for-more",
            Recipe::leaf("clientAuth,codeSigning", &format!("URI:{URI}")),
            "wrong-usage",
        ),
        (
            "ended",
            leaf().with(|recipe| recipe.valid = (-2 * DAY, -DAY)),
            "expired",
        ),
        (
            "not-begun",
            leaf().with(|recipe| recipe.valid = (DAY, 2 * DAY)),
            "not-yet-valid",
        ),
        (
            "an-authority",
            leaf().with(|recipe| recipe.extensions = recipe.extensions.replace("CA:FALSE", "CA:TRUE")),
            "ca-as-leaf",
        ),
    ];
    for (name, recipe, reason) in recipes {
        let made = vendor.leaf(name, recipe).await;
        cases.push((name, Presented::new(&[&made], &made), made, reason));
    }
    let good = vendor.leaf("good", leaf()).await;
    // Somebody else's authority of the same name, with and without the real one as a filler.
    let false_vendor = Recipe::authority("/CN=Vendor", "").with(|recipe| recipe.key = P384);
    let false_vendor = vendor.forge.make("false-vendor", &false_vendor, None).await;
    let false_leaf = vendor.forge.make("false-leaf", &leaf(), Some(&false_vendor)).await;
    for (name, chain) in [
        ("another-issuer", vec![&false_leaf]),
        ("a-filler", vec![&false_leaf, &good, &vendor.authority]),
    ] {
        // openssl's own word for a chain whose signature does not fit its issuer's key.
        cases.push((
            name,
            Presented::new(&chain, &false_leaf),
            false_leaf.clone(),
            "bad-signature",
        ));
    }
    let self_signed = vendor.forge.make("self-signed", &leaf(), None).await;
    cases.push((
        "signed-by-itself",
        Presented::new(&[&self_signed], &self_signed),
        self_signed,
        "wrong-ca",
    ));
    let rsa = vendor.leaf("rsa", leaf().with(|recipe| recipe.key = RSA_2048)).await;
    cases.push(("an-rsa-key", Presented::new(&[&rsa], &rsa), rsa, "weak-signature"));
    let stolen = Presented::new(&[&good], &false_leaf);
    cases.push(("a-stolen-certificate", stolen, good, "key-not-proven"));
    cases
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vendors_certificate_that_must_not_pass_is_refused_by_quic_and_by_tls_for_its_own_reason() {
    let mut vendor = Vendor::set().await;
    for (number, (what, presented, made, reason)) in (1..).zip(cases(&vendor).await) {
        let source = Ipv4Addr::new(127, 2, 1, number);
        match vendor.call(source, &presented).await {
            Err(why) => assert!(why.contains("closed") || why.contains("aborted"), "{what}: {why}"),
            Ok(connection) => {
                let told = endpoints(&connection).await;
                assert!(told.is_err(), "{what}: {told:?}");
            }
        }
        let (from, told) = (
            format!("\"client_ip\":\"{source}\""),
            format!("\"reason\":\"{reason}\""),
        );
        let lines = until(what, PATIENCE, async || {
            let lines = vendor.scene.home.audit(&["auth.fail", &from]);
            (!lines.is_empty()).then_some(lines)
        });
        let lines = lines.await;
        assert!(lines.iter().all(|line| line.contains(&told)), "{what}: {lines:?}");
        // openssl does not load a certificate with another's key, and signs with what it has.
        if matches!(what, "a-stolen-certificate" | "an-rsa-key") {
            continue;
        }
        for version in ["-tls1_2", "-tls1_3"] {
            let before = vendor.scene.home.audit(&["auth.fail", &told]).len();
            let said = vendor.refused_by_tls(&made, version).await;
            assert!(said.stderr.contains("alert"), "{what}: {}", said.stderr);
            let alert = match reason {
                "expired" => "certificate expired",
                _ => "alert",
            };
            assert!(said.stderr.contains(alert), "{what}: {}", said.stderr);
            until(what, PATIENCE, async || {
                (vendor.scene.home.audit(&["auth.fail", &told]).len() > before).then_some(())
            })
            .await;
        }
    }
    assert!(vendor.scene.home.audit(&["\"session.permit\""]).is_empty());
    let good = vendor.leaf("control", leaf()).await;
    drop(vendor.session(&good, "-tls1_3").await);
    vendor.scene.is_sound().await;
}
