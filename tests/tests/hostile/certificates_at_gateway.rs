//! SECURITY.md A9 at the gateway: each certificate that must not pass, presented by a QUIC client.

use std::net::Ipv4Addr;
use std::time::Duration;

use fairlead_tests::programs::{DEVICE, DOMAIN, PATIENCE, Scene, until};
use rustls::pki_types::CertificateDer;

use super::forge::{DAY, Forge, Made, Presented, RSA_1024, RSA_2048, Recipe};
use super::memory::cpu_time;
use super::peer::{self, Outcome};

/// SECURITY.md A9.
const CPU_LIMIT: Duration = Duration::from_millis(50);

/// A chain that must be refused, and for what.
struct Case {
    what: &'static str,
    presented: Option<Presented>,
    reason: &'static str,
}

#[tokio::test]
async fn each_certificate_that_must_not_pass_the_gateway_is_refused_for_its_own_reason() {
    let mut scene = Scene::set().await;
    let forge = Forge::new(scene.path("forge"), &scene.home).await;
    let real = real_agent(&scene).await;
    let cases = cases(&forge, &scene, &real).await;
    // Together fewer than the lines that the audit has for strangers at once.
    let each = 6;

    assert!(
        matches!(
            peer::link(Ipv4Addr::new(127, 1, 0, 1), scene.address(), Some(&real)).await,
            Outcome::In
        ),
        "the control case: the agent's own chain and key"
    );
    let log_before = scene.gateway.log().lines().count();
    let mut worst = Duration::ZERO;
    for (number, case) in (1..).zip(&cases) {
        let source = Ipv4Addr::new(127, 1, 1, number);
        let before = cpu_time(scene.gateway.id());
        for _ in 0..each {
            match peer::link(source, scene.address(), case.presented.as_ref()).await {
                Outcome::Refused(why) => assert!(
                    why.contains("closed") || why.contains("aborted"),
                    "{}: {why}",
                    case.what
                ),
                Outcome::In => panic!("{}: let in", case.what),
            }
        }
        let spent = (cpu_time(scene.gateway.id()) - before) / each;
        worst = worst.max(spent);
        let from = format!("\"client_ip\":\"{source}\"");
        let audit = until(case.what, PATIENCE, async || {
            let lines = scene.home.audit(&["auth.fail", &from]);
            (!lines.is_empty()).then_some(lines)
        })
        .await;
        println!("A9 gateway: {:60} {:20} {spent:>8.1?} of CPU", case.what, case.reason);
        let told = format!("\"reason\":\"{}\"", case.reason);
        assert!(
            audit.iter().all(|line| line.contains(&told)),
            "{}: {audit:?}",
            case.what
        );
        assert!(
            audit.len() <= usize::try_from(each).unwrap(),
            "{}: {} lines",
            case.what,
            audit.len()
        );
        assert!(spent <= CPU_LIMIT, "{}: {spent:?} of CPU each", case.what);
    }
    println!(
        "A9 gateway: {} cases refused, {worst:.1?} of CPU each at most",
        cases.len()
    );
    let lines = scene.gateway.log().lines().count() - log_before;
    assert!(
        lines <= cases.len() * usize::try_from(each).unwrap(),
        "{lines} log lines"
    );
    scene.alice.on(DEVICE, "true").await.succeeded();
    let after = peer::link(Ipv4Addr::new(127, 1, 0, 1), scene.address(), Some(&real)).await;
    assert!(matches!(after, Outcome::In), "the control case afterwards");
    scene.is_sound().await;
}

/// The chain and key of an agent that is enrolled and does not run.
async fn real_agent(scene: &Scene) -> Presented {
    enrolled(scene, "control").await
}

async fn enrolled(scene: &Scene, name: &str) -> Presented {
    let home = scene.home.agent(&scene.path(name), name, "").await;
    let files = fairlead_agent::identity_files::IdentityFiles::open(&home.path("state")).unwrap();
    let identity = files.load().unwrap();
    let key = secrecy::ExposeSecret::expose_secret(&identity.key.to_pem()).to_owned();
    Presented {
        chain: identity.chain,
        key: rustls::pki_types::pem::PemObject::from_pem_slice(key.as_bytes()).unwrap(),
    }
}

fn agent_uri(name: &str) -> String {
    format!("URI:spiffe://{DOMAIN}/site/default/agent/{name}")
}

