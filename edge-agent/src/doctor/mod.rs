//! `fairlead-agent doctor`: tries, one after the other, everything that a link needs, and says in plain words what blocks it
//! and what to do. It needs no running agent, changes nothing, and does not link: it ends each connection after the handshake.
//!
//! Each step is a [`Finding`]; what each step finds out is in `steps`. Deliberately not here: what is behind the agent. Its
//! services are `scope`'s and `explain`'s business.

mod steps;

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::config::Config;
use crate::console::Shown;

/// Exit codes: the gateway cannot be reached, it refuses, the configuration is wrong.
const UNREACHABLE: u8 = 69;
const REFUSED: u8 = 77;
const CONFIGURATION: u8 = 78;

/// How a step came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// A link is possible, but not all is as it should be.
    Poor,
    /// A link is not possible this way.
    Bad,
    /// Not tried, because it does not apply or an earlier step left nothing to try.
    Skipped,
}

/// What one step has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The step: `identity`, `clock`, `dns`, `udp`, `tls`, `mtu`, `tcp`, `proxy`, `websocket`, `agent`.
    pub step: &'static str,
    /// How it came out.
    pub verdict: Verdict,
    /// What was seen.
    pub seen: String,
    /// What to do; empty where nothing is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub advice: String,
}

impl Finding {
    fn new(step: &'static str, verdict: Verdict, seen: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            step,
            verdict,
            seen: seen.into(),
            advice: advice.into(),
        }
    }

    fn good(step: &'static str, seen: impl Into<String>) -> Self {
        Self::new(step, Verdict::Good, seen, "")
    }

    fn skipped(step: &'static str, seen: impl Into<String>) -> Self {
        Self::new(step, Verdict::Skipped, seen, "")
    }
}

/// Everything that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether the agent can link as things are.
    pub can_link: bool,
    /// The exit code: 0, 69 unreachable, 77 refused, 78 configuration or identity.
    pub code: u8,
    /// In the order in which they were made.
    pub findings: Vec<Finding>,
}

/// What can be found out in this many seconds, at most: a name that is not answered, four addresses that are silent.
pub const LONGEST: Duration = Duration::from_secs(60);

/// Makes every step.
pub async fn examine(config: &Config) -> Report {
    let mut findings = Vec::new();
    let Some(patient) = steps::identity(config, &mut findings) else {
        return Report {
            can_link: false,
            code: CONFIGURATION,
            findings,
        };
    };
    findings.push(patient.clock());
    let addresses = patient.resolve(&mut findings).await;
    let mut outcome = steps::Outcome::default();
    for address in &addresses {
        outcome.add(patient.over_udp(*address, &mut findings).await);
        findings.push(steps::over_tcp(*address).await);
    }
    outcome.add(patient.over_websocket(&mut findings).await);
    findings.push(steps::running(config));
    Report {
        can_link: outcome.linked,
        code: match outcome {
            steps::Outcome { linked: true, .. } => 0,
            steps::Outcome { refused: true, .. } => REFUSED,
            _ => UNREACHABLE,
        },
        findings,
    }
}

/// The report for people, or as JSON.
pub fn show(report: &Report, as_json: bool) -> Shown {
    if as_json {
        let text = serde_json::to_string_pretty(report).unwrap_or_default();
        return Shown {
            text: text + "\n",
            note: String::new(),
            code: report.code,
        };
    }
    let mut text = String::new();
    for finding in &report.findings {
        let mark = match finding.verdict {
            Verdict::Good => "good",
            Verdict::Poor => "POOR",
            Verdict::Bad => "BAD",
            Verdict::Skipped => "-",
        };
        let _infallible = writeln!(text, "{mark:<5} {:<9} {}", finding.step, finding.seen);
        if !finding.advice.is_empty() {
            let _infallible = writeln!(text, "{:16}{}", "", finding.advice);
        }
    }
    let last = if report.can_link {
        "The agent can link."
    } else {
        "The agent CANNOT link. What is BAD above says what to do."
    };
    Shown {
        text: format!("{text}\n{last}\n"),
        note: String::new(),
        code: report.code,
    }
}
