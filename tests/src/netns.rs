//! Network namespaces: places with an address of their own on this machine, for devices that a test wants elsewhere.
//!
//! A test that needs them runs itself again inside `unshare --net` ([`again_in_one`]), so that nothing has to be cleaned
//! up: with the last process, the namespace and every link in it are gone. Inside, [`Place`]s hang off it by a pair of
//! virtual interfaces each. All of it needs root.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::clients::{self, Running, stock};
use crate::programs::until;

/// Where the middle is reached from every place.
pub const MIDDLE: &str = "10.77.0.1";

/// Runs the test of this name again in a network namespace of its own, with `flag` set in its environment, and fails where
/// that fails. `proof` must be among what it prints, which is returned.
pub async fn again_in_one(test: &str, flag: &str, proof: &str) -> String {
    let missing: Vec<&str> = ["unshare", "nsenter", "ip", "nft", "setpriv"]
        .into_iter()
        .filter(|tool| !on_path(tool))
        .collect();
    assert!(
        missing.is_empty(),
        "this test needs {}: apt-get install iproute2 nftables util-linux",
        missing.join(", ")
    );
    let mut again = sbin("unshare");
    again.arg("--net").arg("--").arg(std::env::current_exe().unwrap());
    again.args(["--exact", test, "--nocapture"]).env(flag, "1");
    let finished = clients::run(again).await;
    assert!(
        finished.status.success() && finished.text().contains(proof),
        "inside the namespace: {}: {}{}",
        finished.status,
        finished.text(),
        finished.stderr
    );
    finished.text()
}

/// Makes the namespace of this process the middle: loopback up, and [`MIDDLE`] its address.
pub async fn be_the_middle() {
    ip(&["link", "set", "lo", "up"]).await;
    ip(&["address", "add", &format!("{MIDDLE}/32"), "dev", "lo"]).await;
}

/// A network namespace beside the middle, with one way out: to the middle.
pub struct Place {
    /// Its own address.
    pub address: String,
    holder: u32,
    // The namespace lives as long as its only process.
    _life: Running,
}

impl Place {
    /// Place `number`, 1 to 254: 10.77.NUMBER.2.
    pub async fn new(number: u8) -> Self {
        let mut life = sbin("unshare");
        life.args(["--net", "--", "sh", "-c", "echo $$; exec sleep 3600"]);
        life.stdin(Stdio::null());
        let mut life = Running::start(life);
        let holder = life.line().await.parse().expect("the holder's process id");
        let (near, far) = (format!("fl{number}"), format!("fl{number}p"));
        let (gate, address) = (format!("10.77.{number}.1"), format!("10.77.{number}.2"));
        let pid = format!("{holder}");
        ip(&[
            "link", "add", &near, "type", "veth", "peer", "name", &far, "netns", &pid,
        ])
        .await;
        ip(&["address", "add", &format!("{gate}/24"), "dev", &near]).await;
        ip(&["link", "set", &near, "up"]).await;
        let place = Self {
            address: address.clone(),
            holder,
            _life: life,
        };
        place.ip(&["link", "set", "lo", "up"]).await;
        place
            .ip(&["address", "add", &format!("{address}/24"), "dev", &far])
            .await;
        place.ip(&["link", "set", &far, "up"]).await;
        place.ip(&["route", "add", "default", "via", &gate]).await;
        // An interface says at once that it is up, and carries a little later.
        until("the place reaches the middle", Duration::from_secs(10), async || {
            let looked = clients::run(place.within(&sbin_with("ip", &["route", "get", MIDDLE]))).await;
            looked.status.success().then_some(())
        })
        .await;
        place
    }

    /// The same program, run in this place.
    pub fn within(&self, program: &Command) -> Command {
        let program = program.as_std();
        let mut inside = sbin("nsenter");
        inside
            .arg(format!("--net=/proc/{}/ns/net", self.holder))
            .arg("--")
            .arg(program.get_program())
            .args(program.get_args());
        inside
    }

    /// The namespace's name, as `readlink /proc/self/ns/net` prints it in this place.
    pub fn name(&self) -> String {
        let link = std::fs::read_link(Path::new("/proc").join(self.holder.to_string()).join("ns/net"));
        link.expect("the holder lives").display().to_string()
    }

    async fn ip(&self, arguments: &[&str]) {
        clients::run(self.within(&sbin_with("ip", arguments))).await.succeeded();
    }
}

/// Makes every address there is one of this namespace: a connection to anywhere leaves its process, and meets whoever
/// listens here, or is refused at once.
pub async fn everything_is_local() {
    ip(&["link", "set", "lo", "up"]).await;
    ip(&["route", "add", "local", "0.0.0.0/0", "dev", "lo"]).await;
    ip(&["-6", "route", "add", "local", "::/0", "dev", "lo"]).await;
}

/// Puts rules of nftables in force.
pub async fn nft(rules: &str) {
    let mut nft = sbin_with("nft", &["-f", "-"]);
    nft.stdin(Stdio::piped());
    clients::run_with(nft, rules.as_bytes()).await.succeeded();
}

/// The packets that each named counter of a table has counted.
pub async fn counted(table: &str) -> BTreeMap<String, u64> {
    let nft = sbin_with("nft", &["-j", "list", "counters", "table", "inet", table]);
    let listed: serde_json::Value = serde_json::from_slice(&clients::run(nft).await.succeeded().stdout).unwrap();
    let counters = listed["nftables"].as_array().unwrap().iter();
    let of = |counter: &serde_json::Value| {
        let name = counter["name"].as_str()?.to_owned();
        Some((name, counter["packets"].as_u64()?))
    };
    counters.filter_map(|item| of(&item["counter"])).collect()
}

/// The same program as a member of this group only, by which nftables tells it apart.
pub fn as_group(program: &Command, group: &str) -> Command {
    let program = program.as_std();
    let mut with_group = sbin("setpriv");
    with_group
        .args(["--regid", group, "--clear-groups", "--"])
        .arg(program.get_program())
        .args(program.get_args());
    with_group
}

/// The same program, for which another file stands at /etc/resolv.conf.
pub fn with_resolv_conf(program: &Command, file: &Path) -> Command {
    let program = program.as_std();
    let mut elsewhere = sbin("unshare");
    let script = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
    elsewhere
        .args(["--mount", "--", "sh", "-c", script])
        .arg(file)
        .arg(program.get_program())
        .args(program.get_args());
    elsewhere
}

async fn ip(arguments: &[&str]) {
    clients::run(sbin_with("ip", arguments)).await.succeeded();
}

fn sbin_with(program: &str, arguments: &[&str]) -> Command {
    let mut command = sbin(program);
    command.args(arguments);
    command
}

/// A program that Debian keeps in sbin, which need not be on the path.
fn sbin(program: &str) -> Command {
    let mut command = stock(program);
    command.env("PATH", search_path());
    command
}

fn search_path() -> String {
    format!(
        "{}:/usr/sbin:/sbin:/usr/bin:/bin",
        std::env::var("PATH").unwrap_or_default()
    )
}

fn on_path(program: &str) -> bool {
    search_path()
        .split(':')
        .any(|folder| Path::new(folder).join(program).is_file())
}