#[expect(clippy::too_many_lines, reason = "a table")]
async fn cases(forge: &Forge, scene: &Scene, real: &Presented) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |what, reason, presented| {
        cases.push(Case {
            what,
            presented,
            reason,
        });
    };
    let uri = agent_uri("control");
    let leaf = Recipe::leaf("clientAuth", &uri);
    let (root, issuing) = (&forge.root, &forge.issuing);
    let ours = async |name: &str, recipe: Recipe| {
        let made = forge.make(name, &recipe, Some(issuing)).await;
        Some(Presented::new(&[&made, issuing, root], &made))
    };

    add("no certificate", "no-certificate", None);
    // Other authorities.
    let other = forge.make("other", &Recipe::authority("/CN=Other", ""), None).await;
    let made = forge.make("wrong-ca", &leaf, Some(&other)).await;
    add(
        "another authority",
        "wrong-ca",
        Some(Presented::new(&[&made, &other], &made)),
    );
    let own = forge.make("self-signed", &leaf, None).await;
    add("signed by itself", "wrong-ca", Some(Presented::new(&[&own], &own)));
    let copy = copy_of(forge, issuing, "copy").await;
    let made = forge.make("of-copy", &leaf, Some(&copy)).await;
    add(
        "an authority with our authority's name",
        "bad-signature",
        Some(Presented::new(&[&made, &copy, issuing, root], &made)),
    );
    let copy = copy_of(forge, root, "root-copy").await;
    let made = forge.make("of-root-copy", &leaf, Some(&copy)).await;
    add(
        "a root with our root's name",
        "bad-signature",
        Some(Presented::new(&[&made, &copy], &made)),
    );
    // Filler: a good certificate behind one that is not, and before one that is not.
    let mut filled = Presented::new(&[&own], &own);
    filled.chain.extend(real.chain.iter().take(3).cloned());
    add(
        "signed by itself, a good certificate behind it",
        "wrong-ca",
        Some(filled),
    );
    let mut filled = Presented::new(&[&own], &own);
    filled.chain = vec![
        real.chain[0].clone(),
        own.certificate(),
        issuing.certificate(),
        root.certificate(),
    ];
    add(
        "a good certificate, the own one behind it, the own key",
        "key-not-proven",
        Some(filled),
    );
    // Keys that do not fit.
    let stolen = Presented {
        chain: real.chain.clone(),
        key: Presented::new(&[&own], &own).key,
    };
    add("a good certificate without its key", "key-not-proven", Some(stolen));
    // Times and uses.
    add(
        "expired",
        "expired",
        ours("expired", leaf.clone().with(|r| r.valid = (-60, -1))).await,
    );
    add(
        "not yet valid",
        "not-yet-valid",
        ours("future", leaf.clone().with(|r| r.valid = (DAY, 20 * DAY))).await,
    );
    add(
        "for servers",
        "wrong-usage",
        ours("server", Recipe::leaf("serverAuth", &uri)).await,
    );
    add(
        "for both",
        "wrong-usage",
        ours("both", Recipe::leaf("clientAuth,serverAuth", &uri)).await,
    );
    add(
        "for anything",
        "wrong-usage",
        ours("any", Recipe::leaf("anyExtendedKeyUsage", &uri)).await,
    );
    // Names.
    add(
        "no name",
        "no-name",
        ours("nameless", Recipe::leaf("clientAuth", "")).await,
    );
    let cn = Recipe::leaf("clientAuth", "").with(|r| r.subject = "/CN=control");
    add("a common name only", "no-name", ours("cn", cn).await);
    let dns = Recipe::leaf("clientAuth", "DNS:control.default.internal");
    add("a DNS name only", "no-name", ours("dns", dns).await);
    let two = format!("{uri},{}", agent_uri("pump-7"));
    add(
        "two names",
        "many-names",
        ours("two", Recipe::leaf("clientAuth", &two)).await,
    );
    let odd = format!("URI:spiffe://{DOMAIN}/site/default/robot/control");
    add(
        "a name of no known kind",
        "bad-name",
        ours("odd", Recipe::leaf("clientAuth", &odd)).await,
    );
    let foreign = "URI:spiffe://other.test/site/default/agent/control";
    add(
        "another trust domain",
        "wrong-trust-domain",
        ours("foreign", Recipe::leaf("clientAuth", foreign)).await,
    );
    let user = format!("URI:spiffe://{DOMAIN}/user/alice");
    add(
        "a user's",
        "not-an-agent",
        ours("user", Recipe::leaf("clientAuth", &user)).await,
    );
    let site = format!("URI:spiffe://{DOMAIN}/site/elsewhere/agent/control");
    add(
        "another site",
        "unknown-agent",
        ours("site", Recipe::leaf("clientAuth", &site)).await,
    );
    add(
        "an agent that the store does not know",
        "unknown-agent",
        ours("ghost", Recipe::leaf("clientAuth", &agent_uri("ghost"))).await,
    );
    add(
        "an agent's name, another key",
        "other-key",
        ours("other-key", leaf.clone()).await,
    );
    let deleted = enrolled(scene, "deleted").await;
    scene.home.fairlead(&["agents", "delete", "deleted"]).await.succeeded();
    add("a deleted agent's", "revoked", Some(deleted));
    // Paths.
    let ca_leaf = Recipe::authority("/CN=x", &format!("extendedKeyUsage=clientAuth\nsubjectAltName={uri}\n"));
    add(
        "an authority's as its own",
        "ca-as-leaf",
        ours("ca-leaf", ca_leaf).await,
    );
    let below = forge
        .make("below", &Recipe::authority("/CN=Below", ""), Some(issuing))
        .await;
    let made = forge.make("too-deep", &leaf, Some(&below)).await;
    add(
        "an authority below the last that may be",
        "not-an-issuer",
        Some(Presented::new(&[&made, &below, issuing, root], &made)),
    );
    let no_authority = forge.make("no-authority", &leaf, Some(issuing)).await;
    let made = forge.make("by-a-leaf", &leaf, Some(&no_authority)).await;
    add(
        "signed by an agent's key",
        "not-an-issuer",
        Some(Presented::new(&[&made, &no_authority, issuing, root], &made)),
    );
    for (what, name, constraint) in [
        ("name constraints: DNS", "constrained", "permitted;DNS:allowed.test"),
        ("name constraints: URI", "constrained-uri", "permitted;URI:allowed.test"),
    ] {
        let recipe = Recipe::authority("/CN=Constrained", &format!("nameConstraints=critical,{constraint}\n"));
        let constrained = forge.make(name, &recipe, Some(root)).await;
        let names = format!("{uri},DNS:evil.test");
        let made = forge
            .make(
                &format!("{name}-leaf"),
                &Recipe::leaf("clientAuth", &names),
                Some(&constrained),
            )
            .await;
        add(
            what,
            "name-constraint",
            Some(Presented::new(&[&made, &constrained, root], &made)),
        );
    }
    // Algorithms.
    add(
        "SHA-1",
        "weak-signature",
        ours("sha1", leaf.clone().with(|r| r.digest = "sha1")).await,
    );
    let rsa_ca = forge
        .make(
            "rsa-ca",
            &Recipe::authority("/CN=RSA", "").with(|r| r.key = RSA_2048),
            Some(root),
        )
        .await;
    let made = forge
        .make("md5", &leaf.clone().with(|r| r.digest = "md5"), Some(&rsa_ca))
        .await;
    add(
        "MD5",
        "weak-signature",
        Some(Presented::new(&[&made, &rsa_ca, root], &made)),
    );
    // A key that this QUIC client cannot sign with; the certificate is looked at first.
    let made = forge
        .make("rsa", &leaf.clone().with(|r| r.key = RSA_1024), Some(issuing))
        .await;
    add(
        "RSA-1024",
        "weak-key",
        Some(Presented::new(&[&made, issuing, root], &own)),
    );
    // Sizes.
    let mut long = Presented::new(&[&own], &own);
    long.chain = std::iter::repeat_n(issuing.certificate(), 99).collect();
    long.chain.insert(0, real.chain[0].clone());
    add("100 certificates", "chain-too-long", Some(long));
    let mut long = Presented::new(&[&own], &own);
    long.chain = vec![real.chain[0].clone(); 5];
    add("5 certificates", "chain-too-long", Some(long));
    add(
        "an extension of 30 KB",
        "chain-too-long",
        ours("30k", bulky(&leaf, 30_000)).await,
    );
    add(
        "an extension of 1 MB",
        "message-too-long",
        ours("1m", bulky(&leaf, 1_000_000)).await,
    );
    let mut noise = Presented::new(&[&own], &own);
    noise.chain = vec![CertificateDer::from(vec![0x30; 900])];
    add("no certificate at all", "malformed", Some(noise));
    cases
}

