//! Who may log in to the gateway, and to the agent's own server behind it. Refusals here are ssh's own "Permission
//! denied": whoever has not proved anything is told nothing, and no session exists.

use fairlead_gateway::admin::api::{AddUser, CreateToken};
use fairlead_tests::clients::{Finished, run, run_with, stock};
use fairlead_tests::lab::{DOMAIN, Lab, Person, until};
use fairlead_tests::upstream::Echo;

use crate::stage::{AGENT, DEVICE, ENDPOINT, account, device, sshd};

/// A gateway with an echo behind it; alice, who may use it and has lost her certificate but not her login key; and bob.
struct Door {
    lab: Lab,
    key: Person,
    _echo: Echo,
}

impl Door {
    async fn set() -> Self {
        let echo = Echo::start().await;
        let mut lab = Lab::start().await;
        lab.agent(AGENT)
            .endpoint("tcp://pump-7:7007", &format!("tcp://{}", echo.address))
            .start()
            .await;
        let key = lab.user("alice", &["field"]).await;
        std::fs::remove_file(key.path("id-cert.pub")).unwrap();
        let groups = ["field".to_owned()].into();
        let bob = AddUser {
            name: "bob".into(),
            groups,
            ..AddUser::default()
        };
        lab.add_user(&bob).await;
        Self { lab, key, _echo: echo }
    }

    /// Certifies the key; `ca` is a private key file, `arguments` are ssh-keygen's.
    async fn certify(&self, ca: &std::path::Path, arguments: &[&str]) {
        let mut sign = stock("ssh-keygen");
        sign.arg("-q")
            .arg("-s")
            .arg(ca)
            .args(["-I", ALICE])
            .args(arguments)
            .arg(self.key.path("id.pub"));
        run(sign).await.succeeded();
    }

    /// Certifies the key by the gateway's own user CA.
    async fn certify_as_gateway(&self, arguments: &[&str]) {
        self.certify(&self.lab.path("gateway/state/ssh/user_ca"), arguments)
            .await;
    }

    async fn knock(&self, more: &[&str]) -> Finished {
        let target = format!("{DEVICE}:7007");
        let mut arguments = more.to_vec();
        arguments.extend(["-W", target.as_str(), DOMAIN]);
        run_with(self.key.ssh(&arguments), b"hello").await
    }

    async fn is_closed(&self, more: &[&str]) {
        let refused = self.knock(more).await;
        assert_eq!(refused.code(), Some(255), "{}", refused.stderr);
        assert!(
            refused.stderr.contains("Permission denied (publickey)."),
            "{}",
            refused.stderr
        );
        assert_eq!(refused.text(), "");
        for audit in [self.lab.gateway_audit(), self.lab.agent_audit(AGENT)] {
            let about_sessions = audit
                .lines()
                .into_iter()
                .filter(|line| line.text("event").starts_with("session."));
            assert_eq!(about_sessions.count(), 0, "nobody logged in, so there was no session");
        }
    }

    async fn is_open(&self) {
        assert_eq!(self.knock(&[]).await.succeeded().text(), "hello");
    }

    /// Ends a test of refusals: the same key opens with a good certificate, so each refusal had its own cause.
    async fn opens_to_a_good_certificate(self) {
        self.certify_as_gateway(GOOD).await;
        self.is_open().await;
        self.lab.stop().await;
    }
}

