use super::*;

#[tokio::test]
async fn agents_are_shown_with_their_links() {
    let lab = Lab::start().await;
    lab.enrol("plant-7", "pump-7").await;
    lab.enrol("plant-8", "pump-7").await;
    let agents = lab.get("/v1/agents").await;
    assert_eq!(agents["agents"][0]["online"]["transport"], json!("quic"));
    assert_eq!(agents["agents"][0]["online"]["since"], json!(5));
    assert_eq!(
        agents["agents"][1]["online"],
        Value::Null,
        "the same name in another site is another agent"
    );
    assert_eq!(
        lab.get("/v1/agents?site=plant-8").await["agents"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let detail = lab.get("/v1/agents/plant-7/pump-7").await;
    assert_eq!(
        (&detail["labels"], &detail["endpoints"]),
        (&json!({"tier": "edge"}), &json!([]))
    );
}

#[tokio::test]
async fn labels_are_set_and_taken_away_one_by_one() {
    let lab = Lab::start().await;
    let id = lab.enrol("plant-7", "pump-7").await;
    let (status, agent) = lab
        .call(
            Method::PATCH,
            "/v1/agents/plant-7/pump-7",
            json!({ "labels": {"row": "2", "tier": null} }),
        )
        .await;
    assert_eq!((status, &agent["labels"]), (StatusCode::OK, &json!({"row": "2"})));
    assert_eq!(lab.changes(), [Change::Agent(id)]);
    let (status, _) = lab
        .call(Method::PATCH, "/v1/agents/plant-8/pump-7", json!({ "labels": {} }))
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_deleted_agent_is_gone_and_the_gateway_told() {
    let lab = Lab::start().await;
    let id = lab.enrol("plant-7", "pump-7").await;
    let (status, _) = lab.call(Method::DELETE, "/v1/agents/plant-7/pump-7", Value::Null).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(lab.changes(), [Change::AgentGone(id)]);
    let (status, _) = lab.call(Method::DELETE, "/v1/agents/plant-7/pump-7", Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(
        lab.audited(),
        [
            "agent.delete/allow",
            "agent.delete/allow",
            "agent.delete/deny/not-found"
        ]
    );
    assert_eq!(lab.changes().len(), 1, "what did not happen is not told");
}

#[tokio::test]
async fn a_change_is_finished_when_the_asker_hangs_up() {
    let lab = Lab::start().await;
    let id = lab.enrol("plant-7", "pump-7").await;
    // The store is kept busy, so that the asker is gone before the change can happen.
    let (release, released) = std::sync::mpsc::sync_channel::<()>(1);
    let store = lab.store.clone();
    lab.tasks.spawn("busy", async move {
        let busy: Result<(), StoreError> = store
            .run(move |_| {
                released.recv().unwrap();
                Ok(())
            })
            .await;
        busy.unwrap();
    });
    let mut stream = UnixStream::connect(lab.socket()).await.unwrap();
    let request = "DELETE /v1/agents/plant-7/pump-7 HTTP/1.1\r\nhost: admin\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes())
        .await
        .unwrap();
    while lab.audited().is_empty() {
        tokio::task::yield_now().await;
    }
    drop(stream);
    while lab.tasks.running().contains_key("admin-request") {
        tokio::task::yield_now().await;
    }
    assert!(lab.changes().is_empty());
    release.send(()).unwrap();
    while lab.changes().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(lab.changes(), [Change::AgentGone(id)]);
}

#[tokio::test]
async fn hosts_are_bound_to_agents_that_are_all_there() {
    let lab = Lab::start().await;
    let pump = lab.enrol("plant-7", "pump-7").await;
    let bind = |agents: Value| json!({ "host": "billing", "site": "plant-7", "agents": agents });
    let (status, _) = lab.post("/v1/hosts", bind(json!(["pump-7", "pump-8"]))).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(lab.get("/v1/hosts").await, json!({"hosts": []}));
    let (status, _) = lab.post("/v1/hosts", bind(json!([]))).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);

    let (status, host) = lab.post("/v1/hosts", bind(json!(["pump-7"]))).await;
    assert_eq!((status, &host["agents"]), (StatusCode::CREATED, &json!(["pump-7"])));
    assert_eq!(lab.get("/v1/hosts").await["hosts"], json!([host]));
    assert_eq!(lab.changes(), [Change::Agent(pump)]);

    let (status, _) = lab
        .call(Method::DELETE, "/v1/hosts/plant-7/billing/pump-7", Value::Null)
        .await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let (status, _) = lab
        .call(Method::DELETE, "/v1/hosts/plant-7/billing/pump-7", Value::Null)
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn sessions_are_listed_by_site_and_killed() {
    let lab = Lab::start().await;
    let id = SessionId::from_bytes(SESSION).to_string();
    assert_eq!(
        lab.get("/v1/sessions?site=plant-7").await["sessions"][0]["id"],
        json!(id)
    );
    assert_eq!(lab.get("/v1/sessions?site=plant-8").await, json!({"sessions": []}));
    let (status, _) = lab
        .call(Method::DELETE, &format!("/v1/sessions/{id}"), Value::Null)
        .await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let other = SessionId::from_bytes([8; 16]).to_string();
    let (status, _) = lab
        .call(Method::DELETE, &format!("/v1/sessions/{other}"), Value::Null)
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(
        lab.audited(),
        [
            "session.kill/allow",
            "session.kill/allow",
            "session.kill/deny/not-found"
        ]
    );
}

#[tokio::test]
async fn a_bad_policy_is_refused_with_every_mistake() {
    let lab = Lab::start().await;
    let (status, answer) = lab.post("/v1/policy/reload", Value::Null).await;
    assert_eq!(
        (status, answer),
        (StatusCode::OK, json!({ "digest": "abc", "warnings": ["hm"] }))
    );
    *lab.gateway.policy_is_broken.lock().unwrap() = true;
    let (status, answer) = lab.post("/v1/policy/reload", Value::Null).await;
    assert_eq!((status.as_u16(), &answer["error"]), (422, &json!("policy")));
    let reason = answer["reason"].as_str().unwrap();
    assert!(
        reason.contains("a.yaml:3:1") && reason.contains("b.yaml:1:1"),
        "{reason}"
    );
}
