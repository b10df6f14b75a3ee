//! SECURITY.md A9 at the agent: each certificate that must not pass, presented by somebody who has the gateway's address.

use std::time::Duration;

use fairlead_tests::programs::{AgentHome, DOMAIN, Daemon, PATIENCE, Scene, until};
use rustls::pki_types::CertificateDer;

use super::certificates_at_gateway::{bulky, copy_of};
use super::forge::{DAY, Forge, Presented, RSA_1024, RSA_2048, Recipe};
use super::memory::cpu_time;
use super::peer;

/// SECURITY.md A9.
const CPU_LIMIT: Duration = Duration::from_millis(50);

#[tokio::test]
async fn each_gateways_certificate_that_must_not_pass_is_refused_by_the_agent_for_its_own_reason() {
    let mut scene = Scene::set().await;
    let forge = Forge::new(scene.path("forge"), &scene.home).await;
    let cases = cases(&forge, &scene).await;
    // The gateway's address is somebody else's now.
    scene.agent.kill().await;
    scene.gateway.kill().await;

    let good = forge.make("good", &gateway_leaf(), Some(&forge.issuing)).await;
    let good = Presented::new(&[&good, &forge.issuing, &forge.root], &good);
    let control = dialled(&scene, &good).await;
    assert!(control.believed, "the control case: {}", control.log);
    println!(
        "A9 agent: the control case is believed, {:.1?} of CPU with the start",
        control.cpu
    );

    for (what, reason, presented) in &cases {
        let dial = dialled(&scene, presented).await;
        println!(
            "A9 agent: {what:60} {reason:20} {:>8.1?} of CPU with the start",
            dial.cpu
        );
        assert!(!dial.believed, "{what}: believed");
        assert!(
            dial.log.contains(&format!("refused ({reason})")),
            "{what}: {}",
            dial.log
        );
        assert!(dial.log.lines().count() <= 2, "{what}: {}", dial.log);
        assert!(!dial.log.contains("panicked"), "{what}: {}", dial.log);
        // The start is in both.
        assert!(dial.cpu <= control.cpu + CPU_LIMIT, "{what}: {:?} of CPU", dial.cpu);
    }
    println!("A9 agent: {} cases refused", cases.len());

    let again = dialled(&scene, &good).await;
    assert!(again.believed, "the control case afterwards: {}", again.log);
    scene.gateway = scene.home.start().await;
    scene.agent = scene.device.start();
    scene.alice.reaches(fairlead_tests::programs::DEVICE, PATIENCE).await;
}

/// What became of one dial.
struct Dial {
    believed: bool,
    log: String,
    cpu: Duration,
}

/// Starts the agent while `presented` answers at its gateway's address.
async fn dialled(scene: &Scene, presented: &Presented) -> Dial {
    let gateway = peer::gateway_at(scene.address(), presented).await;
    let log_file = scene.path("agent-under-test.log");
    drop(std::fs::remove_file(&log_file));
    let mut agent = Daemon::start(scene.device.command("run"), &log_file);
    let believed = peer::is_believed(&gateway).await;
    if !believed {
        until("the agent says why", PATIENCE, async || {
            agent.log().contains("cannot reach the gateway").then_some(())
        })
        .await;
    }
    let cpu = cpu_time(agent.id());
    let log = agent.log();
    agent.kill().await;
    gateway.close(0_u32.into(), b"");
    gateway.wait_idle().await;
    Dial { believed, log, cpu }
}

fn gateway_leaf() -> Recipe {
    Recipe::leaf("serverAuth", &gateway_names())
}

fn gateway_names() -> String {
    format!("URI:spiffe://{DOMAIN}/gateway/gateway,DNS:{DOMAIN}")
}

type Case = (&'static str, &'static str, Presented);

