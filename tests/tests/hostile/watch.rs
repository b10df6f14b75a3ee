//! What honest peers notice of an attack, and what it costs the gateway.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use fairlead_tests::clients::asks_for_all;
use fairlead_tests::programs::{DEVICE, Scene};
use fairlead_wire::version::ALPN_ENROLL;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::{sleep, timeout};

use super::memory::{cpu_time, resident_kib};
use super::peer;

/// How long an honest peer waits.
const PATIENCE: Duration = Duration::from_secs(15);
/// Memory must be back after this.
const BACK_WITHIN: Duration = Duration::from_secs(60);

/// What is measured of one attack.
pub(crate) struct Goal {
    /// Resident memory above that before, in MiB, at most.
    pub(crate) memory_mib: u64,
    /// Log lines at most.
    pub(crate) lines: usize,
}

/// Runs `attack` while honest callers and agents come and go, prints what they noticed, and checks what must hold.
pub(crate) async fn during(scene: &mut Scene, name: &str, goal: &Goal, attack: impl Future<Output = ()>) {
    let mut calm = Noticed::default();
    for _ in 0..40 {
        calm.once(scene.address()).await;
    }
    let id = scene.gateway.id();
    let (rss, cpu, lines) = (resident_kib(id), cpu_time(id), scene.gateway.log().lines().count());
    let (audit, began) = (scene.home.audit(&[]).len(), Instant::now());
    let mut noticed = Noticed::default();
    let mut peak = rss;
    {
        let (attack, address) = (std::pin::pin!(attack), scene.address());
        let honest = async {
            loop {
                noticed.once(address).await;
                sleep(Duration::from_millis(20)).await;
            }
        };
        let looking = async {
            loop {
                peak = peak.max(resident_kib(id));
                sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            () = attack => {}
            () = honest => {}
            () = looking => {}
        }
    }
    let (took, spent) = (began.elapsed(), cpu_time(id) - cpu);
    let back = Instant::now();
    let patience = if asks_for_all() { BACK_WITHIN } else { BACK_WITHIN / 30 };
    while resident_kib(id) > rss + rss / 10 && back.elapsed() < patience {
        sleep(Duration::from_millis(500)).await;
    }
    let (after, back) = (resident_kib(id), back.elapsed());
    let lines = scene.gateway.log().lines().count() - lines;
    let audit = scene.home.audit(&[]).len() - audit;
    println!(
        "{name}: {took:.1?}, {spent:.1?} of CPU; SSH greeting p99 {:.1?} (before {:.1?}, {} failed of {}), QUIC handshake p99 {:.1?} (before {:.1?}, {} failed of {}); memory {} KiB, peak +{} KiB, after {back:.0?} {:+} KiB; {lines} log lines, {audit} audit lines",
        noticed.p99(true),
        calm.p99(true),
        noticed.failed_tcp,
        noticed.tcp.len(),
        noticed.p99(false),
        calm.p99(false),
        noticed.failed_quic,
        noticed.quic.len(),
        rss,
        peak - rss,
        i64::try_from(after).unwrap() - i64::try_from(rss).unwrap(),
    );
    assert!(
        peak - rss <= goal.memory_mib * 1024,
        "{name}: {} KiB more memory",
        peak - rss
    );
    assert!(lines <= goal.lines, "{name}: {lines} log lines");
    assert!(
        noticed.failed_tcp == 0 && noticed.failed_quic == 0,
        "{name}: honest peers were refused"
    );
    if asks_for_all() {
        // The figure is a tenth more. The C library's allocator keeps the pages of thousands of small pieces, which shows
        // here; what is asserted is that nothing worse is kept.
        assert!(
            after <= rss + rss / 10 + 40 * 1024,
            "{name}: memory stays at {after} KiB of {rss}"
        );
    }
    scene.alice.on(DEVICE, "true").await.succeeded();
    scene.is_sound().await;
}

/// How long honest peers waited.
#[derive(Default)]
struct Noticed {
    tcp: Vec<Duration>,
    quic: Vec<Duration>,
    failed_tcp: usize,
    failed_quic: usize,
}

impl Noticed {
    async fn once(&mut self, gateway: SocketAddr) {
        let began = Instant::now();
        match timeout(PATIENCE, ssh_greeting(gateway)).await {
            Ok(Some(())) => self.tcp.push(began.elapsed()),
            _ => self.failed_tcp += 1,
        }
        let began = Instant::now();
        match timeout(
            PATIENCE,
            peer::connect(Ipv4Addr::new(127, 1, 0, 2), gateway, None, ALPN_ENROLL),
        )
        .await
        {
            Ok(Ok(connection)) => {
                self.quic.push(began.elapsed());
                connection.close(0_u32.into(), b"enough");
            }
            _ => self.failed_quic += 1,
        }
    }

    fn p99(&self, tcp: bool) -> Duration {
        let mut all = if tcp { self.tcp.clone() } else { self.quic.clone() };
        all.sort_unstable();
        all.get((all.len() * 99).div_ceil(100).saturating_sub(1))
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
