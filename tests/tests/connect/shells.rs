//! `--stdio` as the ProxyCommand of stock ssh, and how it ends.

use fairlead_tests::clients::{Finished, run, run_with, stock};
use fairlead_tests::lab::{Lab, Person};
use fairlead_tests::programs::{account, program};
use fairlead_tests::sshd::{Sshd, Trust};

use super::stage::{lab, stdio};

/// Stock ssh whose only way is `fairlead connect --stdio`.
async fn ssh(person: &Person, url: &str, host: &str, command: &str) -> Finished {
    let proxy = format!("{} connect {url} --stdio", program("fairlead").display());
    let mut ssh = stock("ssh");
    ssh.env("FAIRLEAD_HOME", person.path(""))
        .args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o"])
        .arg(format!("ProxyCommand={proxy}"))
        .args(person.options().into_iter().skip(2))
        .arg("-i")
        .arg(person.path("id"))
        .arg(format!("{}@{host}", account()))
        .arg(command);
    run(ssh).await
}

async fn shells() -> (Lab, Sshd, Person) {
    let mut lab = lab("endpoint.protocol == 'ssh'").await;
    let app = lab.user("app", &["apps"]).await;
    let dir = lab.path("sshd");
    fairlead_runtime::config_file::private_dir(&dir).unwrap();
    let trust = Trust {
        user_ca: Some(lab.user_ca()),
        principals: vec!["app".into()],
        ..Trust::default()
    };
    let sshd = Sshd::start(&dir, &trust).await;
    lab.know_host("tunnel.default.internal", &sshd.host_key);
    lab.agent("tunnel")
        .endpoint("ssh://tunnel", &sshd.upstream())
        .start()
        .await;
    lab.agent("builtin")
        .endpoint("ssh://builtin", "builtin:ssh")
        .start()
        .await;
    (lab, sshd, app)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_ssh_goes_through_it_to_an_sshd_and_to_the_agents_own_server() {
    let (lab, _sshd, app) = shells().await;
    for host in ["tunnel", "builtin"] {
        let name = format!("{host}.default.internal");
        let said = ssh(&app, &format!("ssh://{name}"), &name, "echo $((6 * 7))").await;
        assert_eq!(said.succeeded().text().trim(), "42", "{host}");
    }
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denial_is_said_with_its_session_and_ends_the_program_with_77() {
    let (lab, _sshd, app) = shells().await;
    let other = lab.user("other", &["office"]).await;
    for (person, url, why) in [
        (&other, "ssh://tunnel.default.internal", "no-rule"),
        (&app, "ssh://nowhere.default.internal", "unknown-endpoint"),
        (&app, "tcp://tunnel.default.internal:22", "unknown-endpoint"),
    ] {
        let said = run_with(stdio(person, url), b"").await;
        assert_eq!(said.code(), Some(77), "{url}: {}", said.stderr);
        let (reason, session) = said.last_word().expect("a reason and a session");
        assert_eq!(reason, "denied");
        assert_eq!(lab.gateway_audit().shown(&session), [format!("session.refuse {why}")]);
    }
    lab.stop().await;
}
