use fairlead_runtime::audit::Record;
use serde_json::Value;

use super::*;

fn broker(prefix: &str) -> Broker {
    Broker {
        host: "127.0.0.1".into(),
        port: 1,
        prefix: prefix.into(),
        client_id: "gateway".into(),
        login: None,
    }
}

fn refused(topic: &str) -> Record {
    let mut record = Record::new("act.refuse");
    record.site = Some("plant-7".into());
    record.fact("topic", topic);
    record
}

#[test]
fn what_waits_for_a_broker_is_bounded_and_what_is_left_out_is_counted() {
    let meters = Meters::default();
    let (ears, mut sources) = feeds(&[broker("fairlead/a"), broker("fairlead/b")], &meters);
    for _ in 0..WAITING + 3 {
        ears[0].hear(&Record::new("session.end"));
    }
    assert_eq!(meters.left_out.get(), 3);
    let mut kept = 0;
    while sources[0].queue.try_recv().is_ok() {
        kept += 1;
    }
    assert_eq!(kept, WAITING);
    assert!(sources[1].queue.try_recv().is_err());
}

#[test]
fn a_refusal_of_an_event_is_no_event() {
    let (ears, mut sources) = feeds(&[broker("fairlead/a")], &Meters::default());
    ears[0].hear(&refused("fairlead/a/denials/plant-7"));
    assert!(sources[0].queue.try_recv().is_err());
    ears[0].hear(&refused("fairlead/ab"));
    let said = sources[0].queue.try_recv().unwrap();
    assert_eq!(said.topic("fairlead/a"), "fairlead/a/denials/plant-7");
    let body: Value = serde_json::from_slice(&said.payload).unwrap();
    assert_eq!((&body["event"], &body["v"]), (&"act.refuse".into(), &1.into()));
    assert!(!said.retain && body.get("facts").is_none());
}

#[test]
fn what_nobody_is_told_stays_in_the_audit() {
    for event in ["token.create", "agent.enroll", "link.up", "session.cancel"] {
        assert_eq!(Said::of(&Record::new(event)), None, "{event}");
    }
}
