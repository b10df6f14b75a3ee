use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::PermissionsExt,
    process::Command,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::ExposeSecret;
use ssh_key::{
    Certificate,
    certificate::{Builder, CertType},
};

use super::*;
use crate::{
    keys::PrivateKey as P256,
    lab::{DAY, HOUR, USER, now, who},
};

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

fn groups(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A user certificate for a new P-256 key, parsed.
fn alice(authority: &SshAuthority) -> Certificate {
    let line = P256::generate().unwrap().ssh_public("").unwrap();
    let text = authority
        .issue_user_certificate(&line, &who(USER), &groups(&["field"]), 8 * HOUR, now(), 42)
        .unwrap();
    Certificate::from_openssh(&text).unwrap()
}

fn cas(authority: &SshAuthority) -> Vec<PublicKey> {
    vec![authority.user_ca().public_key().clone()]
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// A certificate that would be accepted for alice, changed before it is signed.
fn forged(signer: &SshKey, change: impl FnOnce(&mut Builder)) -> Certificate {
    forged_by(signer, USER, &["alice"], change)
}

fn forged_by(signer: &SshKey, key_id: &str, principals: &[&str], change: impl FnOnce(&mut Builder)) -> Certificate {
    let subject = SshKey::create().unwrap();
    let (begin, end) = (seconds(now() - HOUR), seconds(now() + HOUR));
    let mut builder = Builder::new([1; 16], subject.public_key().clone(), begin, end).unwrap();
    builder.key_id(key_id).unwrap();
    for principal in principals {
        builder.valid_principal(*principal).unwrap();
    }
    change(&mut builder);
    builder.sign(signer.private_key()).unwrap()
}

fn reason(certificate: &Certificate, authority: &SshAuthority, login: &str) -> &'static str {
    verify_user_certificate(certificate, &cas(authority), login, HOME, now())
        .map(|_| ())
        .unwrap_err()
        .reason()
}

#[test]
fn a_certificate_lets_its_owner_in() {
    let authority = SshAuthority::create().unwrap();
    let user = verify_user_certificate(&alice(&authority), &cas(&authority), "alice", HOME, now()).unwrap();
    assert_eq!(user.name, "alice");
    assert_eq!(user.key_id, USER);
    assert_eq!(user.principal, who(USER));
    assert_eq!(user.serial, 42);
}

#[test]
fn a_certificate_lets_nobody_else_in() {
    let authority = SshAuthority::create().unwrap();
    let certificate = alice(&authority);
    assert_eq!(certificate.valid_principals(), ["alice", "g-field"]);
    for login in ["bob", "root", "", "Alice", "alice ", "g-field", "field", "*"] {
        assert_eq!(reason(&certificate, &authority, login), "wrong-user", "{login:?}");
    }
}

#[test]
fn only_trusted_plain_keys_sign() {
    let (ours, theirs) = (SshAuthority::create().unwrap(), SshAuthority::create().unwrap());
    assert_eq!(reason(&alice(&theirs), &ours, "alice"), "wrong-ca");
    let by_host_ca = forged(ours.host_ca(), |_| ());
    assert_eq!(
        reason(&by_host_ca, &ours, "alice"),
        "wrong-ca",
        "the host authority signs no users"
    );
    assert_eq!(
        verify_user_certificate(&alice(&ours), &[], "alice", HOME, now()),
        Err(SshCertError::WrongCa)
    );
    let both = [cas(&theirs), cas(&ours)].concat();
    assert!(verify_user_certificate(&alice(&ours), &both, "alice", HOME, now()).is_ok());
}

/// Length-prefixed bytes as SSH writes strings (RFC 4251, section 5).
fn put(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    to.extend(bytes);
}

#[test]
fn a_certificate_signed_by_a_certificate_is_refused() {
    let authority = SshAuthority::create().unwrap();
    let good = forged(authority.user_ca(), |_| ());
    let bytes = good.to_bytes().unwrap();
    // The certificate ends with the signing key and the signature, each a string.
    let mut tail = Vec::new();
    put(&mut tail, &authority.user_ca().public_key().to_bytes().unwrap());
    let at = bytes.windows(tail.len()).rposition(|window| window == tail).unwrap();
    let mut nested = bytes[..at].to_vec();
    put(&mut nested, &bytes);
    nested.extend_from_slice(&bytes[at + tail.len()..]);
    let nested = Certificate::from_bytes(&nested).unwrap();
    assert!(nested.signature_key().is_certificate());
    assert_eq!(reason(&nested, &authority, "alice"), "nested-certificate");
    let trusting = [PublicKey::new(nested.signature_key().clone(), "")];
    assert_eq!(
        verify_user_certificate(&nested, &trusting, "alice", HOME, now()),
        Err(SshCertError::NestedCertificate),
        "even when somebody lists it as trusted"
    );
}

#[test]
fn every_changed_byte_is_refused() {
    let authority = SshAuthority::create().unwrap();
    let bytes = alice(&authority).to_bytes().unwrap();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        if let Ok(certificate) = Certificate::from_bytes(&changed) {
            let accepted = verify_user_certificate(&certificate, &cas(&authority), "alice", HOME, now());
            assert!(accepted.is_err(), "{at}");
        }
    }
    let mut broken = bytes.clone();
    *broken.last_mut().unwrap() ^= 1;
    let broken = Certificate::from_bytes(&broken).unwrap();
    assert_eq!(reason(&broken, &authority, "alice"), "bad-signature");
}

