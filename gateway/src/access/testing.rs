//! A gate that allows everything, with its audit log in a throw-away directory, for tests of the rooms behind it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use fairlead_policy::{AccessPolicy, Source};
use fairlead_runtime::audit::AuditLog;
use fairlead_wire::id::SessionId;
use serde_json::Value;

use super::{AccessRequest, Caller, CallerKind, Credential, Gate, Meters, Permit, Target, Trail};

const POLICY: &str = "version: 1
rules:
  - { name: everybody, sites: ['*'], effect: allow, expressions: [\"true\"] }
";

pub(crate) struct OpenGate {
    gate: Arc<Gate>,
    audit: PathBuf,
    _dir: tempfile::TempDir,
}

impl OpenGate {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let audit = dir.path().join("audit.jsonl");
        let log = Arc::new(AuditLog::open(&audit, "gw.example.com").unwrap());
        let source = Source {
            name: "access.yaml".into(),
            text: POLICY.into(),
        };
        let (policy, _) = AccessPolicy::compile(&[source]).unwrap();
        let gate = Arc::new(Gate::new(policy, Trail::new(log, Meters::default())));
        Self { gate, audit, _dir: dir }
    }

    pub(crate) fn trail(&self) -> Trail {
        self.gate.trail().clone()
    }

    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// A permit for ssh://pump-7.plant-7.internal.
    pub(crate) fn permit(&self) -> Permit {
        self.permit_as_of(0)
    }

    /// As [`Self::permit`], decided on facts of an earlier time.
    pub(crate) fn permit_as_of(&self, as_of: u64) -> Permit {
        let caller = Caller {
            name: "alice".parse().unwrap(),
            kind: CallerKind::User,
            groups: Vec::new(),
            labels: BTreeMap::new(),
            site: None,
            by: Credential::Key {
                fingerprint: "SHA256:alice".into(),
            },
            ssh_keys: Vec::new(),
        };
        let target = Target {
            endpoint: "ssh://pump-7.plant-7.internal".parse().unwrap(),
            agent: "pump-7".parse().unwrap(),
            site: "plant-7".parse().unwrap(),
            labels: BTreeMap::new(),
            builtin: false,
        };
        let request = AccessRequest {
            session: SessionId::from_bytes(uuid::Uuid::now_v7().into_bytes()),
            caller: Arc::new(caller),
            asked: "pump-7.plant-7.internal:22".into(),
            target: Some(target),
            client: ([192, 0, 2, 1], 4711).into(),
            now: SystemTime::now(),
            as_of,
            spoken: super::Spoken::default(),
        };
        self.gate.decide(&request).unwrap()
    }

    /// Event and reason of every audit line so far.
    pub(crate) fn audited(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.audit).unwrap();
        let line = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap();
            let reason = line["reason"].as_str().map(|reason| format!(" {reason}"));
            format!("{}{}", line["event"].as_str().unwrap(), reason.unwrap_or_default())
        };
        text.lines().map(line).collect()
    }
}
