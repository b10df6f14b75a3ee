//! Audit logs as tests read them.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;

use fairlead_runtime::audit::verify;
use serde_json::Value;

use super::wait::until;

/// An audit log that somebody may be writing to.
#[derive(Clone, Debug)]
pub struct AuditFile {
    path: PathBuf,
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct Line(Value);

impl Line {
    /// A field that is a text; empty where the line does not have it.
    pub fn text(&self, field: &str) -> &str {
        self.0.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    /// A field that is a number.
    pub fn number(&self, field: &str) -> Option<u64> {
        self.0.get(field).and_then(Value::as_u64)
    }

    /// A fact that is a text; empty where the line does not have it.
    pub fn fact(&self, name: &str) -> &str {
        self.0
            .get("facts")
            .and_then(|facts| facts.get(name))
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// A fact that is a number.
    pub fn fact_number(&self, name: &str) -> Option<u64> {
        self.0
            .get("facts")
            .and_then(|facts| facts.get(name))
            .and_then(Value::as_u64)
    }

    /// The event and, where there is one, the reason: `session.end killed`.
    pub fn shown(&self) -> String {
        format!("{} {}", self.text("event"), self.text("reason"))
            .trim_end()
            .to_owned()
    }
}

impl AuditFile {
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Every whole line so far.
    pub fn lines(&self) -> Vec<Line> {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        whole
            .map(|line| Line(serde_json::from_str(line).expect("an audit line is JSON")))
            .collect()
    }

    /// The lines about sessions so far.
    pub fn sessions(&self) -> Vec<Line> {
        let lines = self.lines().into_iter();
        lines
            .filter(|line| line.text("event").starts_with("session."))
            .collect()
    }

    /// The lines of one session so far.
    pub fn of(&self, session: &str) -> Vec<Line> {
        self.lines()
            .into_iter()
            .filter(|line| line.text("session") == session)
            .collect()
    }

    /// The lines of one session as [`Line::shown`].
    pub fn shown(&self, session: &str) -> Vec<String> {
        self.of(session).iter().map(Line::shown).collect()
    }

    /// Waits for a line of this event, and of this session where one is given.
    pub async fn awaited(&self, event: &str, session: Option<&str>) -> Line {
        let is_it =
            |line: &Line| line.text("event") == event && session.is_none_or(|session| line.text("session") == session);
        let what = format!("{event} of {session:?} in {}", self.path.display());
        until(&what, async || self.lines().into_iter().find(is_it)).await
    }

    /// Checks the chain of the whole file.
    pub fn verified(&self) {
        let file = File::open(&self.path).expect("an audit log");
        verify(file).unwrap_or_else(|bad| panic!("{}: {bad}", self.path.display()));
    }
}

/// What holds when everything has stopped; see [`super::Lab::stop`].
pub(super) fn reconcile(gateway: &AuditFile, agents: &[AuditFile]) {
    gateway.verified();
    let permitted = sessions(gateway);
    for (session, lines) in &permitted {
        let events = events(lines);
        let is_sound = matches!(&*events, ["session.refuse"] | ["session.permit", "session.end"]);
        assert!(is_sound, "the gateway's lines of {session}: {events:?}");
    }
    for agent in agents {
        agent.verified();
        for (session, lines) in sessions(agent) {
            let events = events(&lines);
            let is_sound = matches!(&*events, ["session.refuse"] | ["session.permit", "session.end"]);
            assert!(is_sound, "the agent's lines of {session}: {events:?}");
            let at_gateway = permitted
                .get(&session)
                .unwrap_or_else(|| panic!("only the agent knows {session}"));
            assert_eq!(at_gateway[0].text("event"), "session.permit", "{session}");
            for field in ["caller", "client_ip", "endpoint", "site"] {
                assert_eq!(at_gateway[0].text(field), lines[0].text(field), "{field} of {session}");
            }
        }
    }
}

/// Lines by session, acts and administration left out.
fn sessions(file: &AuditFile) -> BTreeMap<String, Vec<Line>> {
    let mut sessions: BTreeMap<String, Vec<Line>> = BTreeMap::new();
    for line in file.lines() {
        if matches!(line.text("event"), "session.permit" | "session.refuse" | "session.end") {
            sessions.entry(line.text("session").to_owned()).or_default().push(line);
        }
    }
    sessions
}

fn events(lines: &[Line]) -> Vec<&str> {
    lines.iter().map(|line| line.text("event")).collect()
}
