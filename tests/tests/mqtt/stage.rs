//! A gateway, the agent `device` with a broker behind it, and devices that are told apart by their certificates alone.

use std::net::SocketAddr;

use fairlead_runtime::stop::CancellationToken;
use fairlead_runtime::tasks::TaskGroup;
use fairlead_tests::clients::stock;
use fairlead_tests::lab::{DOMAIN, Lab, Person};
use fairlead_tests::mosquitto::Mosquitto;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio_util::sync::DropGuard;

/// The agent, and the host of its broker.
pub(crate) const AGENT: &str = "device";

/// Everybody has topics of their own, everybody reads the news, and only the writer writes them.
const POLICY: &str = "version: 1
rules:
  - { name: own topics, sites: ['*'], effect: allow, expressions: [\"'field' in caller.groups\", \"inTopicFilter(mqtt.topic, 'devices/' + caller.name + '/#')\"] }
  - { name: news are read, sites: ['*'], effect: allow, actions: [subscribe], expressions: [\"'field' in caller.groups\", \"inTopicFilter(mqtt.topic, 'news/#')\"] }
  - { name: news are written, sites: ['*'], effect: allow, actions: [publish], expressions: [\"'writers' in caller.groups\", \"inTopicFilter(mqtt.topic, 'news/#')\"] }
  - { name: nobody is another, sites: ['*'], effect: deny, expressions: [\"mqtt.client_id != '' && mqtt.client_id != caller.name && !mqtt.client_id.startsWith(caller.name + '-')\"] }
";

pub(crate) struct Stage {
    pub(crate) lab: Lab,
    pub(crate) broker: Mosquitto,
    pub(crate) pump: Person,
    pub(crate) valve: Person,
    socks: SocketAddr,
    _socks: DropGuard,
}

impl Stage {
    pub(crate) async fn set() -> Self {
        Self::with(Mosquitto::start().await, "", &[]).await
    }

    /// With the customer's own rules, and logins that the agent makes.
    pub(crate) async fn with(broker: Mosquitto, rules: &str, credentials: &[(&str, &str, &str)]) -> Self {
        let mut lab = Lab::start().await;
        lab.policy(POLICY).await;
        let plan = lab.agent(AGENT).endpoint("mqtt://device", &broker.upstream());
        let plan = if rules.is_empty() { plan } else { plan.rules(rules) };
        let plan = if credentials.is_empty() {
            plan
        } else {
            plan.credentials(credentials)
        };
        plan.start().await;
        let pump = lab.user("pump", &["field", "writers"]).await;
        let valve = lab.user("valve", &["field"]).await;
        let (socks, end) = socks(lab.address()).await;
        Self {
            lab,
            broker,
            pump,
            valve,
            socks,
            _socks: end,
        }
    }

    pub(crate) fn name() -> String {
        format!("{AGENT}.default.{DOMAIN}")
    }

    /// A program whose lines come as they are written, also into a pipe.
    pub(crate) fn by_lines(program: &str) -> Command {
        let mut command = stock("stdbuf");
        command.args(["-oL", program]);
        command
    }

    /// `mosquitto_pub`, `mosquitto_sub` with somebody's certificate; the broker's name is resolved by the proxy.
    pub(crate) fn mosquitto(&self, program: &str, person: &Person, version: &str, arguments: &[&str]) -> Command {
        let mut command = Self::by_lines(program);
        command
            .args([
                "-h",
                &Self::name(),
                "-p",
                &self.lab.address().port().to_string(),
                "-V",
                version,
            ])
            .args(["--proxy", &format!("socks5h://{}", self.socks), "--cafile"])
            .arg(person.path("ca.pem"))
            .arg("--cert")
            .arg(person.path("cert.pem"))
            .arg("--key")
            .arg(person.path("login.key.pem"))
            .args(arguments);
        command
    }

    /// A script of ours over paho.
    pub(crate) fn paho(&self, script: &str, person: &Person, more: &[&str]) -> Command {
        let mut paho = stock("/usr/bin/python3");
        paho.args(["-c", script, &self.lab.address().port().to_string(), &Self::name()])
            .args(["ca.pem", "cert.pem", "login.key.pem"].map(|name| person.path(name)))
            .args(more);
        paho
    }

    pub(crate) async fn strike(self) {
        self.lab.stop().await;
    }
}

/// A SOCKS5 proxy (RFC 1928) that takes every name for the gateway, in place of a DNS record.
async fn socks(gateway: SocketAddr) -> (SocketAddr, DropGuard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let end = CancellationToken::new();
    let tasks = TaskGroup::new("socks", &end);
    let clients = tasks.clone();
    tasks.spawn("socks", async move {
        let token = clients.token();
        while let Some(Ok((client, _))) = token.run_until_cancelled(listener.accept()).await {
            let token = token.clone();
            clients.spawn("socks", async move {
                drop(token.run_until_cancelled(lead(client, gateway)).await);
            });
        }
    });
    (address, end.drop_guard())
}

async fn lead(mut client: TcpStream, gateway: SocketAddr) -> std::io::Result<()> {
    let mut greeting = [0; 2];
    client.read_exact(&mut greeting).await?;
    let mut methods = vec![0; usize::from(greeting[1])];
    client.read_exact(&mut methods).await?;
    client.write_all(&[5, 0]).await?;
    // CONNECT to a domain name: its length comes fifth.
    let mut request = [0; 5];
    client.read_exact(&mut request).await?;
    let mut name = vec![0; usize::from(request[4]) + 2];
    client.read_exact(&mut name).await?;
    let mut upstream = TcpStream::connect(gateway).await?;
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    tokio::io::copy_bidirectional(&mut client, &mut upstream).await?;
    Ok(())
}
