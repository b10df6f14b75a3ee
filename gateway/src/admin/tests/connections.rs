use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

fn settings(path: PathBuf) -> Settings {
    Settings {
        socket: path,
        metrics_listen: None,
    }
}

#[tokio::test]
async fn the_socket_is_for_its_group_only_and_goes_with_the_gateway() {
    let lab = Lab::start().await;
    assert_eq!(mode(&lab.socket()), 0o660);
    assert_eq!(mode(lab.socket().parent().unwrap()), 0o750);
    lab.store.close().await.unwrap();
    assert!(lab.tasks.stop(Duration::from_secs(5)).await.is_empty());
    assert!(!lab.socket().exists());
}

#[tokio::test]
async fn a_live_socket_is_refused_and_a_dead_one_replaced() {
    let lab = Lab::start().await;
    let text = Admin::bind(&settings(lab.socket())).await.unwrap_err().to_string();
    assert!(text.contains("another process already answers"), "{text}");
    assert_eq!(lab.get("/v1/users").await, json!({"users": []}));

    let stale = lab.directory.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let first = Admin::bind(&settings(stale.clone())).await.unwrap();
    assert_eq!(mode(&stale), 0o660);
    drop(first);
    let second = Admin::bind(&settings(stale)).await.unwrap();
    second.socket.remove();
}

#[tokio::test]
async fn a_stopping_gateway_leaves_its_successors_socket_alone() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("admin.sock");
    let first = SocketFile::take(&path).await.unwrap();
    std::fs::remove_file(&path).unwrap();
    let _second = SocketFile::take(&path).await.unwrap();
    first.remove();
    assert!(path.exists());
}

#[tokio::test]
async fn what_is_no_socket_or_open_to_all_is_refused() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    let refused = Admin::bind(&settings(file.clone())).await;
    assert!(matches!(
        refused,
        Err(BindError::Socket(SocketError::NotASocket { .. }))
    ));
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");

    let open = directory.path().join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
    let refused = Admin::bind(&settings(open.join("admin.sock"))).await;
    assert!(matches!(
        refused,
        Err(BindError::Socket(SocketError::OpenDirectory { .. }))
    ));
}

#[tokio::test]
async fn a_taken_metrics_address_is_said() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let directory = TempDir::new().unwrap();
    let mut settings = settings(directory.path().join("admin.sock"));
    settings.metrics_listen = Some(taken.local_addr().unwrap());
    let text = Admin::bind(&settings).await.unwrap_err().to_string();
    assert!(text.contains("admin.metrics_listen"), "{text}");
    assert!(!settings.socket.exists());
}

async fn scrape(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn the_tcp_address_shows_metrics_and_health_and_nothing_else() {
    let lab = Lab::start().await;
    assert!(
        scrape(lab.metrics, "/metrics")
            .await
            .contains("application/openmetrics-text")
    );
    assert!(scrape(lab.metrics, "/healthz").await.starts_with("HTTP/1.1 200"));
    let ready = scrape(lab.metrics, "/readyz").await;
    assert!(
        ready.starts_with("HTTP/1.1 503") && ready.contains("draining"),
        "{ready}"
    );
    assert!(scrape(lab.metrics, "/v1/users").await.starts_with("HTTP/1.1 404"));
    let (status, _) = lab.call(Method::GET, "/healthz", Value::Null).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn whatever_is_wrong_with_a_request_is_said_as_json() {
    let lab = Lab::start().await;
    let long = json!({ "agent": "x".repeat(api::MAX_BODY_BYTES) });
    let cases = [
        (Method::GET, "/v1/nothing", Value::Null, 404, "not-found"),
        (Method::PUT, "/v1/users", Value::Null, 405, "method"),
        (Method::POST, "/v1/tokens", Value::Null, 400, "invalid"),
        (
            Method::POST,
            "/v1/tokens",
            json!({ "agent": "a", "root": true }),
            400,
            "invalid",
        ),
        (Method::POST, "/v1/tokens", long, 413, "too-large"),
        (Method::GET, "/v1/agents?color=red", Value::Null, 400, "invalid"),
        (Method::GET, "/v1/agents/%ff/x", Value::Null, 400, "invalid"),
        (Method::GET, "/v1/agents/plant-7/nobody", Value::Null, 404, "not-found"),
        (Method::DELETE, "/v1/agents/plant-7/..", Value::Null, 422, "invalid"),
        (Method::DELETE, "/v1/sessions/x", Value::Null, 422, "invalid"),
    ];
    for (method, path, body, status, error) in cases {
        let answer = lab.call(method, path, body).await;
        assert_eq!(
            (answer.0.as_u16(), answer.1["error"].as_str()),
            (status, Some(error)),
            "{path}: {answer:?}"
        );
        assert!(
            answer.1["reason"].as_str().is_some_and(|reason| !reason.is_empty()),
            "{path}"
        );
    }
}

#[tokio::test]
async fn rubbish_ends_its_own_connection_only() {
    let lab = Lab::start().await;
    let mut stream = UnixStream::connect(lab.socket()).await.unwrap();
    stream.write_all(&[0xff; 4096]).await.unwrap();
    let mut answer = Vec::new();
    let _reset_or_closed = stream.read_to_end(&mut answer).await;
    assert_eq!(lab.get("/v1/hosts").await, json!({"hosts": []}));
}
