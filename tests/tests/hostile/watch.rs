//! What honest peers notice of an attack, and what it costs the gateway.
//!
//! Attackers, gateway and honest peers share the machine, and a machine under attack is slow for everybody. So the honest
//! peers call two gateways in turn: the one under attack and a control that nobody else knows. What both have in common
//! is the machine's; the difference is the gateway's.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fairlead_runtime::stop::CancellationToken;
use fairlead_runtime::tasks::TaskGroup;
use fairlead_tests::clients::asks_for_all;
use fairlead_tests::programs::{DEVICE, GatewayHome, Scene};
use fairlead_wire::version::ALPN_ENROLL;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::memory::{cpu_time, own_kib, resident_kib};
use super::peer;

/// How long an honest peer waits.
const PATIENCE: Duration = Duration::from_secs(15);
/// Memory must be back after this.
const BACK_WITHIN: Duration = Duration::from_secs(60);
/// Rounds before the attack.
const CALM: usize = 60;

/// What is measured of one attack.
pub(crate) struct Goal {
    /// Resident memory above that before, in MiB, at most.
    pub(crate) memory_mib: u64,
    /// Log lines at most.
    pub(crate) lines: usize,
}

/// Runs `attack` while honest callers and agents come and go, prints what they noticed, and checks what must hold.
pub(crate) async fn during(scene: &mut Scene, name: &str, goal: &Goal, attack: impl Future<Output = ()>) {
    let home = GatewayHome::set_up(&scene.path("control")).await;
    let _control = home.start().await;
    let gateways = [scene.address(), (Ipv4Addr::LOCALHOST, home.port).into()];
    let calm = Honest::begin(gateways, Some(CALM)).await;
    let id = scene.gateway.id();
    let (rss, cpu, lines) = (resident_kib(id), cpu_time(id), scene.gateway.log().lines().count());
    let own = own_kib(id);
    let (audit, began) = (scene.home.audit(&[]).len(), Instant::now());
    let honest = Honest::start(gateways, None);
    let mut peak = rss;
    {
        let attack = std::pin::pin!(attack);
        let looking = async {
            loop {
                peak = peak.max(resident_kib(id));
                sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            () = attack => {}
            () = looking => {}
        }
    }
    let (took, spent) = (began.elapsed(), cpu_time(id) - cpu);
    let [noticed, control] = honest.end().await;
    let back = Instant::now();
    let patience = if asks_for_all() { BACK_WITHIN } else { BACK_WITHIN / 30 };
    while resident_kib(id) > rss + rss / 10 && back.elapsed() < patience {
        sleep(Duration::from_millis(500)).await;
    }
    let (after, back) = (resident_kib(id), back.elapsed());
    let lines = scene.gateway.log().lines().count() - lines;
    let audit = scene.home.audit(&[]).len() - audit;
    println!("{name}: {took:.1?}, {spent:.1?} of CPU; {lines} log lines, {audit} audit lines");
    println!(
        "{name}: memory {rss} KiB, peak +{} KiB, after {back:.0?} {:+} KiB ({:+} %)",
        peak - rss,
        i64::try_from(after).unwrap() - i64::try_from(rss).unwrap(),
        i64::try_from(after * 100 / rss).unwrap() - 100,
    );
    println!(
        "{name}: of that its own (no program text): {own} KiB, after {:+} KiB",
        i64::try_from(own_kib(id)).unwrap() - i64::try_from(own).unwrap(),
    );
    for (what, of) in [("SSH greeting", TCP), ("QUIC handshake", QUIC)] {
        println!(
            "{name}: {what} p50 {:.1?}, p99 {:.1?} ({} failed of {}); control p50 {:.1?}, p99 {:.1?}; in calm p99 {:.1?}; p99 {:.1} x the control's",
            noticed.share(of, 50),
            noticed.share(of, 99),
            noticed.failed[of],
            noticed.took[of].len(),
            control.share(of, 50),
            control.share(of, 99),
            calm[0].share(of, 99),
            noticed.share(of, 99).as_secs_f64() / control.share(of, 99).as_secs_f64().max(0.000_1),
        );
    }
    assert!(
        peak - rss <= goal.memory_mib * 1024,
        "{name}: {} KiB more memory",
        peak - rss
    );
    assert!(lines <= goal.lines, "{name}: {lines} log lines");
    assert!(noticed.failed == [0, 0], "{name}: honest peers were refused");
    if asks_for_all() {
        // The figure is a tenth more; a MiB is less than this kernel's accounting of shared pages moves.
        assert!(
            after <= rss + rss / 10 + 1024,
            "{name}: memory stays at {after} KiB of {rss}"
        );
    }
    scene.alice.on(DEVICE, "true").await.succeeded();
    scene.is_sound().await;
}

/// What is measured: of each the place in the tables below.
const TCP: usize = 0;
const QUIC: usize = 1;

/// How long honest peers waited at one gateway.
#[derive(Clone, Debug, Default)]
struct Noticed {
    took: [Vec<Duration>; 2],
    failed: [usize; 2],
}

/// Honest peers, on a thread of their own: the attackers' turns are not theirs.
struct Honest {
    stop: Arc<AtomicBool>,
    outcome: oneshot::Receiver<[Noticed; 2]>,
    _group: TaskGroup,
}

impl Honest {
    /// So many rounds, or until [`Self::end`].
    fn start(gateways: [SocketAddr; 2], rounds: Option<usize>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let group = TaskGroup::new("honest", &CancellationToken::new());
        let (told, outcome) = oneshot::channel();
        let stopped = Arc::clone(&stop);
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let noticed = runtime.unwrap().block_on(async {
                let mut noticed = [Noticed::default(), Noticed::default()];
                let mut round = 0;
                while !stopped.load(Ordering::Relaxed) && rounds.is_none_or(|rounds| round < rounds) {
                    for (gateway, noticed) in gateways.iter().zip(&mut noticed) {
                        noticed.once(*gateway).await;
                    }
                    round += 1;
                    sleep(Duration::from_millis(10)).await;
                }
                noticed
            });
            drop(told.send(noticed));
        };
        assert!(group.thread("honest", work).unwrap(), "a thread");
        Self {
            stop,
            outcome,
            _group: group,
        }
    }

    async fn begin(gateways: [SocketAddr; 2], rounds: Option<usize>) -> [Noticed; 2] {
        Self::start(gateways, rounds).outcome.await.expect("honest peers")
    }

    async fn end(self) -> [Noticed; 2] {
        self.stop.store(true, Ordering::Relaxed);
        self.outcome.await.expect("honest peers")
    }
}

