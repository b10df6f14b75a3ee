use std::sync::Arc;
use std::time::Duration;

use fairlead_wire::refusal::Reason;

use super::*;
use crate::access::testing::OpenGate;
use crate::link::Roster;

const CEILINGS: Ceilings = Ceilings {
    total: 8,
    per_user: 8,
    per_workload: 8,
};

/// Without agents: right after the start, whoever asks for one waits.
fn scene() -> (OpenGate, Arc<Table>, Sessions) {
    let (gate, table) = (OpenGate::new(), Table::new(CEILINGS));
    let sessions = Sessions::new(Roster::new(8), Arc::clone(&table), gate.trail());
    (gate, table, sessions)
}

#[tokio::test]
async fn a_closed_table_takes_no_session_and_says_why() {
    let (gate, table, sessions) = scene();
    table.close(Reason::GatewayStopping);
    let denial = sessions.open(gate.permit(), false).await.unwrap_err().denial;
    assert_eq!(denial.told, Reason::GatewayStopping);
    assert_eq!(gate.audited(), ["session.permit", "session.end gateway-stopping"]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_whoever_waits_for_an_agent_and_the_audit_knows() {
    let (gate, table, sessions) = scene();
    let stop = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(table.len(), 1);
        table.close(Reason::GatewayStopping);
        table.end_all(Reason::GatewayStopping);
        table.emptied().await;
    };
    let (opened, ()) = tokio::join!(sessions.open(gate.permit(), false), stop);
    assert_eq!(opened.unwrap_err().denial.told, Reason::GatewayStopping);
    assert_eq!(gate.audited(), ["session.permit", "session.end gateway-stopping"]);
}

#[tokio::test(start_paused = true)]
async fn no_permit_loses_its_end_when_its_task_is_cut_off() {
    let (gate, table, sessions) = scene();
    let cut = tokio::time::timeout(Duration::from_secs(1), sessions.open(gate.permit(), false)).await;
    assert!(cut.is_err(), "it still waited");
    assert!(table.is_empty());
    assert_eq!(gate.audited(), ["session.permit", "session.end caller-gone"]);
}
