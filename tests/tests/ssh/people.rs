//! Keys that administrators register, security keys among them.

use std::path::PathBuf;

use fairlead_tests::clients::{run, stock};
use fairlead_tests::lab::Lab;
use hyper::Method;
use serde_json::{Value, json};

use crate::stage::{AGENT, ENDPOINT, device};

/// OpenSSH's own security key in software, of the Debian package openssh-tests; `FAIRLEAD_SK_PROVIDER` names another.
const SK_DUMMY: &str = "/usr/lib/openssh/regress/misc/sk-dummy/sk-dummy.so";

fn provider() -> PathBuf {
    let named = std::env::var_os("FAIRLEAD_SK_PROVIDER").map(PathBuf::from);
    let path = named.unwrap_or_else(|| SK_DUMMY.into());
    let wanted = "a software security key is needed: apt-get install openssh-tests, as tests/run does";
    assert!(path.exists(), "{} is not there: {wanted}", path.display());
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_security_key_logs_in_is_listed_by_its_label_and_is_taken_away_at_once() {
    let provider = provider();
    let mut lab = Lab::start().await;
    lab.agent(AGENT).endpoint(ENDPOINT, "builtin:ssh").start().await;
    for (name, kind, algorithm) in [
        ("anna", "ed25519-sk", "sk-ssh-ed25519@openssh.com"),
        ("emil", "ecdsa-sk", "sk-ecdsa-sha2-nistp256@openssh.com"),
    ] {
        let person = lab.user_with_key(name, &["field"]).await;
        let path = person.path("sk");
        let mut keygen = stock("ssh-keygen");
        keygen
            .args(["-q", "-t", kind, "-N", "", "-C", "a comment", "-w"])
            .arg(&provider)
            .arg("-f")
            .arg(&path);
        run(keygen).await.succeeded();
        let line = std::fs::read_to_string(person.path("sk.pub")).unwrap();
        let through = format!(
            "ProxyCommand=ssh -F {config} -o SecurityKeyProvider={provider} -o IdentityFile=none -i {key} -W %h:%p gw.lab.test",
            config = person.path("sk_config").display(),
            provider = provider.display(),
            key = path.display(),
        );
        // The configuration without the key that the person has already.
        let config = std::fs::read_to_string(person.path("ssh_config")).unwrap();
        let own = person.path("id").display().to_string();
        person.write("sk_config", &config.replace(&own, &path.display().to_string()));
        let option = format!("SecurityKeyProvider={}", provider.display());
        let knock = async || {
            let mut ssh = stock("ssh");
            ssh.arg("-F")
                .arg(person.path("sk_config"))
                .args(["-o", "BatchMode=yes", "-o", &option, "-o", &through]);
            ssh.args(["-i"]).arg(&path).args([&device(), "echo touched"]);
            run(ssh).await
        };
        let refused = knock().await;
        assert!(
            refused.stderr.contains("Permission denied (publickey)."),
            "{}",
            refused.stderr
        );
        let body = json!({ "ssh_keys": [line.trim()], "label": "yubikey" });
        let added: Value = lab
            .admin()
            .send(Method::POST, &format!("/v1/users/{name}/keys"), &body)
            .await
            .unwrap();
        let key = added["keys"]
            .as_array()
            .unwrap()
            .iter()
            .find(|key| key["label"] == "yubikey")
            .unwrap()
            .clone();
        assert_eq!(key["algorithm"], algorithm);
        assert!(!added.to_string().contains("a comment"), "{added}");
        assert_eq!(knock().await.succeeded().text(), "touched\n");
        let fingerprint = key["fingerprint"].as_str().unwrap();
        lab.admin()
            .delete(&format!("/v1/users/{name}/keys/{fingerprint}"))
            .await
            .unwrap();
        let refused = knock().await;
        assert!(
            refused.stderr.contains("Permission denied (publickey)."),
            "{}",
            refused.stderr
        );
    }
    lab.stop().await;
}
