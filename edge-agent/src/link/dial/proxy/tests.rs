use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;

const GATEWAY: &str = "gw.example.com:443";

/// What a proxy that answers `answers`, each after reading what it was asked, makes of a connection; and what it was asked.
async fn met_by(
    url: &str,
    password: Option<&str>,
    answers: &[&'static [u8]],
) -> (Result<TcpStream, ProxyError>, Vec<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = url.replace("PROXY", &listener.local_addr().unwrap().to_string());
    let proxy = Proxy::parse(&url, password.map(|word| SecretString::from(word.to_owned()))).unwrap();
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        for answer in answers {
            let mut bytes = vec![0; 1024];
            let count = stream.read(&mut bytes).await.unwrap();
            bytes.truncate(count);
            asked.push(bytes);
            stream.write_all(answer).await.unwrap();
        }
        (asked, stream)
    };
    let both = async { tokio::join!(proxy.connect(GATEWAY), serving) };
    let (met, (asked, _stream)) = timeout(Duration::from_secs(5), both).await.unwrap();
    (met, asked)
}

#[tokio::test]
async fn an_http_proxy_is_asked_to_connect_and_what_follows_its_answer_is_the_gateways() {
    let (met, asked) = met_by(
        "http://PROXY",
        None,
        &[b"HTTP/1.1 200 Connection established\r\n\r\nfrom the gateway"],
    )
    .await;
    let mut heard = [0; 16];
    met.unwrap().read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"from the gateway");
    assert_eq!(
        asked[0],
        b"CONNECT gw.example.com:443 HTTP/1.1\r\nHost: gw.example.com:443\r\n\r\n"
    );
}

#[tokio::test]
async fn user_and_password_go_to_the_proxy_and_into_no_text() {
    let (met, asked) = met_by("http://ann@PROXY", Some("s3cret"), &[b"HTTP/1.0 200 OK\r\n\r\n"]).await;
    assert!(met.is_ok());
    let asked = String::from_utf8(asked[0].clone()).unwrap();
    assert!(
        asked.contains("\r\nProxy-Authorization: Basic YW5uOnMzY3JldA==\r\n"),
        "{asked}"
    );
    let proxy = Proxy::parse("http://ann@proxy:3128", Some(SecretString::from("s3cret".to_owned()))).unwrap();
    let shown = format!("{proxy} {proxy:?}");
    assert!(
        !shown.contains("s3cret") && !shown.contains("ann") && shown.contains("proxy:3128"),
        "{shown}"
    );
    let told = Proxy::parse("ftp://ann:s3cret@proxy:1", None).unwrap_err().to_string();
    assert!(!told.contains("s3cret"), "{told}");
}

#[tokio::test]
async fn what_an_http_proxy_objects_to_is_told_to_a_person() {
    for (url, answer, told) in [
        (
            "http://PROXY",
            &b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"[..],
            "asks for a user and a password",
        ),
        (
            "http://ann@PROXY",
            b"HTTP/1.1 407 No\r\n\r\n",
            "does not take this user",
        ),
        (
            "http://PROXY",
            b"HTTP/1.1 403 Filtered\r\nX: y\r\n\r\n",
            "does not let this host connect to gw.example.com:443 (403 Filtered)",
        ),
        (
            "http://PROXY",
            b"HTTP/1.1 502 Bad Gateway\r\n\r\n",
            "could not reach gw.example.com:443 (502 Bad Gateway)",
        ),
        ("http://PROXY", b"SSH-2.0-OpenSSH\r\n\r\n", "no HTTP proxy"),
        ("http://PROXY", b"HTTP/1.1 \x1b[2J\r\n\r\n", "no HTTP proxy"),
        ("socks5://PROXY", b"\x05\xff", "asks for a user and a password"),
        ("socks5://PROXY", b"HT", "no SOCKS5 proxy"),
    ] {
        let (met, _) = met_by(url, None, &[answer]).await;
        let error = met.unwrap_err().to_string();
        assert!(error.contains(told), "{url}: {error}");
    }
}

#[tokio::test]
async fn a_socks_proxy_is_given_the_name_and_told_who_asks() {
    let answers: [&[u8]; 3] = [
        b"\x05\x02",
        b"\x01\x00",
        b"\x05\x00\x00\x01\x7f\x00\x00\x01\x1f\x90hello",
    ];
    let (met, asked) = met_by("socks5://ann@PROXY", Some("pw"), &answers).await;
    let mut heard = [0; 5];
    met.unwrap().read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
    assert_eq!(asked[0], b"\x05\x01\x02");
    assert_eq!(asked[1], b"\x01\x03ann\x02pw");
    assert_eq!(asked[2], b"\x05\x01\x00\x03\x0egw.example.com\x01\xbb");

    let (met, _) = met_by("socks5://ann@PROXY", None, &[b"\x05\x02", b"\x01\x01"]).await;
    assert!(matches!(met, Err(ProxyError::WrongPassword)));
    for (answer, told) in [
        (&b"\x05\x02\x00\x01"[..], "not allowed by its rules"),
        (b"\x05\x05\x00\x01", "connection refused"),
    ] {
        let (met, _) = met_by("socks5://PROXY", None, &[b"\x05\x00", answer]).await;
        let error = met.unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn the_environment_names_the_proxy_and_who_is_reached_without() {
    let of = |proxy, except, gateway: &str| {
        let proxies = Proxies::from_words(proxy, except).unwrap();
        proxies.of(gateway).map(ToString::to_string)
    };
    let proxy = Some("http://ann:pw@proxy.lan:3128/");
    assert_eq!(of(proxy, None, GATEWAY).unwrap(), "the proxy http://proxy.lan:3128");
    assert_eq!(
        of(Some("proxy.lan:3128"), None, GATEWAY).unwrap(),
        "the proxy http://proxy.lan:3128"
    );
    assert_eq!(of(None, None, GATEWAY), None);
    for except in [
        "*",
        "example.com",
        ".example.com",
        "*.example.com",
        "a.b, gw.example.com",
        "GW.Example.Com",
    ] {
        assert_eq!(of(proxy, Some(except), GATEWAY), None, "{except}");
    }
    for except in ["", "ample.com", "example.org", "w.example.com", "gw.example.com.evil"] {
        assert!(of(proxy, Some(except), GATEWAY).is_some(), "{except}");
    }
    assert_eq!(of(proxy, Some("10.0.0.1,::1"), "10.0.0.1:443"), None);
    assert_eq!(of(proxy, Some("::1"), "[::1]:443"), None);
    for bad in [
        "https://proxy:1",
        "http://",
        "http://proxy",
        "http://a b:1",
        "socks4://proxy:1",
        "http://@proxy:1",
        "http://proxy:0",
    ] {
        assert!(Proxies::from_words(Some(bad), None).is_err(), "{bad}");
    }
}
