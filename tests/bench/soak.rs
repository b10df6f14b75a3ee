//! S3: 100 sessions a second, of which one in a hundred is cut by its client in the middle, for 20 minutes: what stays behind in the
//! gateway and the agent.

use std::time::{Duration, Instant};

use fairlead_tests::programs::{PATIENCE, until};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::Effort;
use crate::cost;
use crate::load::{Target, together};
use crate::stats::{Sheet, column};
use crate::ways::{Entry, Fairlead, Link};

/// Sessions of a batch, all within one second.
const A_SECOND: u32 = 100;
/// A token is good for ten seconds.
const BATCH: u32 = 8;
const CUT: u32 = 100;

pub(crate) async fn measure(effort: Effort) -> Value {
    let target = Target::start().await;
    let fairlead = Fairlead::start(Link::Quic, target.port).await;
    let pids = [fairlead.gateway.id(), fairlead.agent.id()];
    let whole = Duration::from_secs(if effort.quick {
        16
    } else {
        u64::from(effort.seconds_or(1_200))
    });
    // Once around, so that what is kept for good is there already.
    batch(&fairlead.entry().ready().await).await;
    let before = settled(&fairlead).await;
    let (mut grown, began, mut sessions) = (Vec::new(), Instant::now(), 0);
    while began.elapsed() < whole {
        sessions += batch(&fairlead.entry().ready().await).await;
        let rss = pids.map(|pid| cost::rss(&[pid]) / 1024.0);
        grown.push((began.elapsed().as_secs_f64() / 3600.0, rss));
    }
    let after = settled(&fairlead).await;
    let mut sheet = Sheet::new(
        "S3: 100 sessions/s, 1 % cut by the client (goal: 1 MiB/h, files back to where they were)",
        &[
            column("sessions", 0),
            column("MiB at first", 1),
            column("MiB at last", 1),
            column("slope MiB/h", 2),
            column("files before", 0),
            column("files after", 0),
        ],
    );
    // Half of it warms allocators and tables up.
    let later = &grown[grown.len() / 2..];
    for (side, name) in ["gateway", "agent"].into_iter().enumerate() {
        let points: Vec<(f64, f64)> = later.iter().map(|(hours, rss)| (*hours, rss[side])).collect();
        let (first, last) = (grown[0].1[side], grown[grown.len() - 1].1[side]);
        let row = [sessions as f64, first, last, slope(&points), before[side], after[side]];
        sheet.add(name, row.to_vec());
    }
    sheet.show()
}

/// Open files of both programs, once no session is left.
async fn settled(fairlead: &Fairlead) -> [f64; 2] {
    until("every session has ended", PATIENCE, async || {
        (fairlead.home.metric("fairlead_sessions_active").await.unwrap_or(0) == 0).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    [&fairlead.gateway, &fairlead.agent].map(|program| cost::files(program.id()) as f64)
}

async fn batch(entry: &Entry) -> u32 {
    let all = (0..A_SECOND * BATCH).map(|number| {
        let entry = entry.clone();
        async move {
            tokio::time::sleep(Duration::from_secs(1) * number / A_SECOND).await;
            let mut stream = entry.connect().await;
            if number % CUT == 0 {
                // Ordered a lot, read nothing, gone.
                stream
                    .write_all(b"d\0\0\0\0\x01\0\0\0")
                    .await
                    .expect("the order is taken");
                return;
            }
            stream.write_all(b"c1").await.expect("the byte is taken");
            assert_eq!(stream.read_u8().await.expect("the byte comes back"), b'1');
        }
    });
    let count = together(all).await.len();
    u32::try_from(count).expect("a batch")
}

/// Least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let both: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    both / points.iter().map(|point| (point.0 - x).powi(2)).sum::<f64>()
}
