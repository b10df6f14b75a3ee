//! Resident memory of both sides: idle, for each of 1,000 idle sessions, and after bulk. Each way is fresh, so there is one round.

use std::time::Duration;

use serde_json::Value;

use crate::Effort;
use crate::bulk;
use crate::load::{self, Target, together};
use crate::stats::{Sheet, column};
use crate::ways::{self, Entry};

const GIB: u64 = 1024 * 1024 * 1024;
/// What every way holds: one `fairlead connect` carries 512 at a time, an agent 1,024.
const SESSIONS: u32 = 480;
/// For what is let go of a moment later.
const SETTLED: Duration = Duration::from_secs(2);

pub(crate) async fn measure(effort: Effort) -> Value {
    let target = Target::start().await;
    let ways = ways::start(&target, &effort).await;
    let sessions = if effort.quick { 100 } else { SESSIONS };
    let mut sheet = Sheet::new(
        format!("memory: KiB for each of {sessions} idle sessions, MiB in all (near the clients / near the target)"),
        &[
            column("KiB/session near", 1),
            column("KiB/session far", 1),
            column("idle MiB near", 1),
            column("idle MiB far", 1),
            column("MiB after bulk near", 1),
            column("MiB after bulk far", 1),
        ],
    );
    for way in ways.iter().filter(|way| way.has_tunnel()) {
        tokio::time::sleep(SETTLED).await;
        let idle = way.rss();
        let held = crowd(&way.entry().await, sessions).await;
        tokio::time::sleep(SETTLED).await;
        let full = way.rss();
        drop(held);
        tokio::time::sleep(SETTLED).await;
        let entry = way.entry().await;
        let bytes = if effort.quick { GIB / 16 } else { GIB / 2 };
        bulk::one(entry.clone(), true, bytes).await;
        bulk::one(entry, false, bytes).await;
        let after = way.rss();
        let each = |full: f64, idle: f64| (full - idle) / f64::from(sessions);
        sheet.add(
            way.name,
            vec![
                each(full.0, idle.0),
                each(full.1, idle.1),
                idle.0 / 1024.0,
                idle.1 / 1024.0,
                after.0 / 1024.0,
                after.1 / 1024.0,
            ],
        );
    }
    sheet.show()
}

/// So many sessions, each with one byte echoed, 32 set up at a time.
pub(crate) async fn crowd(entry: &Entry, sessions: u32) -> Vec<tokio::net::TcpStream> {
    let entry = entry.ready().await;
    let group = |number: u32| {
        let entry = entry.clone();
        async move {
            let mut held = Vec::new();
            for _ in (number..sessions).step_by(32) {
                let mut stream = entry.connect().await;
                load::hello(&mut stream).await;
                held.push(stream);
            }
            held
        }
    };
    together((0..32).map(group)).await.into_iter().flatten().collect()
}
