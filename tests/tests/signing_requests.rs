//! What a signing request asks for, made by openssl and sent through the real enrolment: nothing of it but the key is
//! looked at, and only one kind of key is taken.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fairlead_agent::enroll::{self, EnrollError};
use fairlead_identity::join::JoinString;
use fairlead_tests::clients::{run, stock};
use fairlead_tests::programs::{DOMAIN, Daemon, GatewayHome, throw_away};
use fairlead_wire::enroll::Enrolled;
use fairlead_wire::refusal::Reason;
use tempfile::TempDir;

/// What is asked for, as extensions of an openssl configuration; the words must not come back.
const WISHES: &[(&str, &str, &[&str])] = &[
    (
        "other names",
        "subjectAltName = URI:spiffe://DOMAIN/gateway/gateway, URI:spiffe://DOMAIN/site/default/agent/pump-8, \
         DNS:DOMAIN, DNS:*.DOMAIN, IP:127.0.0.1, email:root@DOMAIN",
        &["gateway/gateway", "pump-8", "DNS:", "IP Address", "email", "127.0.0.1"],
    ),
    (
        "an authority",
        "basicConstraints = critical, CA:TRUE, pathlen:3\nkeyUsage = critical, keyCertSign, cRLSign",
        &["CA:TRUE", "pathlen", "Certificate Sign", "CRL Sign"],
    ),
    (
        "other usages",
        "extendedKeyUsage = serverAuth, codeSigning, emailProtection, timeStamping, OCSPSigning, anyExtendedKeyUsage\n\
         keyUsage = digitalSignature, keyEncipherment, keyAgreement, nonRepudiation",
        &[
            "Server Authentication",
            "Code Signing",
            "Any Extended",
            "Key Encipherment",
            "Key Agreement",
            "OCSP",
            "Time",
        ],
    ),
    (
        "constraints and policies of its own",
        "nameConstraints = permitted;DNS:DOMAIN\ncertificatePolicies = 1.2.3.4\n1.2.3.4.5 = ASN1:UTF8String:hello-there\n\
         crlDistributionPoints = URI:http://DOMAIN/crl\nauthorityInfoAccess = OCSP;URI:http://DOMAIN/ocsp",
        &[
            "Name Constraints",
            "Policies",
            "hello-there",
            "CRL Distribution",
            "Authority Information",
            "http://",
        ],
    ),
];

#[tokio::test]
async fn a_request_for_more_gets_what_the_store_says_and_no_more() {
    let place = Place::set().await;
    for (number, (what, extensions, words)) in WISHES.iter().enumerate() {
        let agent = format!("pump-{}", number + 20);
        let (key, csr) = place
            .request(
                &agent,
                &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"],
                extensions,
            )
            .await;
        let asked = text(&["req", "-inform", "DER", "-noout", "-text", "-in"], &csr).await;
        assert!(
            words.iter().any(|word| asked.contains(word)),
            "{what} is not in {asked}"
        );
        let enrolled = place.enrol(&agent, &csr).await.unwrap();
        let leaf = place.write(&format!("{agent}.leaf"), &enrolled.certificate_chain[0]);
        let got = text(&["x509", "-inform", "DER", "-noout", "-text", "-in"], &leaf).await;
        for word in *words {
            assert!(!got.contains(word), "{what}: {word:?} of the request is in {got}");
        }
        // All of it, so that nothing else can be in it.
        let name = format!("spiffe://{DOMAIN}/site/default/agent/{agent}");
        assert_eq!(enrolled.principal, name);
        assert_eq!(
            extensions_of(&got),
            [
                "X509v3 Authority Key Identifier:",
                "X509v3 Subject Alternative Name:",
                &format!("URI:{name}"),
                "X509v3 Key Usage: critical",
                "Digital Signature",
                "X509v3 Extended Key Usage:",
                "TLS Web Client Authentication",
                "X509v3 Subject Key Identifier:",
                "X509v3 Basic Constraints: critical",
                "CA:FALSE",
            ],
            "{got}"
        );
        let subject = text(&["x509", "-inform", "DER", "-noout", "-subject", "-in"], &leaf).await;
        assert_eq!(subject.trim().replace(' ', ""), format!("subject=CN={agent}"));
        let days = text(
            &["x509", "-inform", "DER", "-noout", "-checkend", "1209000", "-in"],
            &leaf,
        )
        .await;
        assert!(days.contains("will not expire"), "14 days: {days}");
        // The key is the request's.
        let of_leaf = text(&["x509", "-inform", "DER", "-noout", "-pubkey", "-in"], &leaf).await;
        let of_key = text(&["pkey", "-pubout", "-in"], &key).await;
        assert_eq!(of_leaf, of_key);
    }
}

