//! What processes cost, as proc(5) has it.

use std::collections::BTreeSet;

/// Hundredths of a second are the kernel's unit of processor time on every Linux that Fairlead runs on.
const TICKS: f64 = 100.0;

/// These processes and all that they started and that still run.
pub(crate) fn family(pids: &[u32]) -> BTreeSet<u32> {
    let parents: Vec<(u32, u32)> = std::fs::read_dir("/proc")
        .expect("/proc is mounted")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, fields(pid)?.get(1)?.parse().ok()?)))
        .collect();
    let mut family: BTreeSet<u32> = pids.iter().copied().collect();
    loop {
        let more: Vec<u32> = parents
            .iter()
            .filter(|(pid, parent)| family.contains(parent) && !family.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if more.is_empty() {
            return family;
        }
        family.extend(more);
    }
}

/// Seconds that they have computed so far, user and system, and what their ended children had.
pub(crate) fn cpu(pids: &[u32]) -> f64 {
    let of = |pid: &u32| {
        let fields = fields(*pid)?;
        let ticks: f64 = (11..15).map(|at| fields[at].parse::<f64>().expect("ticks")).sum();
        Some(ticks / TICKS)
    };
    family(pids).iter().filter_map(of).sum()
}

/// Resident memory in KiB.
pub(crate) fn rss(pids: &[u32]) -> f64 {
    family(pids)
        .iter()
        .map(|pid| status(*pid, "VmRSS").unwrap_or(0.0))
        .sum()
}

/// How often all threads of a process have begun to wait so far.
pub(crate) fn waits(pid: u32) -> f64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let of =
        |task: std::io::Result<std::fs::DirEntry>| line(&task.ok()?.path().join("status"), "voluntary_ctxt_switches");
    tasks.filter_map(of).sum()
}

/// A number of /proc/PID/status.
pub(crate) fn status(pid: u32, name: &str) -> Option<f64> {
    line(format!("/proc/{pid}/status").as_ref(), name)
}

/// Its open files.
pub(crate) fn files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("the process runs")
        .count()
}

fn line(file: &std::path::Path, name: &str) -> Option<f64> {
    let text = std::fs::read_to_string(file).ok()?;
    let rest = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The fields of /proc/PID/stat after the name: state, parent, …, utime (11), stime, cutime, cstime.
fn fields(pid: u32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}