#[test]
fn time_is_checked_at_both_ends() {
    let authority = SshAuthority::create().unwrap();
    let certificate = alice(&authority);
    let at = |time| verify_user_certificate(&certificate, &cas(&authority), "alice", HOME, time).map(|_| ());
    let minutes = |count: u64| Duration::from_secs(60 * count);
    assert_eq!(at(now() - minutes(5)), Ok(()));
    assert_eq!(at(now() - minutes(6)), Err(SshCertError::NotYetValid));
    assert_eq!(at(now() + 8 * HOUR - minutes(1)), Ok(()));
    assert_eq!(at(now() + 8 * HOUR), Err(SshCertError::Expired));
    assert_eq!(at(SystemTime::UNIX_EPOCH - DAY), Err(SshCertError::NotYetValid));
}

#[test]
fn hosts_are_no_users() {
    let authority = SshAuthority::create().unwrap();
    let host = forged(authority.user_ca(), |builder| {
        builder.cert_type(CertType::Host).unwrap();
    });
    assert_eq!(reason(&host, &authority, "alice"), "wrong-usage");
}

#[test]
fn conditions_nobody_enforces_are_refused() {
    let authority = SshAuthority::create().unwrap();
    for option in ["force-command", "verify-required", "no-such-thing@example.com"] {
        let certificate = forged(authority.user_ca(), |builder| {
            builder.critical_option(option, "x").unwrap();
        });
        assert_eq!(reason(&certificate, &authority, "alice"), "unknown-critical-option");
    }
    let extension = forged(authority.user_ca(), |builder| {
        builder.extension("no-such-thing@example.com", "x").unwrap();
    });
    let read = verify_user_certificate(&extension, &cas(&authority), "alice", HOME, now());
    assert!(read.is_ok(), "extensions are not conditions");
}

