//! Network namespaces: places with an address of their own on this machine, for devices that a test wants elsewhere.
//!
//! A test that needs them runs itself again inside `unshare --net --mount` ([`alone`]), so that nothing has to be cleaned up: with
//! the last process, the namespace and every link in it are gone. Inside, [`Place`]s hang off it by a pair of virtual
//! interfaces each, and a [`Place`] may be a [router](NatRouter) that others are behind. All of it needs root.

mod delay;
mod place;
mod router;

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Stdio;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::TcpCongestion;
use tokio::process::Command;

use crate::clients::{self, stock};

pub use delay::Delay;
pub use place::Place;
pub use router::{NatRouter, Path as NetworkPath};

/// Where the middle is reached from every place.
pub const MIDDLE: &str = "10.77.0.1";
/// Set in a test's second life.
const INSIDE: &str = "FAIRLEAD_TEST_INSIDE_NETNS";
/// What a second life prints at its end.
const PROOF: &str = "REACHED ITS END";
/// What the lab of networks is made of, and where Debian has it.
const TOOLS: &[(&str, &str)] = &[
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("nft", "nftables"),
    ("iptables-nft", "iptables"),
    ("conntrack", "conntrack"),
    ("ethtool", "ethtool"),
];

/// The whole of a test that wants a network of its own: `inside` runs in a network namespace in which only this test and its
/// children live. Without root it is skipped, loudly.
///
/// `test` is the test's own name, by which it is run again.
#[expect(clippy::print_stdout, reason = "a skip is loud, and figures are for the reader")]
pub fn alone(test: &str, inside: impl Future<Output = ()>) {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED: {test} was NOT run: network namespaces need root; run tests/run as root");
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    if std::env::var_os(INSIDE).is_some() {
        runtime.block_on(inside);
        println!("{PROOF}");
        return;
    }
    println!("{}", runtime.block_on(again(test)));
}

/// Runs the test of this name again inside, and returns what it printed; fails where it fails.
async fn again(test: &str) -> String {
    let missing: Vec<&str> = TOOLS
        .iter()
        .filter(|(tool, _)| !on_path(tool))
        .map(|(_, package)| *package)
        .collect();
    assert!(
        missing.is_empty(),
        "this test needs what is missing here: apt-get install {}",
        missing.join(" ")
    );
    let mut again = sbin("unshare");
    again
        .args(["--net", "--mount"])
        .arg("--")
        .arg(std::env::current_exe().expect("a test knows its own path"));
    again.args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
    let finished = clients::run(again).await;
    assert!(
        finished.status.success() && finished.text().contains(PROOF),
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

/// Whether the kernel's TCP can send by this algorithm here.
pub fn has_congestion_control(algorithm: &str) -> bool {
    let list = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control");
    list.expect("the kernel's list")
        .split_whitespace()
        .any(|one| one == algorithm)
}

/// Has a socket, and what a listener accepts, send by this algorithm of TCP: the machine's own may be another one, and in a
/// sandbox root may not be allowed to change it.
pub fn send_by(socket: &impl AsFd, algorithm: &str) {
    setsockopt(&socket.as_fd(), TcpCongestion, &algorithm.into()).expect("the algorithm is there");
}