/// A certificate that says it is `authority`, of another key.
pub(crate) async fn copy_of(forge: &Forge, authority: &Made, name: &str) -> Made {
    let mut show = fairlead_tests::clients::stock("openssl");
    show.args([
        "x509",
        "-noout",
        "-subject",
        "-nameopt",
        "multiline,-align,show_type",
        "-in",
    ])
    .arg(&authority.pem);
    let shown = fairlead_tests::clients::run(show).await.succeeded().text();
    // As many parts as the name has; ours have a common name.
    let common = shown
        .lines()
        .find_map(|line| line.trim().strip_prefix("commonName = "))
        .expect("a common name");
    let common = common.split_once(':').map_or(common, |(_, name)| name);
    let subject: &'static str = Box::leak(format!("/CN={common}").into_boxed_str());
    forge.make(name, &Recipe::authority(subject, ""), None).await
}

/// The recipe with an extension of so many bytes that nobody knows.
pub(crate) fn bulky(recipe: &Recipe, bytes: usize) -> Recipe {
    let mut recipe = recipe.clone();
    recipe.extensions.push_str("1.2.3.4.5=DER:");
    // A DER octet string: tag, length in three bytes, content.
    recipe.extensions.push_str(&format!("0483{bytes:06x}"));
    recipe.extensions.push_str(&"00".repeat(bytes));
    recipe.extensions.push('\n');
    recipe
}
