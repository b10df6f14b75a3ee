//! Certificates of the operator's: shown for their names, read again while sessions live, and checked with their places.

use std::path::Path;
use std::time::{Duration, SystemTime};

use fairlead_gateway::config::{self, Config};
use fairlead_tests::clients::{Running, run_with, stock};
use fairlead_tests::customer::{CustomerCa, ServerFiles};
use fairlead_tests::lab::{DOMAIN, Lab, Person};
use fairlead_tests::upstream::Echo;

fn lines(files: &[&ServerFiles]) -> String {
    let one = |files: &&ServerFiles| {
        let (certificate, key) = (files.certificate.display(), files.key.display());
        format!("    - {{ cert_file: \"{certificate}\", key_file: \"{key}\" }}\n")
    };
    format!("tls:\n  certificates:\n{}", files.iter().map(one).collect::<String>())
}

/// Who issued what is shown for a name, and its serial number, as openssl says it.
async fn shown(lab: &Lab, person: &Person, name: &str) -> (String, String) {
    let mut openssl = stock("openssl");
    openssl
        .args(["s_client", "-servername", name, "-connect"])
        .arg(lab.address().to_string())
        .arg("-cert")
        .arg(person.path("cert.pem"))
        .arg("-cert_chain")
        .arg(person.path("cert.pem"))
        .arg("-key")
        .arg(person.path("login.key.pem"));
    let certificate = run_with(openssl, b"").await.text();
    let mut x509 = stock("openssl");
    x509.args(["x509", "-noout", "-issuer", "-serial"]);
    let said = run_with(x509, certificate.as_bytes()).await.succeeded().text();
    let (issuer, serial) = said.split_once('\n').expect("two lines");
    (issuer.trim().to_owned(), serial.trim().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_shown_for_their_names_and_read_again_while_sessions_live() {
    let dir = tempfile::tempdir().unwrap();
    let ca = CustomerCa::make(&dir.path().join("ca")).await;
    let name = format!("pump-7.default.{DOMAIN}");
    let files = ca.server("front", &[&format!("DNS:{name}")]).await;
    let mut lab = Lab::configured(&lines(&[&files])).await;
    let echo = Echo::start().await;
    for agent in ["pump-7", "pump-8"] {
        lab.agent(agent)
            .endpoint(&format!("tls://{agent}:7000"), &format!("tcp://{}", echo.address))
            .start()
            .await;
    }
    let alice = lab.user("alice", &["field"]).await;
    let (issuer, first) = shown(&lab, &alice, &name).await;
    assert_eq!(issuer, "issuer=CN = Customer CA");
    let (issuer, _) = shown(&lab, &alice, &format!("pump-8.default.{DOMAIN}")).await;
    assert_ne!(
        issuer, "issuer=CN = Customer CA",
        "every other name gets one of the private CA"
    );

    let mut command = alice.s_client(&lab, &name, &["-CAfile", ca.ca_file.to_str().unwrap()]);
    command.stdin(std::process::Stdio::piped());
    let mut session = Running::start(command);
    let says = async |session: &mut Running| {
        let stdin = session.stdin.as_mut().unwrap();
        tokio::io::AsyncWriteExt::write_all(stdin, b"still there\n")
            .await
            .unwrap();
        assert_eq!(session.line().await, "still there");
    };
    says(&mut session).await;
    // A renewal, as an ACME client makes it: other files under the same names.
    ca.server("front", &[&format!("DNS:{name}")]).await;
    assert_eq!(shown(&lab, &alice, &name).await.1, first, "not before it is told");
    assert_eq!(lab.gateway().reload_certificates().unwrap(), 1);
    let second = shown(&lab, &alice, &name).await.1;
    assert_ne!(second, first);
    says(&mut session).await;
    // What cannot be used changes nothing.
    std::fs::write(&files.key, "no key").unwrap();
    let mistakes = lab.gateway().reload_certificates().unwrap_err();
    assert!(mistakes[0].to_string().contains("gateway.yaml:"), "{}", mistakes[0]);
    assert_eq!(shown(&lab, &alice, &name).await.1, second);
    says(&mut session).await;
    drop(session);
    lab.stop().await;
}

fn configured(lab: &Lab, files: &[&ServerFiles]) -> Config {
    let path = lab.path("gateway/gateway.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    config::check(&path.display().to_string(), &format!("{text}{}", lines(files))).unwrap()
}

/// Every mistake of `fairlead-gateway check` for these files.
fn checked(lab: &Lab, files: &[&ServerFiles]) -> Vec<String> {
    fairlead_gateway::check(&configured(lab, files))
        .err()
        .unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_shown_is_told_with_its_place() {
    let lab = Lab::start().await;
    let ca = CustomerCa::make(&lab.path("ca")).await;
    let name = format!("DNS:*.default.{DOMAIN}");
    let good = ca.server("good", &[&name]).await;
    let other = ca.server("other", &[&name]).await;
    let elsewhere = ca.server("elsewhere", &["DNS:www.example.org"]).await;
    let mixed = ServerFiles {
        certificate: good.certificate.clone(),
        key: other.key.clone(),
    };
    let absent = ServerFiles {
        certificate: Path::new("/no/such/chain.pem").into(),
        key: good.key.clone(),
    };
    let open = ServerFiles {
        certificate: other.certificate.clone(),
        key: other.key.clone(),
    };
    assert_eq!(checked(&lab, &[&good]), Vec::<String>::new());
    let first_line = std::fs::read_to_string(lab.path("gateway/gateway.yaml"))
        .unwrap()
        .lines()
        .count()
        + 3;
    for (files, column, words) in [
        (&mixed, 20, "the certificate and the private key do not belong together"),
        (&absent, 20, "/no/such/chain.pem"),
        (&elsewhere, 20, "no name at or below gw.lab.test"),
    ] {
        let said = checked(&lab, &[&good, files]);
        assert_eq!(said.len(), 1, "{words}: {said:?}");
        assert!(said[0].contains(words), "{words}: {}", said[0]);
        let place = format!("gateway.yaml:{}:{column}: ", first_line + 1);
        assert!(said[0].contains(&place), "{place}: {}", said[0]);
    }
    // In a month it will have expired; it can still be presented.
    let files = configured(&lab, &[&good]).tls_files;
    let later = SystemTime::now() + Duration::from_secs(31 * 24 * 3600);
    let found = config::read_certificates(&files, DOMAIN, later);
    assert_eq!((found.usable.len(), found.mistakes.len()), (1, 0));
    assert!(
        found.expired[0].to_string().contains("has expired"),
        "{}",
        found.expired[0]
    );
    let mut chmod = stock("chmod");
    chmod.arg("0644").arg(&open.key);
    fairlead_tests::clients::run(chmod).await.succeeded();
    let said = checked(&lab, &[&open]);
    assert!(said[0].contains("other.key"), "a key that everybody may read: {said:?}");
    lab.stop().await;
}
