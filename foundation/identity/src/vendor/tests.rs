use std::path::Path;
use std::process::Command;

use super::*;

const URI: &str = "spiffe://vendor.example/etl";
const OWN: &str = "gw.example.com";

/// An authority made by openssl, and certificates of it.
struct Vendor {
    dir: tempfile::TempDir,
}

impl Vendor {
    fn new(key: &str) -> Self {
        let vendor = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        vendor.authority("ca", key, &[]);
        vendor
    }

    fn authority(&self, name: &str, key: &str, signer: &[&str]) {
        let (key_file, cert) = (format!("{name}.key"), format!("{name}.pem"));
        let mut arguments = vec!["req", "-x509", "-nodes", "-newkey"];
        arguments.extend(key.split(' '));
        let subject = format!("/CN={name}");
        arguments.extend(["-keyout", &key_file, "-out", &cert, "-subj", &subject, "-days", "30"]);
        arguments.extend([
            "-addext",
            "basicConstraints=critical,CA:TRUE",
            "-addext",
            "keyUsage=critical,keyCertSign",
        ]);
        arguments.extend(signer);
        openssl(self.dir.path(), &arguments);
    }

    /// A certificate of `ca` with these extensions, on a key of its own.
    fn leaf(&self, ca: &str, key: &str, extensions: &str, days: &str) -> Vec<CertificateDer<'static>> {
        let mut request = vec!["req", "-new", "-nodes", "-newkey"];
        request.extend(key.split(' '));
        request.extend(["-keyout", "leaf.key", "-out", "leaf.csr", "-subj", "/CN=etl"]);
        openssl(self.dir.path(), &request);
        std::fs::write(self.dir.path().join("leaf.ext"), extensions).unwrap();
        let (ca_cert, ca_key) = (format!("{ca}.pem"), format!("{ca}.key"));
        let signing = [
            "x509",
            "-req",
            "-in",
            "leaf.csr",
            "-CA",
            &ca_cert,
            "-CAkey",
            &ca_key,
            "-CAcreateserial",
            "-days",
            days,
            "-extfile",
            "leaf.ext",
            "-out",
            "leaf.pem",
        ];
        openssl(self.dir.path(), &signing);
        self.read("leaf.pem")
    }

    fn read(&self, name: &str) -> Vec<CertificateDer<'static>> {
        let pem = std::fs::read(self.dir.path().join(name)).unwrap();
        CertificateDer::pem_slice_iter(&pem).map(Result::unwrap).collect()
    }

    fn ca(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("ca.pem")).unwrap()
    }

    fn issuer(&self) -> VendorIssuer {
        VendorIssuer::new(&self.ca(), URI, OWN).unwrap()
    }
}

fn openssl(dir: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).current_dir(dir).output();
    let output = output.expect("this test needs openssl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn extensions(uri: &str, usage: &str) -> String {
    format!(
        "basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage={usage}\nsubjectAltName=URI:{uri}\n"
    )
}

const P256: &str = "ec -pkeyopt ec_paramgen_curve:P-256";
const P384: &str = "ec -pkeyopt ec_paramgen_curve:P-384";
const RSA: &str = "rsa:2048";

#[test]
fn the_authorities_vendors_use_are_accepted_for_the_one_uri() {
    for (authority, key) in [(P256, P256), (P384, P256), (RSA, P256), (P256, P384)] {
        let vendor = Vendor::new(authority);
        let chain = vendor.leaf("ca", key, &extensions(URI, "clientAuth,serverAuth"), "10");
        assert_eq!(claimed_uri(&chain).as_deref(), Some(URI));
        let certified = vendor.issuer().verify(&chain, SystemTime::now());
        let certified = certified.unwrap_or_else(|error| panic!("{authority} over {key}: {error}"));
        assert!(certified.not_after > SystemTime::now());
    }
}

