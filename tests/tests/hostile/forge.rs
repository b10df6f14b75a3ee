//! Certificates that nobody should make, made with the `openssl` program.

use std::path::PathBuf;

use fairlead_runtime::config_file::write_private;
use fairlead_tests::clients::{self, stock};
use fairlead_tests::programs::GatewayHome;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate chain and the key that its presenter signs with, which need not fit.
pub(crate) struct Presented {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Presented {
    pub(crate) fn new(chain: &[&Made], signer: &Made) -> Self {
        Self {
            chain: chain.iter().map(|made| made.certificate()).collect(),
            key: signer.key(),
        }
    }
}

/// A certificate and its key, as files.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) pem: PathBuf,
    pub(crate) key_pem: PathBuf,
}

impl Made {
    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(&self.pem).expect("a certificate in PEM")
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_file(&self.key_pem).expect("a key in PEM")
    }
}

/// How a certificate is made; the default is one that a gateway accepts but for its names.
#[derive(Clone)]
pub(crate) struct Recipe {
    pub(crate) subject: &'static str,
    /// Lines of the extension section.
    pub(crate) extensions: String,
    /// Seconds from now at which the validity begins and ends.
    pub(crate) valid: (i64, i64),
    pub(crate) digest: &'static str,
    /// Arguments of `openssl genpkey`.
    pub(crate) key: &'static [&'static str],
}

pub(crate) const DAY: i64 = 86_400;
const P256: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
pub(crate) const RSA_1024: &[&str] = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"];
pub(crate) const RSA_2048: &[&str] = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];

impl Recipe {
    /// A leaf for clients or servers with these subject alternative names (openssl's spelling), if any.
    pub(crate) fn leaf(usage: &str, names: &str) -> Self {
        let names = if names.is_empty() {
            String::new()
        } else {
            format!("subjectAltName={names}\n")
        };
        Self {
            subject: "/CN=x",
            extensions: format!(
                "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage={usage}\n{names}"
            ),
            valid: (-60, 7 * DAY),
            digest: "sha256",
            key: P256,
        }
    }

    /// An authority with these lines besides.
    pub(crate) fn authority(subject: &'static str, more: &str) -> Self {
        Self {
            subject,
            extensions: format!("basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n{more}"),
            ..Self::leaf("clientAuth", "")
        }
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

/// Where certificates are made, and the authorities of the deployment whose keys were stolen for it.
pub(crate) struct Forge {
    dir: PathBuf,
    pub(crate) root: Made,
    pub(crate) issuing: Made,
}

impl Forge {
    pub(crate) async fn new(dir: PathBuf, home: &GatewayHome) -> Self {
        fairlead_runtime::config_file::private_dir(&dir).unwrap();
        let (mut root, mut issuing) = (None, None);
        for entry in std::fs::read_dir(home.path("state/ca")).unwrap() {
            let key_pem = entry.unwrap().path();
            let Some(stem) = key_pem.to_str().unwrap().strip_suffix(".key.pem") else {
                continue;
            };
            let pem = PathBuf::from(format!("{stem}.pem"));
            if !pem.exists() {
                continue;
            }
            let mut show = stock("openssl");
            show.args(["x509", "-noout", "-subject", "-issuer", "-in"]).arg(&pem);
            let shown = clients::run(show).await.succeeded().text();
            let names: Vec<&str> = shown
                .lines()
                .filter_map(|line| line.split_once('='))
                .map(|(_, name)| name)
                .collect();
            let made = Some(Made { pem, key_pem });
            if names[0] == names[1] {
                root = made
            } else {
                issuing = made
            }
        }
        std::fs::write(dir.join("index.txt"), "").unwrap();
        Self {
            dir,
            root: root.expect("a root"),
            issuing: issuing.expect("an issuing authority"),
        }
    }

    /// Makes a certificate; `issuer` is `None` for one that signs itself.
    pub(crate) async fn make(&self, name: &str, recipe: &Recipe, issuer: Option<&Made>) -> Made {
        let made = Made {
            pem: self.dir.join(format!("{name}.pem")),
            key_pem: self.dir.join(format!("{name}.key.pem")),
        };
        let mut key = stock("openssl");
        key.arg("genpkey").args(recipe.key).arg("-out").arg(&made.key_pem);
        clients::run(key).await.succeeded();
        self.certify(name, recipe, issuer, &made).await;
        made
    }

    /// Makes another certificate for a key that is there.
    pub(crate) async fn certify(&self, name: &str, recipe: &Recipe, issuer: Option<&Made>, made: &Made) {
        let (request, config) = (self.dir.join("request.pem"), self.dir.join(format!("{name}.cnf")));
        let mut ask = stock("openssl");
        ask.args(["req", "-new", "-subj", recipe.subject, "-key"])
            .arg(&made.key_pem)
            .arg("-out")
            .arg(&request);
        clients::run(ask).await.succeeded();
        let text = format!(
            "[ca]\ndefault_ca=it\n[it]\ndatabase={dir}/index.txt\nnew_certs_dir={dir}\npolicy=any\nunique_subject=no\nrand_serial=yes\n[any]\ncommonName=optional\n[extensions]\n{}",
            recipe.extensions,
            dir = self.dir.display()
        );
        write_private(&config, text.as_bytes(), 0o600).unwrap();
        let (begins, ends) = (moment(recipe.valid.0), moment(recipe.valid.1));
        let mut sign = stock("openssl");
        sign.args(["ca", "-batch", "-notext", "-preserveDN", "-extensions", "extensions"])
            .args(["-md", recipe.digest, "-startdate", &begins, "-enddate", &ends])
            .arg("-config")
            .arg(&config)
            .arg("-in")
            .arg(&request)
            .arg("-out")
            .arg(&made.pem);
        match issuer {
            Some(issuer) => sign.arg("-cert").arg(&issuer.pem).arg("-keyfile").arg(&issuer.key_pem),
            None => sign.arg("-selfsign").arg("-keyfile").arg(&made.key_pem),
        };
        clients::run(sign).await.succeeded();
    }
}

/// A moment so many seconds from now, as `openssl ca` wants it.
fn moment(seconds: i64) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let seconds = i64::try_from(now.as_secs()).unwrap() + seconds;
    let (days, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    // Days to date in the Gregorian calendar (Hinnant, "chrono-compatible low-level date algorithms").
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}{month:02}{day:02}{:02}{:02}{:02}Z",
        second / 3_600,
        second / 60 % 60,
        second % 60
    )
}
