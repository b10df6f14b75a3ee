//! The certificate of the private authority at its well-known address.

use fairlead_tests::clients::{Finished, run, stock};
use fairlead_tests::lab::{DOMAIN, Lab};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn curl(lab: &Lab, path: &str, arguments: &[&str]) -> Finished {
    let port = lab.address().port();
    let mut curl = stock("curl");
    curl.args(["-sS", "--max-time", "20", "--resolve"])
        .arg(format!("{DOMAIN}:{port}:127.0.0.1"))
        .args(arguments)
        .arg(format!("https://{DOMAIN}:{port}{path}"));
    run(curl).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anybody_gets_the_certificate_and_nothing_else() {
    let lab = Lab::start().await;
    let path = "/.well-known/fairlead/ca.pem";
    let got = curl(&lab, path, &["-k"]).await.succeeded();
    let root = std::fs::read_to_string(lab.user("alice", &[]).await.path("ca.pem")).unwrap();
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines(&got.text()), lines(&root));
    // What was got is what the gateway's own leaf leads to.
    let file = lab.path("got.pem");
    std::fs::write(&file, got.stdout).unwrap();
    let trusting = [
        "--cacert",
        file.to_str().unwrap(),
        "-o",
        "/dev/null",
        "-w",
        "%{http_code} %{http_version}",
    ];
    assert_eq!(curl(&lab, path, &trusting).await.succeeded().text(), "200 1.1");
    assert_eq!(curl(&lab, "/", &trusting).await.succeeded().text(), "404 1.1");
    let posting: Vec<&str> = trusting.into_iter().chain(["--data", "x"]).collect();
    assert_eq!(curl(&lab, path, &posting).await.succeeded().text(), "405 1.1");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_without_end_is_cut_off() {
    let lab = Lab::start().await;
    let alice = lab.user("alice", &["field"]).await;
    let mut command = alice.s_client(&lab, DOMAIN, &["-alpn", "http/1.1"]);
    command.stdin(std::process::Stdio::piped());
    let mut client = fairlead_tests::clients::Running::start(command);
    let mut stdin = client.stdin.take().unwrap();
    let endless = async {
        while stdin.write_all(b"GET / HTTP/1.1\r\nX: ").await.is_ok() && stdin.write_all(&[b'x'; 4096]).await.is_ok() {}
    };
    let (said, ()) = tokio::join!(client.finish(), endless);
    assert!(!said.text().contains("200"), "{}", said.text());
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_after_the_handshake_ends() {
    let lab = Lab::start().await;
    let alice = lab.user("alice", &["field"]).await;
    let began = std::time::Instant::now();
    // Our own client offers a protocol that this site does not speak, which is refused in the handshake.
    let refused = alice.tls(&lab, DOMAIN).await;
    assert!(refused.is_err());
    let mut socket = tokio::net::TcpStream::connect(lab.address()).await.unwrap();
    socket.write_all(&[0x16, 0x03, 0x01]).await.unwrap();
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).await.unwrap();
    assert!(began.elapsed() < std::time::Duration::from_secs(15));
    lab.stop().await;
}