#[test]
fn the_source_address_is_enforced() {
    let authority = SshAuthority::create().unwrap();
    let from = |list: &str, source: IpAddr| {
        let certificate = forged(authority.user_ca(), |builder| {
            builder.critical_option("source-address", list).unwrap();
        });
        let user = verify_user_certificate(&certificate, &cas(&authority), "alice", source, now());
        user.map(|_| "in").unwrap_or_else(|error| error.reason())
    };
    let mapped = IpAddr::V6(Ipv4Addr::new(192, 0, 2, 7).to_ipv6_mapped());
    let v6 = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9));
    for (list, source, expected) in [
        ("192.0.2.7", HOME, "in"),
        ("192.0.2.7/32", HOME, "in"),
        ("192.0.2.0/24", HOME, "in"),
        ("192.0.2.0/24", mapped, "in"),
        ("0.0.0.0/0", HOME, "in"),
        ("10.0.0.0/8,192.0.2.0/29", HOME, "in"),
        ("2001:db8::/32", v6, "in"),
        ("2001:db8::9", v6, "in"),
        ("192.0.2.8/29", HOME, "wrong-source"),
        ("10.9.9.9/32", HOME, "wrong-source"),
        ("0.0.0.0/0", v6, "wrong-source"),
        ("::/0", HOME, "wrong-source"),
        ("2001:db8::8", v6, "wrong-source"),
        ("192.0.2.0/33", HOME, "bad-source"),
        ("::/129", HOME, "bad-source"),
        ("192.0.2.0/+24", HOME, "bad-source"),
        ("192.0.2.7, 10.0.0.1", HOME, "bad-source"),
        ("!192.0.2.7", HOME, "bad-source"),
        ("*", HOME, "bad-source"),
        ("", HOME, "bad-source"),
        ("192.0.2.0/24,", HOME, "bad-source"),
    ] {
        assert_eq!(from(list, source), expected, "{list:?} from {source}");
    }
}

#[test]
fn the_owner_is_read_from_the_key_id_and_must_be_a_principal() {
    let authority = SshAuthority::create().unwrap();
    let with = |key_id: &str, principals: &[&str], login: &str| {
        let certificate = forged_by(authority.user_ca(), key_id, principals, |builder| {
            if principals.is_empty() {
                builder.all_principals_valid().unwrap();
            }
        });
        let user = verify_user_certificate(&certificate, &cas(&authority), login, HOME, now());
        user.map(|_| "in").unwrap_or_else(|error| error.reason())
    };
    assert_eq!(with(USER, &["alice"], "alice"), "in");
    assert_eq!(with("spiffe://gw.example.com/workload/etl", &["etl"], "etl"), "in");
    assert_eq!(with(USER, &[], "alice"), "no-name");
    assert_eq!(with(USER, &["bob"], "bob"), "wrong-user");
    assert_eq!(with(USER, &["bob"], "alice"), "wrong-user");
    assert_eq!(with("alice", &["alice"], "alice"), "bad-name");
    assert_eq!(with("", &["alice"], "alice"), "bad-name");
    let agent = "spiffe://gw.example.com/site/plant-7/agent/pump-7";
    assert_eq!(with(agent, &["pump-7"], "pump-7"), "bad-name");
}

#[test]
fn nobody_gets_a_name_that_reads_as_a_group() {
    let authority = SshAuthority::create().unwrap();
    let line = SshKey::create().unwrap().public_line();
    let issue = |who_text: &str, names: &[&str]| {
        let certificate = authority.issue_user_certificate(&line, &who(who_text), &groups(names), HOUR, now(), 1);
        certificate.map(|_| ())
    };
    let reserved = issue("spiffe://gw.example.com/user/g-admins", &[]);
    assert!(matches!(reserved, Err(SshIssueError::ReservedName(_))));
    let agent = issue("spiffe://gw.example.com/site/plant-7/agent/pump-7", &[]);
    assert!(matches!(agent, Err(SshIssueError::NotACaller(_))));
    for bad in ["", "a,b", "a b", "a\n", "ä", "*", "x".repeat(65).as_str()] {
        assert!(
            matches!(issue(USER, &[bad]), Err(SshIssueError::BadGroup(_))),
            "{bad:?}"
        );
    }
    assert!(issue(USER, &vec!["a"; MAX_GROUPS]).is_ok());
    assert!(matches!(
        issue(USER, &vec!["a"; MAX_GROUPS + 1]),
        Err(SshIssueError::BadGroup(_))
    ));
}

#[test]
fn lives_and_host_names_are_bounded() {
    let authority = SshAuthority::create().unwrap();
    let line = SshKey::create().unwrap().public_line();
    let host = |names: &[&str], life| {
        authority
            .issue_host_certificate(&line, &groups(names), life, now(), 1)
            .map(|_| ())
    };
    assert_eq!(host(&["gw.example.com", "127.0.0.1", "::1"], DAY), Ok(()));
    assert_eq!(host(&["a.b"], Duration::ZERO), Err(SshIssueError::BadLife));
    assert_eq!(host(&["a.b"], 401 * DAY), Err(SshIssueError::BadLife));
    for bad in [
        &[][..],
        &["*"],
        &["*.internal"],
        &["A.b"],
        &["a,b"],
        &[""],
        &["a.b"; 65],
    ] {
        assert!(matches!(host(bad, DAY), Err(SshIssueError::BadHostName(_))), "{bad:?}");
    }
}

