//! A router between a device and the middle that translates addresses, and whose path can be made as bad as a test wants.

use std::time::Duration;

use super::{Delay, Place};

/// How bad the way through a router is, both ways alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Of a thousand packets, so many are lost.
    pub loss_per_mille: u32,
    /// What each way takes; a round trip takes twice that.
    pub delay: Duration,
    /// What passes each way, kbit/s.
    pub rate_kbit: Option<u32>,
    /// Whether UDP passes.
    pub udp: bool,
    /// Whether anything passes.
    pub open: bool,
}

impl Path {
    /// Nothing wrong.
    pub const GOOD: Self = Self {
        loss_per_mille: 0,
        delay: Duration::ZERO,
        rate_kbit: None,
        udp: true,
        open: true,
    };

    /// UDP is dropped, as by many company networks.
    pub const WITHOUT_UDP: Self = Self {
        udp: false,
        ..Self::GOOD
    };

    /// Everything is dropped.
    pub const DEAD: Self = Self {
        open: false,
        ..Self::GOOD
    };

    /// Loses so many packets of a thousand and takes `delay` each way.
    pub const fn lossy(loss_per_mille: u32, delay: Duration) -> Self {
        Self {
            loss_per_mille,
            delay,
            ..Self::GOOD
        }
    }
}

/// A place that routes, with network address translation towards the middle, and a device behind it.
pub struct NatRouter {
    /// The router.
    pub place: Place,
    /// What is behind it.
    pub device: Place,
    /// The last part of the address that the device's packets have at the middle.
    public: u8,
    delay: Delay,
}

impl NatRouter {
    /// Router `number` beside the middle, and behind it device `number + 1`; 1 to 250.
    pub async fn new(number: u8) -> Self {
        let place = Place::new(number).await;
        place.run("sh", &["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]).await;
        place.unbundle(None).await;
        let device = Place::behind(&place, number + 1).await;
        device.unbundle(Some(&place)).await;
        let delay = Delay::on(&place.near());
        let router = Self {
            place,
            device,
            public: 2,
            delay,
        };
        router.translate().await;
        router.become_as(&Path::GOOD).await;
        router
    }

    /// The address that the device's packets have at the middle.
    pub fn public_address(&self) -> String {
        self.address(self.public)
    }

    fn address(&self, last: u8) -> String {
        let (network, _) = self.place.address.rsplit_once('.').expect("an IPv4 address");
        format!("{network}.{last}")
    }

    async fn translate(&self) {
        let (out, address) = (self.place.far(), self.public_address());
        let rules = format!(
            "table ip nat {{}}
flush table ip nat
table ip nat {{
    chain after {{
        type nat hook postrouting priority 100
        oifname \"{out}\" snat to {address} random
    }}
}}
"
        );
        self.place.nft(&rules).await;
    }

    /// Forgets every mapping and gives the device another address and other ports at the middle: what a mobile network or
    /// a router that restarts does.
    pub async fn rebind(&mut self) {
        self.public += 1;
        let address = format!("{}/24", self.public_address());
        self.place
            .ip(&["address", "add", &address, "dev", &self.place.far()])
            .await;
        self.translate().await;
        // Without this the flows go on by their old mapping.
        self.place.run("conntrack", &["-F"]).await;
    }

    /// Makes the path as bad as this, from the next packet on.
    pub async fn become_as(&self, path: &Path) {
        self.delay.set(path.delay).await;
        let mut rules = String::new();
        if !path.open {
            rules.push_str("        counter drop\n");
        }
        if !path.udp {
            rules.push_str("        meta l4proto udp counter drop\n");
        }
        if path.loss_per_mille > 0 {
            rules.push_str(&format!(
                "        numgen random mod 1000 < {} counter drop\n",
                path.loss_per_mille
            ));
        }
        let chain = format!("chain through {{\n        type filter hook forward priority 0\n{rules}    }}");
        self.place
            .nft(&format!(
                "table ip path {{}}\nflush table ip path\ntable ip path {{\n    {chain}\n}}\n"
            ))
            .await;
        for device in [self.place.far(), self.device.near()] {
            match path.rate_kbit {
                Some(rate) => {
                    let rate = format!("{rate}kbit");
                    let shaped = ["qdisc", "replace", "dev", &device, "root", "tbf", "rate", &rate];
                    let shaped = [&shaped[..], &["burst", "16k", "latency", "400ms"]].concat();
                    self.place.run("tc", &shaped).await;
                }
                None => {
                    self.place
                        .run(
                            "sh",
                            &["-c", &format!("tc qdisc del dev {device} root 2>/dev/null || :")],
                        )
                        .await
                }
            }
        }
    }
}