#[tokio::test]
async fn keys_of_other_kinds_and_requests_not_signed_by_their_key_are_refused_in_words() {
    let place = Place::set().await;
    let kinds: [(&str, &[&str]); 4] = [
        ("rsa", &["-newkey", "rsa:2048"]),
        ("p-384", &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp384r1"]),
        (
            "secp256k1",
            &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"],
        ),
        ("ed25519", &["-newkey", "ed25519"]),
    ];
    let join = place.join("pump-7").await;
    for (kind, arguments) in kinds {
        let (_, csr) = place.request(kind, arguments, "").await;
        let refused = exchange(&join, &std::fs::read(&csr).unwrap()).await.unwrap_err();
        is_refused(kind, refused, "the signing request's key is not P-256");
    }
    let (_, csr) = place
        .request(
            "good",
            &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"],
            "",
        )
        .await;
    let good = std::fs::read(&csr).unwrap();
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    is_refused(
        "a changed signature",
        exchange(&join, &forged).await.unwrap_err(),
        "is not signed by the key",
    );
    let mut longer = good.clone();
    longer.push(0);
    is_refused(
        "bytes after it",
        exchange(&join, &longer).await.unwrap_err(),
        "cannot be read",
    );
    is_refused(
        "no request",
        exchange(&join, b"hello").await.unwrap_err(),
        "cannot be read",
    );
    // None of them has spent the join string, and the right kind is taken.
    exchange(&join, &good).await.unwrap();
}

fn is_refused(what: &str, refused: EnrollError, words: &str) {
    match refused {
        EnrollError::Refused { reason, detail } => {
            assert_eq!(reason, Reason::Malformed, "{what}");
            assert!(detail.contains(words), "{what}: {detail}");
        }
        other => panic!("{what}: {other}"),
    }
}

/// The lines of an openssl listing below its extensions, without the identifiers of keys.
fn extensions_of(listing: &str) -> Vec<&str> {
    let from = listing.find("X509v3 extensions:").expect("extensions");
    let to = listing
        .find("Signature Algorithm: ecdsa-with-SHA256\n    Signature Value")
        .unwrap_or_else(|| listing.rfind("Signature Algorithm:").expect("a signature"));
    let lines = listing[from..to].lines().skip(1).map(str::trim);
    let is_identifier =
        |line: &&str| line.contains(':') && line.trim_start_matches("keyid:").split(':').all(|byte| byte.len() == 2);
    lines.filter(|line| !line.is_empty() && !is_identifier(line)).collect()
}

async fn text(arguments: &[&str], file: &Path) -> String {
    let mut openssl = stock("openssl");
    openssl.args(arguments).arg(file);
    run(openssl).await.succeeded().text()
}

async fn exchange(join: &JoinString, csr: &[u8]) -> Result<Enrolled, EnrollError> {
    enroll::exchange(join, csr.to_vec(), BTreeMap::new()).await
}

/// A running gateway and room for files.
struct Place {
    home: GatewayHome,
    _gateway: Daemon,
    dir: TempDir,
}

impl Place {
    async fn set() -> Self {
        let dir = throw_away();
        let home = GatewayHome::set_up(&dir.path().join("gateway")).await;
        let gateway = home.start().await;
        Self {
            home,
            _gateway: gateway,
            dir,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// A new key and a signing request of openssl's, which asks for another subject and for `extensions`.
    async fn request(&self, name: &str, key: &[&str], extensions: &str) -> (PathBuf, PathBuf) {
        let (key_file, csr) = (self.path(&format!("{name}.key")), self.path(&format!("{name}.csr")));
        let asks = if extensions.is_empty() {
            ""
        } else {
            "req_extensions = wishes\n"
        };
        let config = format!(
            "[req]\ndistinguished_name = subject\nprompt = no\n{asks}[subject]\nCN = admin\nO = {DOMAIN}\nOU = gateway\n\
             [wishes]\n{}\n",
            extensions.replace("DOMAIN", DOMAIN)
        );
        let config = self.write(&format!("{name}.cnf"), config.as_bytes());
        let mut openssl = stock("openssl");
        openssl.args(["req", "-new", "-nodes", "-outform", "DER"]).args(key);
        openssl
            .arg("-config")
            .arg(config)
            .arg("-keyout")
            .arg(&key_file)
            .arg("-out")
            .arg(&csr);
        run(openssl).await.succeeded();
        (key_file, csr)
    }

    async fn join(&self, agent: &str) -> JoinString {
        let text = self
            .home
            .token(&self.path(&format!("{agent}.join")), &["--agent", agent])
            .await;
        JoinString::parse(&text).unwrap()
    }

    async fn enrol(&self, agent: &str, csr: &Path) -> Result<Enrolled, EnrollError> {
        exchange(&self.join(agent).await, &std::fs::read(csr).unwrap()).await
    }
}
