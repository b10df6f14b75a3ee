//! A network namespace with one way out.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use super::{MIDDLE, sbin, sbin_with};
use crate::clients::{self, Running};
use crate::programs::until;

/// For an interface that says that it is up and carries a little later.
const CARRIES_WITHIN: Duration = Duration::from_secs(10);

/// A network namespace with one way out: to the middle, or to a place that routes.
pub struct Place {
    /// Its own address.
    pub address: String,
    /// The address of its way out.
    pub gate: String,
    number: u8,
    holder: u32,
    // The namespace lives as long as its only process.
    _life: Running,
}

impl Place {
    /// Place `number`, 1 to 254, beside the middle: 10.77.NUMBER.2.
    pub async fn new(number: u8) -> Self {
        let place = Self::empty(number).await;
        place.cable(None).await;
        place.reaches_the_middle().await;
        place
    }

    /// Place `number`, 1 to 254, behind `router`, which must forward: 10.77.NUMBER.2.
    pub async fn behind(router: &Self, number: u8) -> Self {
        let place = Self::empty(number).await;
        place.cable(Some(router)).await;
        place.reaches_the_middle().await;
        place
    }

    async fn empty(number: u8) -> Self {
        let mut life = sbin("unshare");
        life.args(["--net", "--", "sh", "-c", "echo $$; exec sleep 3600"]);
        life.stdin(Stdio::null());
        let mut life = Running::start(life);
        let holder = life.line().await.parse().expect("the holder's process id");
        Self {
            address: format!("10.77.{number}.2"),
            gate: format!("10.77.{number}.1"),
            number,
            holder,
            _life: life,
        }
    }

    /// Lays the pair of interfaces to the router, or to the middle.
    async fn cable(&self, router: Option<&Self>) {
        let (near, far) = (self.near(), self.far());
        let pid = self.holder.to_string();
        let near_end: &[&[&str]] = &[
            &[
                "link", "add", &near, "type", "veth", "peer", "name", &far, "netns", &pid,
            ],
            &["address", "add", &format!("{}/24", self.gate), "dev", &near],
            &["link", "set", &near, "up"],
        ];
        for arguments in near_end {
            let ip = sbin_with("ip", arguments);
            let ip = router.map_or_else(|| sbin_with("ip", arguments), |router| router.within(&ip));
            clients::run(ip).await.succeeded();
        }
        self.ip(&["link", "set", "lo", "up"]).await;
        self.ip(&["address", "add", &format!("{}/24", self.address), "dev", &far])
            .await;
        self.ip(&["link", "set", &far, "up"]).await;
        self.ip(&["route", "add", "default", "via", &self.gate]).await;
    }

    async fn reaches_the_middle(&self) {
        until("the place reaches the middle", CARRIES_WITHIN, async || {
            let looked = clients::run(self.within(&sbin_with("ip", &["route", "get", MIDDLE]))).await;
            looked.status.success().then_some(())
        })
        .await;
    }

    /// The interface at the other end of its way out, as the router or the middle names it.
    pub fn near(&self) -> String {
        format!("fl{}", self.number)
    }

    /// The interface of its way out, as it names it itself.
    pub fn far(&self) -> String {
        format!("fl{}p", self.number)
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

    /// Runs `ip` in this place.
    pub async fn ip(&self, arguments: &[&str]) {
        self.run("ip", arguments).await;
    }

    /// Runs a program of the system in this place, which must succeed.
    pub async fn run(&self, program: &str, arguments: &[&str]) {
        clients::run(self.within(&sbin_with(program, arguments)))
            .await
            .succeeded();
    }

    /// Puts rules of nftables in force in this place.
    pub async fn nft(&self, rules: &str) {
        let mut nft = self.within(&sbin_with("nft", &["-f", "-"]));
        nft.stdin(Stdio::piped());
        clients::run_with(nft, rules.as_bytes()).await.succeeded();
    }

    /// Does something with sockets as a program in this place would; what it opens stays there, whoever uses it.
    pub fn enter<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let there = std::fs::File::open(format!("/proc/{}/ns/net", self.holder)).expect("the holder lives");
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                // Of this thread alone, which ends with the act.
                setns(there, CloneFlags::CLONE_NEWNET).expect("root may enter a network namespace");
                act()
            });
            inside.join().expect("the act ends")
        })
    }

    /// A listener on this port of 127.0.0.1 of this place.
    pub fn listen_on(&self, port: u16) -> TcpListener {
        let listener = self.enter(|| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port"));
        listener.set_nonblocking(true).expect("a listener for tasks");
        TcpListener::from_std(listener).expect("a runtime")
    }

    /// A connection from this place to elsewhere.
    pub fn connect(&self, to: SocketAddr) -> TcpStream {
        let stream = self.enter(|| std::net::TcpStream::connect(to).expect("a connection"));
        stream.set_nonblocking(true).expect("a connection for tasks");
        TcpStream::from_std(stream).expect("a runtime")
    }

    /// Gives the place another address, `last` in its network, in place of the one it has: a device that was carried into
    /// another network, or whose lease was not renewed. Until the new one is there it has none for `outage`.
    pub async fn change_address(&mut self, last: u8, outage: Duration) {
        let far = self.far();
        self.ip(&["address", "del", &format!("{}/24", self.address), "dev", &far])
            .await;
        tokio::time::sleep(outage).await;
        self.address = format!("10.77.{}.{last}", self.number);
        self.ip(&["address", "add", &format!("{}/24", self.address), "dev", &far])
            .await;
        // With the last address of an interface its routes go.
        self.ip(&["route", "replace", "default", "via", &self.gate]).await;
    }

    /// Has each datagram and segment pass the interfaces by itself, as on a real wire: a bundle would be lost as a whole.
    pub async fn unbundle(&self, router: Option<&Self>) {
        let (near, far) = (self.near(), self.far());
        let off = |device| {
            [
                "-K",
                device,
                "tso",
                "off",
                "gso",
                "off",
                "gro",
                "off",
                "tx-udp-segmentation",
                "off",
            ]
        };
        match router {
            Some(router) => router.run("ethtool", &off(near.as_str())).await,
            None => {
                let ethtool = clients::run(sbin_with("ethtool", &off(near.as_str())));
                ethtool.await.succeeded();
            }
        }
        self.run("ethtool", &off(far.as_str())).await;
    }
}
