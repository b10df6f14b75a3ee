//! What the kernel says of a process.

use std::time::Duration;

/// Resident memory in KiB.
pub(crate) fn resident_kib(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("the process lives");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("a size");
    line.split_whitespace().next().unwrap().parse().expect("a number")
}

/// Resident memory in KiB that is the process's own, without the program's text and its libraries, page by page.
pub(crate) fn own_kib(id: u32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{id}/smaps_rollup")).expect("the process lives");
    let line = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Anonymous:"))
        .expect("a size");
    line.split_whitespace().next().unwrap().parse().expect("a number")
}

/// Processor time of a process so far. The kernel counts in hundredths of a second.
pub(crate) fn cpu_time(id: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).expect("the process lives");
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}
