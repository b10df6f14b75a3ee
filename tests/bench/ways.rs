//! The ways from a client to the target: directly, by Fairlead, by what people would use in its place. Each has its own processes, so
//! that what it costs can be told.
//!
//! The client speaks plain TCP on every one. Fairlead lets nobody in without an identity, so `fairlead` is the cheapest way for
//! such a client: a routing token, as RDP clients show it, and two processes as the peers have. `fairlead connect` is the general way,
//! with a third process and a second encryption, all of which is counted.

pub(crate) mod bare;
mod fairlead;
mod peers;
mod ssh;

use std::any::Any;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::Effort;
use crate::cost;
use crate::load::Target;

pub(crate) use fairlead::{Fairlead, Link, gateway_home};

/// A way that runs; its processes end when it is dropped.
pub(crate) struct Way {
    pub(crate) name: &'static str,
    entry: Entry,
    /// On the side where clients connect, and on the side of the target.
    near: Vec<u32>,
    far: Vec<u32>,
    _alive: Vec<Box<dyn Any + Send + Sync>>,
}

/// Where clients connect, and what they show.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) address: SocketAddr,
    /// Bytes ahead of everything else.
    pub(crate) shown: Vec<u8>,
    /// Whose token is to be renewed before each turn.
    of: Option<fairlead::Tokens>,
}

impl Entry {
    fn plain(address: SocketAddr) -> Self {
        Self {
            address,
            shown: Vec::new(),
            of: None,
        }
    }

    /// The same with a fresh token, where one is needed: connections are to be made within ten seconds of the first.
    pub(crate) async fn ready(&self) -> Self {
        let mut ready = self.clone();
        if let Some(tokens) = &self.of {
            ready.shown = tokens.request().await;
        }
        ready
    }

    /// A connection to the target.
    pub(crate) async fn connect(&self) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.expect("the way is open");
        stream.set_nodelay(true).expect("a socket of TCP");
        if !self.shown.is_empty() {
            stream.write_all(&self.shown).await.expect("the token is taken");
        }
        stream
    }
}

impl Way {
    /// A way in for one turn.
    pub(crate) async fn entry(&self) -> Entry {
        self.entry.ready().await
    }

    /// Whether there is a tunnel.
    pub(crate) fn has_tunnel(&self) -> bool {
        !self.near.is_empty()
    }

    /// Processor seconds of all its processes so far.
    pub(crate) fn cpu(&self) -> f64 {
        cost::cpu(&self.near) + cost::cpu(&self.far)
    }

    /// Resident KiB on the side of the clients, and on that of the target.
    pub(crate) fn rss(&self) -> (f64, f64) {
        (cost::rss(&self.near), cost::rss(&self.far))
    }
}

/// All ways that this machine has, or those that are asked for, the direct one first.
pub(crate) async fn start(target: &Target, effort: &Effort) -> Vec<Way> {
    let is_wanted = |name: &str| effort.ways.is_empty() || effort.ways.iter().any(|way| way == name);
    let mut ways = vec![Way {
        name: "direct",
        entry: Entry::plain(target.address()),
        near: Vec::new(),
        far: Vec::new(),
        _alive: Vec::new(),
    }];
    for (name, link) in fairlead::WAYS {
        if is_wanted(name) {
            ways.push(fairlead::way(name, link, target).await);
        }
    }
    if is_wanted(bare::NAME) {
        ways.push(bare::way(target).await);
    }
    for (name, direction) in ssh::WAYS {
        if is_wanted(name) {
            ways.push(ssh::way(name, direction, target).await);
        }
    }
    for (name, peer) in peers::WAYS {
        if !is_wanted(name) {
            continue;
        }
        match peer(name, target).await {
            Ok(way) => ways.push(way),
            Err(why) => println!("SKIPPED: {name}: {why}"),
        }
    }
    for way in &ways {
        way.works().await;
    }
    ways
}

impl Way {
    async fn works(&self) {
        let echoes = async {
            let mut stream = self.entry().await.connect().await;
            crate::load::hello(&mut stream).await;
        };
        let within = tokio::time::timeout(Duration::from_secs(20), echoes).await;
        within.unwrap_or_else(|_| panic!("nothing comes back by {}", self.name));
    }
}
