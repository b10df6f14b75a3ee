//! What most tests start from: a gateway, the agent pump-7 with an SSH server behind it, and alice, who may use it.

use fairlead_agent::sshd::Account;
use fairlead_runtime::config_file::private_dir;
use fairlead_tests::lab::{Lab, Person};
use fairlead_tests::sshd::{Sshd, Trust};

/// The device for ssh.
pub(crate) const DEVICE: &str = "pump-7.default.internal";
/// Its endpoint.
pub(crate) const ENDPOINT: &str = "ssh://pump-7.default.internal";
/// The agent's name.
pub(crate) const AGENT: &str = "pump-7";

/// Which SSH server is behind the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// OpenSSH's, by a tunnel.
    Sshd,
    /// The agent's own.
    Builtin,
}

/// A lab with one device and one technician.
pub(crate) struct Stage {
    pub(crate) lab: Lab,
    pub(crate) alice: Person,
    /// `ACCOUNT@pump-7.default.internal`.
    pub(crate) device: String,
    sshd: Option<Sshd>,
}

impl Stage {
    /// alice has a certificate; sshd takes the gateway's user CA.
    pub(crate) async fn set(server: Server) -> Self {
        let mut lab = Lab::start().await;
        let sshd = match server {
            Server::Sshd => Some(sshd(&lab, &[]).await),
            Server::Builtin => None,
        };
        let upstream = sshd.as_ref().map_or_else(|| "builtin:ssh".to_owned(), Sshd::upstream);
        lab.agent(AGENT).endpoint(ENDPOINT, &upstream).start().await;
        let alice = lab.user("alice", &["field"]).await;
        Self {
            lab,
            alice,
            device: device(),
            sshd,
        }
    }

    /// Runs a command on the device as alice.
    pub(crate) fn ssh(&self, arguments: &[&str]) -> tokio::process::Command {
        let mut all = vec![self.device.as_str()];
        all.extend(arguments);
        self.alice.ssh(&all)
    }

    /// The id of the only live session.
    pub(crate) async fn live_session(&self) -> String {
        let sessions = self.lab.sessions().await;
        assert_eq!(sessions.len(), 1, "{sessions:?}");
        sessions[0].id.clone()
    }

    /// Ends everything and reads the audit logs again.
    pub(crate) async fn strike(self) {
        self.lab.stop().await;
        drop(self.sshd);
    }
}

/// An sshd that takes the gateway's user CA for technicians, and these plain keys.
pub(crate) async fn sshd(lab: &Lab, keys: &[String]) -> Sshd {
    let dir = lab.path("sshd");
    private_dir(&dir).unwrap();
    let trust = Trust {
        user_ca: Some(lab.user_ca()),
        principals: vec!["alice".into(), "g-field".into()],
        keys: keys.to_vec(),
    };
    let sshd = Sshd::start(&dir, &trust).await;
    lab.know_host(DEVICE, &sshd.host_key);
    sshd
}

/// The account that everything runs as, at the device.
pub(crate) fn device() -> String {
    format!("{}@{DEVICE}", account())
}

/// Whoever runs the tests.
pub(crate) fn account() -> String {
    Account::current().unwrap().name
}

/// Makes two tests of one: on OpenSSH's server and on the agent's own.
macro_rules! on_both_servers {
    ($($(#[$attribute:meta])* $name:ident($stage:ident) $body:block)*) => {$(
        mod $name {
            #[allow(unused_imports, reason = "not every body names the module's own items")]
            use super::*;

            async fn body($stage: $crate::stage::Stage) $body

            $(#[$attribute])*
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_sshd() {
                body($crate::stage::Stage::set($crate::stage::Server::Sshd).await).await;
            }

            $(#[$attribute])*
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_builtin() {
                body($crate::stage::Stage::set($crate::stage::Server::Builtin).await).await;
            }
        }
    )*};
}