/// The key id by which a certificate names its owner.
const ALICE: &str = "spiffe://gw.lab.test/user/alice";
/// What ssh-keygen is told beside the authority, the key id and the key.
const GOOD: &[&str] = &["-n", "alice,g-field", "-V", "-1m:+5m"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_the_gateways_ca_for_the_login_name_opens() {
    let door = Door::set().await;
    door.is_closed(&[]).await;
    door.certify_as_gateway(&[
        "-n",
        "alice,g-field",
        "-V",
        "-1m:+5m",
        "-O",
        "source-address=192.0.2.0/24,127.0.0.0/8",
    ])
    .await;
    door.is_open().await;
    door.opens_to_a_good_certificate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_a_foreign_ca_is_refused() {
    let door = Door::set().await;
    let ca = door.lab.path("foreign_ca");
    let mut keygen = stock("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&ca);
    run(keygen).await.succeeded();
    door.certify(&ca, GOOD).await;
    door.is_closed(&[]).await;
    // Nor is the CA that signs hosts a CA for users.
    door.certify(&door.lab.path("gateway/state/ssh/host_ca"), GOOD).await;
    door.is_closed(&[]).await;
    // Nor does a key certify itself.
    door.certify(&door.key.path("id"), GOOD).await;
    door.is_closed(&[]).await;
    door.opens_to_a_good_certificate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_out_of_its_time_is_refused() {
    let door = Door::set().await;
    for time in ["-2h:-1h", "-2h:-1s", "+1h:+2h"] {
        door.certify_as_gateway(&["-n", "alice,g-field", "-V", time]).await;
        door.is_closed(&[]).await;
    }
    door.opens_to_a_good_certificate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_for_its_own_name_only() {
    let door = Door::set().await;
    door.certify_as_gateway(&["-n", "alice,g-field,bob"]).await;
    for login in ["bob", "g-field", "root", "Alice", "alice ", ""] {
        door.is_closed(&["-l", login]).await;
    }
    // Without principals OpenSSH's own server would take it for anybody.
    for principals in [&[][..], &["-n", "bob"], &["-n", "g-field"], &["-n", "*"]] {
        door.certify_as_gateway(principals).await;
        door.is_closed(&[]).await;
    }
    door.opens_to_a_good_certificate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_names_its_owner_and_the_owner_exists() {
    let door = Door::set().await;
    let other_owners = [
        "alice",
        "",
        "spiffe://gw.lab.test/user/bob",
        "spiffe://gw.lab.test/site/default/agent/alice",
    ];
    for owner in other_owners {
        // The last -I counts.
        door.certify_as_gateway(&["-n", "alice,bob,g-field", "-I", owner]).await;
        door.is_closed(&[]).await;
    }
    door.certify_as_gateway(&["-n", "zoe", "-I", "spiffe://gw.lab.test/user/zoe"])
        .await;
    door.is_closed(&["-l", "zoe"]).await;
    door.opens_to_a_good_certificate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_with_conditions_that_do_not_hold_is_refused() {
    let door = Door::set().await;
    let conditions: [&[&str]; 6] = [
        &["-O", "source-address=192.0.2.0/24"],
        &["-O", "force-command=/bin/true"],
        &["-O", "verify-required"],
        &["-O", "critical:nobody-knows@example.com=x"],
        &["-O", "critical:source-address=all"],
        &["-h"],
    ];
    for condition in conditions {
        let mut arguments = GOOD.to_vec();
        arguments.extend(condition);
        door.certify_as_gateway(&arguments).await;
        door.is_closed(&[]).await;
    }
    door.opens_to_a_good_certificate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_for_the_user_it_is_registered_for() {
    let door = Door::set().await;
    let bob = door.lab.user_with_key("carol", &["field"]).await;
    let key = std::fs::read_to_string(bob.path("id")).unwrap();
    let public = std::fs::read_to_string(bob.path("id.pub")).unwrap();
    door.key.write("id", &key);
    door.key.write("id.pub", &public);
    door.is_closed(&[]).await;
    for login in ["bob", "root", ""] {
        door.is_closed(&["-l", login]).await;
    }
    assert_eq!(door.knock(&["-l", "carol"]).await.succeeded().text(), "hello");
    door.lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_but_public_keys_is_offered_and_rsa_is_not_taken() {
    let door = Door::set().await;
    let options = [
        "-o",
        "PreferredAuthentications=password,keyboard-interactive,hostbased,gssapi-with-mic,none",
    ];
    door.is_closed(&options).await;
    let mut keygen = stock("ssh-keygen");
    keygen
        .args(["-q", "-t", "rsa", "-b", "2048", "-N", "", "-f"])
        .arg(door.key.path("rsa"));
    run(keygen).await.succeeded();
    let identity = format!("IdentityFile={}", door.key.path("rsa").display());
    door.is_closed(&["-o", &identity]).await;
    door.lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disabled_user_is_out_with_key_and_certificate_at_once() {
    let mut lab = Lab::start().await;
    lab.agent(AGENT).endpoint(ENDPOINT, "builtin:ssh").start().await;
    let (alice, bob) = (
        lab.user("alice", &["field"]).await,
        lab.user_with_key("bob", &["field"]).await,
    );
    for person in [&alice, &bob] {
        let target = format!("{DEVICE}:22");
        let knock = async || run_with(person.ssh(&["-W", &target, DOMAIN]), b"").await;
        assert_eq!(knock().await.code(), Some(0));
        lab.disable_user(&person.name, true).await;
        let refused = knock().await;
        assert!(
            refused.stderr.contains("Permission denied (publickey)."),
            "{}",
            refused.stderr
        );
        lab.disable_user(&person.name, false).await;
        assert_eq!(knock().await.code(), Some(0));
    }
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registered_key_reaches_both_kinds_of_server_by_plain_ssh_options() {
    let mut lab = Lab::start().await;
    let bob = lab.user_with_key("bob", &["field"]).await;
    let key = std::fs::read_to_string(bob.path("id.pub")).unwrap();
    let server = sshd(&lab, std::slice::from_ref(&key)).await;
    lab.agent(AGENT).endpoint(ENDPOINT, &server.upstream()).start().await;
    lab.agent("pump-8")
        .endpoint("ssh://pump-8", "builtin:ssh")
        .start()
        .await;
    assert!(!bob.path("id-cert.pub").exists(), "a key and nothing else");
    for host in [DEVICE, "pump-8.default.internal"] {
        let jumped = run(bob.ssh(&["-J", DOMAIN, &format!("{}@{host}", account()), "exit 7"])).await;
        assert_eq!(jumped.code(), Some(7), "{}", jumped.stderr);
    }
    // Without a configuration file: what a person would type from the handbook.
    let known = format!(
        "UserKnownHostsFile={} {}",
        bob.path("known_hosts").display(),
        lab.path("people/known_devices").display()
    );
    let identity = bob.path("id").display().to_string();
    let proxy = format!(
        "ProxyCommand=ssh -F none -i {identity} -o IdentitiesOnly=yes -o HostKeyAlias={DOMAIN} -o StrictHostKeyChecking=yes -o UserKnownHostsFile={} -p {} -W %h:%p bob@127.0.0.1",
        bob.path("known_hosts").display(),
        lab.address().port(),
    );
    for host in [DEVICE, "pump-8.default.internal"] {
        let mut ssh = stock("ssh");
        ssh.args([
            "-F",
            "none",
            "-i",
            &identity,
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "BatchMode=yes",
            "-o",
            "StrictHostKeyChecking=yes",
        ]);
        ssh.args([
            "-o",
            &known,
            "-o",
            &proxy,
            &format!("{}@{host}", account()),
            "echo reached",
        ]);
        assert_eq!(run(ssh).await.succeeded().text(), "reached\n");
    }
    lab.stop().await;
}

/// The gateway lets bob through; the device's own server still asks that who logs in is the caller it was told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_logs_in_to_a_device_with_somebody_elses_identity() {
    let mut lab = Lab::start().await;
    lab.agent(AGENT).endpoint(ENDPOINT, "builtin:ssh").start().await;
    let (alice, bob) = (
        lab.user("alice", &["field"]).await,
        lab.user_with_key("bob", &["field"]).await,
    );
    lab.user_with_key("carol", &["field"]).await;
    let identities = [alice.path("id"), lab.path("people/carol/id")];
    for identity in identities {
        let identity = format!("IdentityFile={}", identity.display());
        let through = format!(
            "ProxyCommand=ssh -F {} -W %h:%p {DOMAIN}",
            bob.path("ssh_config").display()
        );
        let mut ssh = stock("ssh");
        let known = format!("UserKnownHostsFile={}", bob.path("known_hosts").display());
        ssh.args([
            "-F",
            "none",
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "BatchMode=yes",
            "-o",
            &known,
            "-o",
            &identity,
            "-o",
            &through,
        ]);
        let refused = run({
            ssh.args([&device(), "true"]);
            ssh
        })
        .await;
        assert_eq!(refused.code(), Some(255));
        assert!(
            refused.stderr.contains("Permission denied (publickey)."),
            "{}",
            refused.stderr
        );
    }
    let audit = lab.agent_audit(AGENT);
    let ends = async || {
        let lines = audit.lines().into_iter();
        let ends: Vec<_> = lines.filter(|line| line.text("event") == "session.end").collect();
        (ends.len() == 2).then_some(ends)
    };
    let ends = until("the ends of both sessions", ends).await;
    assert!(ends.iter().all(|line| line.text("reason") == "denied"), "{ends:?}");
    assert!(
        audit.lines().iter().all(|line| line.text("event") != "session.act"),
        "nothing ran"
    );
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_account_on_the_device_is_told_in_words() {
    let mut lab = Lab::start().await;
    lab.agent(AGENT).endpoint(ENDPOINT, "builtin:ssh").start().await;
    let alice = lab.user("alice", &["field"]).await;
    run(alice.ssh(&[&format!("alice@{DEVICE}"), "true"])).await.succeeded();
    let refused = run(alice.ssh(&[&format!("pi@{DEVICE}"), "true"])).await;
    assert_eq!(refused.code(), Some(255));
    let told = format!("connect as {}@ or alice@ instead", account());
    assert!(
        refused.stderr.contains("fairlead: denied") && refused.stderr.contains(&told),
        "{}",
        refused.stderr
    );
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ssh_does_not_talk_to_a_gateway_or_device_with_another_host_key() {
    let mut lab = Lab::start().await;
    lab.agent(AGENT).endpoint(ENDPOINT, "builtin:ssh").start().await;
    let other = Lab::start().await;
    let alice = lab.user("alice", &["field"]).await;
    run(alice.ssh(&[&device(), "true"])).await.succeeded();
    // Whoever trusts another authority talks to neither.
    alice.write(
        "known_hosts",
        &format!("@cert-authority {DOMAIN},*.internal {}\n", other.host_ca()),
    );
    let refused = run(alice.ssh(&[&device(), "true"])).await;
    assert!(
        refused.stderr.contains("Host key verification failed."),
        "{}",
        refused.stderr
    );
    other.stop().await;
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_of_one_site_never_leaves_it() {
    let mut lab = Lab::start().await;
    lab.agent(AGENT).endpoint(ENDPOINT, "builtin:ssh").start().await;
    let request = CreateToken {
        user: Some("dora".into()),
        groups: ["field".to_owned()].into(),
        site: Some("plant-9".into()),
        ..CreateToken::default()
    };
    let dora = lab.user_by(&request).await;
    let session = run(dora.ssh(&[&device(), "true"])).await.refused_as("denied");
    assert_eq!(lab.gateway_audit().shown(&session), ["session.refuse other-site"]);
    assert!(lab.agent_audit(AGENT).of(&session).is_empty());
    lab.stop().await;
}