#[test]
fn issuing_is_a_function_of_its_arguments() {
    let authority = SshAuthority::create().unwrap();
    let line = SshKey::create().unwrap().public_line();
    let issue = |serial| {
        authority
            .issue_user_certificate(&line, &who(USER), &[], HOUR, now(), serial)
            .unwrap()
    };
    assert_eq!(issue(1), issue(1));
    let nonce = |text: String| Certificate::from_openssh(&text).unwrap().nonce().to_vec();
    assert_ne!(nonce(issue(1)), nonce(issue(2)));
    let other = SshAuthority::create().unwrap();
    let elsewhere = other
        .issue_user_certificate(&line, &who(USER), &[], HOUR, now(), 1)
        .unwrap();
    assert_ne!(nonce(issue(1)), nonce(elsewhere));
}

fn ssh_keygen(arguments: &[&str], file: &str, text: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(file);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let output = Command::new("ssh-keygen")
        .args(arguments)
        .arg(&path)
        .env("TZ", "UTC")
        .output();
    let output = output.expect("these tests need OpenSSH's ssh-keygen");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn openssh_reads_our_certificates_as_we_mean_them() {
    let authority = SshAuthority::create().unwrap();
    let line = P256::generate().unwrap().ssh_public("alice@laptop").unwrap();
    let user = authority
        .issue_user_certificate(&line, &who(USER), &groups(&["field", "ops"]), 8 * HOUR, now(), 42)
        .unwrap();
    let shown = ssh_keygen(&["-L", "-f"], "id-cert.pub", &user);
    let ca = fingerprint(authority.user_ca().public_key());
    for expected in [
        "ecdsa-sha2-nistp256-cert-v01@openssh.com user certificate",
        &format!("Signing CA: ED25519 {ca}"),
        &format!("Key ID: \"{USER}\""),
        "Serial: 42",
        "Valid: from 2027-01-15T07:55:00 to 2027-01-15T16:00:00",
        "Critical Options: (none)",
        "permit-port-forwarding",
        "permit-pty",
    ] {
        assert!(shown.contains(expected), "{expected}\n{shown}");
    }
    let lines: Vec<&str> = shown.lines().map(str::trim).collect();
    let at = lines.iter().position(|line| line.starts_with("Principals:")).unwrap();
    assert_eq!(lines[at + 1..at + 4], ["alice", "g-field", "g-ops"]);
    assert!(!shown.contains("agent-forwarding") && !shown.contains("X11"), "{shown}");

    let host = authority
        .issue_host_certificate(
            &authority.host_key().public_line(),
            &groups(&["gw.example.com"]),
            DAY,
            now(),
            7,
        )
        .unwrap();
    let shown = ssh_keygen(&["-L", "-f"], "host-cert.pub", &host);
    assert!(
        shown.contains("ssh-ed25519-cert-v01@openssh.com host certificate"),
        "{shown}"
    );
    assert!(
        shown.contains("gw.example.com") && shown.contains("Extensions: (none)"),
        "{shown}"
    );
}

#[test]
fn openssh_reads_our_keys_and_fingerprints() {
    let key = SshKey::create().unwrap();
    let file = key.to_openssh().unwrap();
    let derived = ssh_keygen(&["-y", "-f"], "id", file.expose_secret());
    assert_eq!(derived.trim(), key.public_line());
    let shown = ssh_keygen(&["-l", "-f"], "id.pub", &key.public_line());
    assert!(shown.contains(&fingerprint(key.public_key())), "{shown}");
    let again = SshKey::from_openssh(file.expose_secret()).unwrap();
    assert_eq!(again.public_line(), key.public_line());
}

#[test]
fn the_gateways_keys_read_back() {
    let made = SshAuthority::create().unwrap();
    let text = |key: &SshKey| key.to_openssh().unwrap();
    let [user, host, own] = [made.user_ca(), made.host_ca(), made.host_key()].map(text);
    let read = SshAuthority::from_openssh(user.expose_secret(), host.expose_secret(), own.expose_secret()).unwrap();
    assert_eq!(read.user_ca().public_line(), made.user_ca().public_line());
    assert_eq!(read.host_ca().public_line(), made.host_ca().public_line());
    assert_eq!(read.host_key().public_line(), made.host_key().public_line());
    let p256 = P256::generate().unwrap().ssh_private().unwrap();
    let refused = |text: &str| SshKey::from_openssh(text).map(|_| ()).unwrap_err();
    assert_eq!(refused(p256.expose_secret()), SshKeyError::NotEd25519);
    assert_eq!(refused("x"), SshKeyError::Unreadable);
    let shown = format!("{:?} {:?}", made.host_key().private_key(), user);
    let secret = STANDARD.encode(user.expose_secret());
    assert!(!shown.contains("BEGIN") && !shown.contains(&secret), "{shown}");
}

fn sk_line(kind: &str, key: &[&[u8]]) -> String {
    let mut blob = Vec::new();
    put(&mut blob, kind.as_bytes());
    key.iter().for_each(|part| put(&mut blob, part));
    put(&mut blob, b"ssh:");
    format!("{kind} {} yubikey", STANDARD.encode(blob))
}

#[test]
fn registered_keys_are_read() {
    let ed25519 = SshKey::create().unwrap();
    let p256 = P256::generate().unwrap().ssh_public("alice@laptop").unwrap();
    let blob = STANDARD.decode(p256.split(' ').nth(1).unwrap()).unwrap();
    let point = &blob[blob.len() - 65..];
    let public = ed25519.public_key().key_data().ed25519().unwrap().0;
    for line in [
        ed25519.public_line(),
        format!("  {} a comment with spaces\r\n", ed25519.public_line()),
        p256,
        sk_line("sk-ssh-ed25519@openssh.com", &[&public]),
        sk_line("sk-ecdsa-sha2-nistp256@openssh.com", &[b"nistp256", point]),
    ] {
        let key = parse_public_line(&line).unwrap();
        assert!(fingerprint(&key).starts_with("SHA256:"));
        let again = parse_public_line(&key.to_openssh().unwrap()).unwrap();
        assert_eq!(again.key_data(), key.key_data());
    }
}

#[test]
fn what_is_no_registered_key_is_told_why() {
    let error = |text: &str| parse_public_line(text).unwrap_err();
    let rsa = error("ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQC7 bob");
    assert_eq!(rsa, PublicKeyError::Refused("RSA"));
    let message = rsa.to_string();
    assert!(
        message.contains("ssh-keygen -t ed25519") && message.contains("timing"),
        "{message}"
    );
    assert_eq!(error("ssh-dss AAAA"), PublicKeyError::Refused("DSA"));
    assert_eq!(error(" \n"), PublicKeyError::Empty);
    let private = SshKey::create().unwrap().to_openssh().unwrap();
    assert_eq!(error(private.expose_secret()), PublicKeyError::PrivateKey);
    let line = SshKey::create().unwrap().public_line();
    assert_eq!(error(&format!("{line}\n{line}")), PublicKeyError::NotOneLine);
    assert_eq!(
        error(&format!("{line} {}", "x".repeat(5000))),
        PublicKeyError::NotOneLine
    );
    assert!(matches!(error(&line[..40]), PublicKeyError::Damaged(_)));
    let lying = line.replacen("ssh-ed25519", "ecdsa-sha2-nistp256", 1);
    assert!(matches!(error(&lying), PublicKeyError::Damaged(_)));
    assert!(matches!(error("ssh-ed448 AAAA"), PublicKeyError::UnknownType(_)));
    assert!(matches!(
        error(&format!("from=\"*\" {line}")),
        PublicKeyError::UnknownType(_)
    ));
    let authority = SshAuthority::create().unwrap();
    let certificate = alice(&authority).to_openssh().unwrap();
    assert_eq!(error(&certificate), PublicKeyError::Certificate);
}
