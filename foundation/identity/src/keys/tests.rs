use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use secrecy::ExposeSecret;

use super::*;

/// The public key `ssh-keygen -y` derives from a private key file, without comment.
fn ssh_keygen_public(private: &SecretString) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("id");
    fs::write(&path, private.expose_secret()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let output = Command::new("ssh-keygen").arg("-y").arg("-f").arg(&path).output();
    let output = output.expect("these tests need OpenSSH's ssh-keygen");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_key_reads_back_from_pem() {
    let key = PrivateKey::generate().unwrap();
    let again = PrivateKey::from_pem(key.to_pem().expose_secret()).unwrap();
    assert_eq!(key.spki_sha256(), again.spki_sha256());
    assert_ne!(key.spki_sha256(), PrivateKey::generate().unwrap().spki_sha256());
}

#[test]
fn other_keys_and_other_texts_are_told_apart() {
    let refused = |pem: &str| PrivateKey::from_pem(pem).map(|_| ()).unwrap_err();
    assert_eq!(refused(""), KeyError::NotPem);
    assert_eq!(
        refused("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        KeyError::NotPem
    );
    for algorithm in [
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_RSA_SHA256,
    ] {
        let other = KeyPair::generate_for(algorithm).unwrap().serialize_pem();
        assert_eq!(refused(&other), KeyError::NotP256);
    }
    let pem = PrivateKey::generate().unwrap().to_pem();
    let cut = pem.expose_secret().replace("-----END PRIVATE KEY-----", "");
    assert_eq!(refused(&cut), KeyError::NotPem);
}

#[test]
fn openssh_derives_the_same_public_key() {
    let key = PrivateKey::generate().unwrap();
    let line = key.ssh_public("").unwrap();
    assert!(line.starts_with("ecdsa-sha2-nistp256 "));
    assert_eq!(ssh_keygen_public(&key.ssh_private().unwrap()), line);
    let commented = key.ssh_public("alice@laptop").unwrap();
    assert_eq!(commented, format!("{line} alice@laptop"));
    assert!(key.ssh_public("a\nssh-ed25519 AAAA").is_err());
}

#[test]
fn openssh_takes_private_scalars_that_begin_with_zeros_or_ones() {
    let with_first = |wanted: fn(u8) -> bool| {
        std::iter::repeat_with(|| PrivateKey::generate().unwrap())
            .take(20_000)
            .find(|key| wanted(key.scalar().unwrap()[0]))
            .unwrap()
    };
    for key in [with_first(|b| b == 0), with_first(|b| b >= 0x80)] {
        let public = ssh_keygen_public(&key.ssh_private().unwrap());
        assert_eq!(public, key.ssh_public("").unwrap());
    }
}

#[test]
fn a_signing_request_asks_for_no_name() {
    use x509_parser::certification_request::X509CertificationRequest;
    let key = PrivateKey::generate().unwrap();
    let der = key.csr_der().unwrap();
    let (rest, csr) = X509CertificationRequest::from_der(&der).unwrap();
    assert!(rest.is_empty());
    assert_eq!(csr.certification_request_info.subject.iter().count(), 0);
    assert!(csr.requested_extensions().is_none());
    let spki = csr.certification_request_info.subject_pki.raw;
    assert_eq!(key.spki_sha256(), <[u8; 32]>::from(Sha256::digest(spki)));
}

#[test]
fn secrets_do_not_print() {
    let key = PrivateKey::generate().unwrap();
    for secret in [key.to_pem(), key.ssh_private().unwrap()] {
        let shown = format!("{secret:?}");
        assert!(!shown.contains("BEGIN") && shown.len() < 64, "{shown}");
    }
}

#[test]
fn random_values_differ() {
    assert_ne!(random_serial().unwrap(), random_serial().unwrap());
    assert_ne!(*random::<32>().unwrap(), *random::<32>().unwrap());
}