#[test]
fn each_thing_that_is_wrong_has_its_own_reason() {
    let vendor = Vendor::new(P256);
    // Certificates are made after this line: by this moment all of them have begun.
    let now = SystemTime::now() + Duration::from_secs(60);
    let reason = |chain: &[CertificateDer<'_>], at| vendor.issuer().verify(chain, at).map_err(|error| error.reason());
    let refused = |extensions: &str| reason(&vendor.leaf("ca", P256, extensions, "10"), now).unwrap_err();
    assert_eq!(
        refused(&extensions("spiffe://vendor.example/etl-2", "clientAuth")),
        "bad-name"
    );
    assert_eq!(
        refused(&extensions(
            &format!("{URI},URI:spiffe://vendor.example/b"),
            "clientAuth"
        )),
        "many-names"
    );
    assert_eq!(
        refused("extendedKeyUsage=clientAuth\nsubjectAltName=DNS:etl.vendor.example\n"),
        "no-name"
    );
    assert_eq!(refused(&extensions(URI, "serverAuth")), "wrong-usage");
    assert_eq!(refused(&extensions(URI, "clientAuth,codeSigning")), "wrong-usage");
    assert_eq!(refused(&format!("subjectAltName=URI:{URI}\n")), "wrong-usage");
    assert_eq!(
        refused(&extensions(URI, "clientAuth").replace("CA:FALSE", "CA:TRUE")),
        "ca-as-leaf"
    );
    let weak = vendor.leaf("ca", RSA, &extensions(URI, "clientAuth"), "10");
    assert_eq!(reason(&weak, now).unwrap_err(), "weak-key");
    let good = vendor.leaf("ca", P256, &extensions(URI, "clientAuth"), "10");
    assert!(reason(&good, now).is_ok());
    assert_eq!(
        reason(&good, now + Duration::from_secs(20 * 86_400)).unwrap_err(),
        "expired"
    );
    assert_eq!(
        reason(&good, now - Duration::from_secs(86_400)).unwrap_err(),
        "not-yet-valid"
    );
    assert_eq!(reason(&[], now).unwrap_err(), "malformed");
    let long: Vec<_> = std::iter::repeat_n(good[0].clone(), 5).collect();
    assert_eq!(reason(&long, now).unwrap_err(), "chain-too-long");
    // The expired authority is told apart from an expired leaf only by the moment; both end it.
    assert_eq!(
        reason(&good, now + Duration::from_secs(40 * 86_400)).unwrap_err(),
        "expired"
    );
}

#[test]
fn identity_comes_from_the_end_entity_alone() {
    let (vendor, stranger) = (Vendor::new(P256), Vendor::new(P256));
    let good = vendor.leaf("ca", P256, &extensions(URI, "clientAuth"), "10");
    let foreign = stranger.leaf("ca", P256, &extensions(URI, "clientAuth"), "10");
    let now = SystemTime::now();
    let verify = |chain: &[CertificateDer<'_>]| vendor.issuer().verify(chain, now).map_err(|error| error.reason());
    // The stranger gave its authority the same name.
    assert_eq!(verify(&foreign), Err("bad-signature"));
    // A valid certificate as filler behind a foreign one (GHSA-mrpr-756c-xm47) is no identity.
    assert_eq!(verify(&[foreign[0].clone(), good[0].clone()]), Err("bad-signature"));
    assert!(
        verify(&[good[0].clone(), foreign[0].clone()]).is_ok(),
        "a filler does not harm"
    );
    // What one workload's certificate signs is nobody.
    std::fs::rename(vendor.dir.path().join("leaf.key"), vendor.dir.path().join("own.key")).unwrap();
    std::fs::rename(vendor.dir.path().join("leaf.pem"), vendor.dir.path().join("own.pem")).unwrap();
    let nested = vendor.leaf("own", P256, &extensions(URI, "clientAuth"), "10");
    assert!(verify(&[nested[0].clone(), good[0].clone()]).is_err());
}

#[test]
fn an_authority_is_trusted_only_where_it_can_be_one() {
    let vendor = Vendor::new(P256);
    let new = |pem: &str, uri: &str| VendorIssuer::new(pem, uri, OWN).map(drop);
    assert_eq!(new(&vendor.ca(), URI), Ok(()));
    assert_eq!(new("nothing", URI), Err(VendorError::Count(0)));
    assert_eq!(new(&vendor.ca().repeat(5), URI), Err(VendorError::Count(5)));
    let leaf = vendor.leaf("ca", P256, &extensions(URI, "clientAuth"), "10");
    let leaf = crate::chain::to_pem(&leaf);
    assert_eq!(new(&leaf, URI), Err(VendorError::NotAnAuthority(1)));
    assert_eq!(
        new(&vendor.ca(), "spiffe://gw.example.com/user/alice"),
        Err(VendorError::OwnTrustDomain(OWN.into()))
    );
    for bad in [
        "",
        "etl",
        "spiffe://",
        "spiffe:///etl",
        "spiffe://Vendor.example/etl",
        "spiffe://vendor.example/e l",
    ] {
        assert!(matches!(new(&vendor.ca(), bad), Err(VendorError::BadUri(_))), "{bad}");
    }
    let other = Vendor::new(P256);
    assert_ne!(vendor.issuer().digest(), other.issuer().digest());
}