impl Noticed {
    async fn once(&mut self, gateway: SocketAddr) {
        let began = Instant::now();
        match timeout(PATIENCE, ssh_greeting(gateway)).await {
            Ok(Some(())) => self.took[TCP].push(began.elapsed()),
            _ => self.failed[TCP] += 1,
        }
        let began = Instant::now();
        let source = Ipv4Addr::new(127, 1, 0, 2);
        match timeout(PATIENCE, peer::connect(source, gateway, None, ALPN_ENROLL)).await {
            Ok(Ok(connection)) => {
                self.took[QUIC].push(began.elapsed());
                connection.close(0_u32.into(), b"enough");
            }
            _ => self.failed[QUIC] += 1,
        }
    }

    /// What so many in a hundred did not exceed.
    fn share(&self, of: usize, percent: usize) -> Duration {
        let mut all = self.took[of].clone();
        all.sort_unstable();
        all.get((all.len() * percent).div_ceil(100).saturating_sub(1))
            .copied()
            .unwrap_or_default()
    }
}

/// The gateway's line and the beginning of its key exchange.
async fn ssh_greeting(gateway: SocketAddr) -> Option<()> {
    let mut stream = tcp(Ipv4Addr::new(127, 1, 0, 2), gateway).await?;
    stream.write_all(b"SSH-2.0-honest\r\n").await.ok()?;
    let mut greeting = [0; 64];
    stream.read_exact(&mut greeting).await.ok()?;
    greeting.starts_with(b"SSH-2.0-Fairlead").then_some(())
}

/// A TCP connection from an address of this machine.
pub(crate) async fn tcp(source: Ipv4Addr, to: SocketAddr) -> Option<tokio::net::TcpStream> {
    let socket = TcpSocket::new_v4().ok()?;
    socket.set_reuseaddr(true).ok()?;
    socket.bind((source, 0).into()).ok()?;
    socket.connect(to).await.ok()
}