#[expect(clippy::too_many_lines, reason = "a table")]
async fn cases(forge: &Forge, scene: &Scene) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let (root, issuing) = (&forge.root, &forge.issuing);
    let leaf = gateway_leaf();
    let good = forge.make("g-good", &leaf, Some(issuing)).await;
    let ours = async |name: &str, recipe: Recipe| {
        let made = forge.make(name, &recipe, Some(issuing)).await;
        Presented::new(&[&made, issuing, root], &made)
    };
    let named = |names: &str| Recipe::leaf("serverAuth", names);

    let other = forge.make("g-other", &Recipe::authority("/CN=Other", ""), None).await;
    let made = forge.make("g-wrong-ca", &leaf, Some(&other)).await;
    cases.push(("another authority", "wrong-ca", Presented::new(&[&made, &other], &made)));
    let own = forge
        .make("g-own", &leaf.clone().with(|r| r.subject = "/CN=own"), None)
        .await;
    cases.push(("signed by itself", "wrong-ca", Presented::new(&[&own], &own)));
    let copy = copy_of(forge, issuing, "g-copy").await;
    let made = forge.make("g-of-copy", &leaf, Some(&copy)).await;
    cases.push((
        "an authority with our authority's name",
        "bad-signature",
        Presented::new(&[&made, &copy, issuing, root], &made),
    ));
    cases.push((
        "signed by itself, a good certificate behind it",
        "wrong-ca",
        Presented::new(&[&own, &good, issuing, root], &own),
    ));
    cases.push((
        "a good certificate, the own one behind it, the own key",
        "key-not-proven",
        Presented::new(&[&good, &own, issuing, root], &own),
    ));
    cases.push((
        "a good certificate without its key",
        "key-not-proven",
        Presented::new(&[&good, issuing, root], &own),
    ));
    cases.push((
        "expired",
        "expired",
        ours("g-expired", leaf.clone().with(|r| r.valid = (-60, -1))).await,
    ));
    cases.push((
        "not yet valid",
        "not-yet-valid",
        ours("g-future", leaf.clone().with(|r| r.valid = (DAY, 20 * DAY))).await,
    ));
    cases.push((
        "for clients",
        "wrong-usage",
        ours("g-client", Recipe::leaf("clientAuth", &gateway_names())).await,
    ));
    cases.push((
        "for both",
        "wrong-usage",
        ours("g-both", Recipe::leaf("clientAuth,serverAuth", &gateway_names())).await,
    ));
    cases.push(("an agent's own, as a gateway's", "wrong-usage", thief(scene).await));
    cases.push(("no name", "no-name", ours("g-nameless", named("")).await));
    let cn = named("").with(|r| r.subject = "/CN=gw.process.test");
    cases.push(("a common name only", "no-name", ours("g-cn", cn).await));
    cases.push((
        "a DNS name only",
        "no-name",
        ours("g-dns", named(&format!("DNS:{DOMAIN}"))).await,
    ));
    let agent = format!("URI:spiffe://{DOMAIN}/site/default/agent/pump-7,DNS:{DOMAIN}");
    cases.push((
        "an agent's name, for servers",
        "wrong-usage",
        ours("g-agent", named(&agent)).await,
    ));
    let elsewhere = format!("URI:spiffe://{DOMAIN}/gateway/gateway,DNS:elsewhere.test");
    cases.push((
        "another domain",
        "wrong-name",
        ours("g-elsewhere", named(&elsewhere)).await,
    ));
    let foreign = format!("URI:spiffe://other.test/gateway/gateway,DNS:{DOMAIN}");
    cases.push((
        "another trust domain",
        "wrong-trust-domain",
        ours("g-foreign", named(&foreign)).await,
    ));
    let two = format!("{},URI:spiffe://{DOMAIN}/gateway/second", gateway_names());
    cases.push(("two names", "many-names", ours("g-two", named(&two)).await));
    let ca_leaf = Recipe::authority(
        "/CN=x",
        &format!("extendedKeyUsage=serverAuth\nsubjectAltName={}\n", gateway_names()),
    );
    cases.push(("an authority's as its own", "ca-as-leaf", ours("g-ca", ca_leaf).await));
    let below = forge
        .make("g-below", &Recipe::authority("/CN=Below", ""), Some(issuing))
        .await;
    let made = forge.make("g-deep", &leaf, Some(&below)).await;
    cases.push((
        "an authority below the last that may be",
        "not-an-issuer",
        Presented::new(&[&made, &below, issuing, root], &made),
    ));
    let recipe = Recipe::authority(
        "/CN=Constrained",
        "nameConstraints=critical,permitted;DNS:allowed.test\n",
    );
    let constrained = forge.make("g-constrained", &recipe, Some(root)).await;
    let made = forge.make("g-unconstrained", &leaf, Some(&constrained)).await;
    cases.push((
        "name constraints",
        "name-constraint",
        Presented::new(&[&made, &constrained, root], &made),
    ));
    cases.push((
        "SHA-1",
        "weak-signature",
        ours("g-sha1", leaf.clone().with(|r| r.digest = "sha1")).await,
    ));
    let rsa_ca = forge
        .make(
            "g-rsa-ca",
            &Recipe::authority("/CN=RSA", "").with(|r| r.key = RSA_2048),
            Some(root),
        )
        .await;
    let made = forge
        .make("g-md5", &leaf.clone().with(|r| r.digest = "md5"), Some(&rsa_ca))
        .await;
    cases.push(("MD5", "weak-signature", Presented::new(&[&made, &rsa_ca, root], &made)));
    let made = forge
        .make("g-rsa", &leaf.clone().with(|r| r.key = RSA_1024), Some(issuing))
        .await;
    cases.push(("RSA-1024", "weak-key", Presented::new(&[&made, issuing, root], &own)));
    let mut long = Presented::new(&[&good], &good);
    long.chain.extend(std::iter::repeat_n(issuing.certificate(), 99));
    cases.push(("100 certificates", "chain-too-long", long));
    cases.push((
        "an extension of 30 KB",
        "chain-too-long",
        ours("g-30k", bulky(&leaf, 30_000)).await,
    ));
    cases.push((
        "an extension of 1 MB",
        "message-too-long",
        ours("g-1m", bulky(&leaf, 1_000_000)).await,
    ));
    let mut noise = Presented::new(&[&own], &own);
    noise.chain = vec![CertificateDer::from(vec![0x30; 900])];
    cases.push(("no certificate at all", "malformed", noise));
    cases
}

/// A stolen agent's identity in the gateway's place.
async fn thief(scene: &Scene) -> Presented {
    let home: AgentHome = scene.home.agent(&scene.path("thief"), "thief", "").await;
    let files = fairlead_agent::identity_files::IdentityFiles::open(&home.path("state")).unwrap();
    let identity = files.load().unwrap();
    let key = secrecy::ExposeSecret::expose_secret(&identity.key.to_pem()).to_owned();
    Presented {
        chain: identity.chain,
        key: rustls::pki_types::pem::PemObject::from_pem_slice(key.as_bytes()).unwrap(),
    }
}
