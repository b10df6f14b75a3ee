use super::*;

#[tokio::test]
async fn users_are_added_with_their_keys_listed_and_changed() {
    let lab = Lab::start().await;
    let (status, user) = lab
        .post(
            "/v1/users",
            json!({ "name": "alice", "groups": ["field"], "ssh_keys": [KEY, KEY] }),
        )
        .await;
    assert_eq!(status, StatusCode::CREATED, "{user}");
    assert_eq!(user["groups"], json!(["field"]));
    let keys = lab.get("/v1/users/alice/keys").await;
    assert_eq!(keys["keys"].as_array().unwrap().len(), 1);
    let fingerprint = keys["keys"][0]["fingerprint"].as_str().unwrap().to_owned();
    assert!(fingerprint.starts_with("SHA256:"));
    let rows = lab
        .store
        .run(|store| store.caller_keys(&CallerName::user("alice")))
        .await;
    let rows: Result<_, StoreError> = rows;
    assert_eq!(rows.unwrap()[0].fingerprint, fingerprint);

    let (status, user) = lab
        .call(
            Method::PATCH,
            "/v1/users/alice",
            json!({ "groups": ["night"], "disabled": true }),
        )
        .await;
    assert_eq!(
        (status, &user["groups"], &user["disabled"]),
        (StatusCode::OK, &json!(["night"]), &json!(true))
    );
    assert_eq!(lab.get("/v1/users").await["users"][0], user);
    assert_eq!(
        lab.changes(),
        [
            Change::Caller(CallerName::user("alice")),
            Change::Caller(CallerName::user("alice"))
        ]
    );
    assert_eq!(lab.audited(), ["user.add/allow", "user.change/allow"]);
}

#[tokio::test]
async fn one_bad_key_refuses_the_whole_user() {
    let lab = Lab::start().await;
    let (status, answer) = lab
        .post(
            "/v1/users",
            json!({ "name": "alice", "ssh_keys": [KEY, "ssh-rsa AAAA"] }),
        )
        .await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        answer["reason"].as_str().unwrap().starts_with("public key 2:"),
        "{answer}"
    );
    assert_eq!(lab.get("/v1/users").await, json!({"users": []}));
}

#[tokio::test]
async fn keys_are_added_to_users_who_are_there() {
    let lab = Lab::start().await;
    let (status, _) = lab.post("/v1/users/alice/keys", json!({ "ssh_keys": [KEY] })).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, _) = lab.call(Method::GET, "/v1/users/alice/keys", Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    lab.post("/v1/users", json!({ "name": "alice" })).await;
    let (status, _) = lab.post("/v1/users/alice/keys", json!({ "ssh_keys": [] })).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let (status, keys) = lab.post("/v1/users/alice/keys", json!({ "ssh_keys": [KEY] })).await;
    assert_eq!(
        (status, &keys["keys"][0]["kind"]),
        (StatusCode::CREATED, &json!("registered"))
    );
}

#[tokio::test]
async fn a_name_is_given_once() {
    let lab = Lab::start().await;
    lab.post("/v1/users", json!({ "name": "alice", "groups": ["field"] }))
        .await;
    let (status, _) = lab
        .post("/v1/users", json!({ "name": "alice", "groups": ["root"] }))
        .await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(lab.get("/v1/users").await["users"][0]["groups"], json!(["field"]));
    assert_eq!(lab.changes().len(), 1);
}

#[tokio::test]
async fn a_key_is_kept_without_its_comment() {
    let lab = Lab::start().await;
    let commented = format!("{KEY} {}", "of a laptop ".repeat(300));
    let (status, user) = lab
        .post("/v1/users", json!({ "name": "alice", "ssh_keys": [commented] }))
        .await;
    assert_eq!(status, StatusCode::CREATED, "{user}");
    let keys = lab
        .store
        .run(move |store| store.caller_keys(&CallerName::user("alice")))
        .await
        .unwrap();
    let bare: Vec<&str> = KEY.split(' ').take(2).collect();
    assert_eq!(keys[0].public_key, bare.join(" "));
}
