use fairlead_identity::join::{JoinKind, JoinString};

use super::*;
use crate::store::RedeemError;

#[tokio::test]
async fn a_join_string_is_shown_once_and_redeems() {
    let lab = Lab::start().await;
    let (status, answer) = lab
        .post(
            "/v1/tokens",
            json!({ "agent": "pump-7", "site": "plant-7", "labels": {"tier": "edge"}, "hosts": ["billing"] }),
        )
        .await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    assert_eq!(answer["expires"], json!(NOW + 900));
    let join = JoinString::parse(answer["join"].as_str().unwrap()).unwrap();
    assert_eq!((join.kind, join.domain.as_str()), (JoinKind::Agent, "gw.example.com"));
    assert_eq!(join.ca_sha256, [3; 32]);

    let secret = join.secret.sha256();
    let redeemed: Result<_, RedeemError> = lab
        .store
        .run(move |store| store.redeem(&secret, &[1; 32], NOW as i64))
        .await;
    assert_eq!(redeemed.unwrap().hosts.into_iter().collect::<Vec<_>>(), ["billing"]);
    assert_eq!(lab.audited(), ["token.create/allow"]);
    let lines = lab.gateway.audited.lock().unwrap();
    let line = serde_json::to_string(&lines[0]).unwrap();
    assert!(
        !line.contains(answer["join"].as_str().unwrap()),
        "no secret in the audit"
    );
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(lab.directory.path()).unwrap());
    assert!(
        line.contains(&format!("uid:{uid}")) && line.contains("plant-7"),
        "{line}"
    );
}

#[tokio::test]
async fn a_user_string_has_no_site_unless_given() {
    let lab = Lab::start().await;
    let (_, answer) = lab
        .post(
            "/v1/tokens",
            json!({ "user": "alice", "groups": ["field"], "ttl_seconds": 60 }),
        )
        .await;
    assert_eq!((&answer["kind"], &answer["site"]), (&json!("user"), &Value::Null));
    assert_eq!(answer["expires"], json!(NOW + 60));
    assert_eq!(
        JoinString::parse(answer["join"].as_str().unwrap()).unwrap().kind,
        JoinKind::User
    );
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused() {
    let lab = Lab::start().await;
    let cases = [
        json!({}),
        json!({ "agent": "a", "user": "b" }),
        json!({ "agent": "Pump" }),
        json!({ "agent": "a", "site": "internal" }),
        json!({ "agent": "a", "groups": ["field"] }),
        json!({ "user": "a", "hosts": ["b"] }),
        json!({ "user": "g-field" }),
        json!({ "user": "a", "groups": ["no spaces"] }),
        json!({ "agent": "a", "ttl_seconds": 1 }),
        json!({ "agent": "a", "ttl_seconds": u64::MAX }),
    ];
    for body in cases {
        let (status, answer) = lab.post("/v1/tokens", body.clone()).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}: {answer}");
    }
}

#[tokio::test]
async fn an_enrolled_agent_gets_no_second_string_and_the_audit_says_so() {
    let lab = Lab::start().await;
    lab.enrol("plant-7", "pump-7").await;
    let (status, answer) = lab
        .post("/v1/tokens", json!({ "agent": "pump-7", "site": "plant-7" }))
        .await;
    assert_eq!((status, &answer["error"]), (StatusCode::CONFLICT, &json!("conflict")));
    assert!(
        answer["help"]
            .as_str()
            .unwrap()
            .contains("fairlead agents delete pump-7.plant-7"),
        "{answer}"
    );
    assert_eq!(lab.audited(), ["token.create/allow", "token.create/deny/conflict"]);
}

#[tokio::test]
async fn without_an_audit_line_nothing_happens() {
    let lab = Lab::start().await;
    *lab.gateway.audit_is_broken.lock().unwrap() = true;
    let (status, answer) = lab.post("/v1/users", json!({ "name": "alice" })).await;
    assert_eq!((status.as_u16(), &answer["error"]), (503, &json!("audit-failed")));
    assert_eq!(lab.get("/v1/users").await, json!({"users": []}));
}
