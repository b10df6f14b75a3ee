//! Bytes that are no Connection Request, or too much of one: closed in time, memory bounded, others unaffected.

use std::time::{Duration, Instant};

use fairlead_tests::lab::Lab;
use fairlead_tests::upstream::Echo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::stage::{PATIENCE, REFUSED, answered, from, lab, request, token};

async fn set() -> (Lab, Echo) {
    let mut lab = lab("").await;
    let echo = Echo::start().await;
    lab.agent("hmi")
        .endpoint("rdp://hmi", &format!("tcp://{}", echo.address))
        .start()
        .await;
    (lab, echo)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_request_is_closed_and_nobody_else_notices() {
    let (lab, _echo) = set().await;
    let alice = lab.user("alice", &["operators"]).await;
    let token = token(&alice, "hmi").await;
    let mut other = from("127.0.0.1", lab.address()).await;
    let hello = request(&format!("Cookie: msts={token}"));
    other.write_all(&hello).await.unwrap();
    let mut head = [0; 4];
    timeout(PATIENCE, other.read_exact(&mut head)).await.unwrap().unwrap();
    other.read_exact(&mut vec![0; usize::from(head[3]) - 4]).await.unwrap();
    let cookie = [b"\x03\0\xff\xff\xfe\xe0\0\0\0\0\0Cookie: msts=", &[b'a'; 64 * 1024][..]].concat();
    let junk = [b"\x03\0\0\x14\x0f\xe0\0\0\0\0\0", &[0xff; 9][..]].concat();
    for (what, bytes) in [
        ("an oversize TPKT", &b"\x03\0\xff\xff\x02\xf0\x80"[..]),
        ("a length below its own header", b"\x03\0\0\x03\x02\xf0\x80"),
        (
            "two lengths that differ",
            b"\x03\0\0\x13\x20\xe0\0\0\0\0\0\x01\0\x08\0\x03\0\0\0",
        ),
        ("data before a request", b"\x03\0\0\x0c\x07\xf0\x80\x7f\x65\x82\x01\x94"),
        ("garbage for a negotiation", &junk),
        ("a cookie of 64 KiB", &cookie),
        ("another version of TPKT behind it", b"\x03\x01\0\x13\x0e\xe0"),
    ] {
        let answer = answered(from("127.0.0.1", lab.address()).await, bytes).await;
        assert!(answer.is_empty(), "{what}: {answer:?}");
    }
    // Requests that can be read are refused in words.
    for line in [
        "Cookie: mstshash=alice",
        "Cookie: msts=",
        "tsv://farm",
        "Cookie: msts=3640205228.15629.0000",
    ] {
        let answer = answered(from("127.0.0.1", lab.address()).await, &request(line)).await;
        assert!(answer.ends_with(REFUSED), "{line}: {answer:?}");
    }
    let mut same = [0; 5];
    other.write_all(b"still").await.unwrap();
    timeout(PATIENCE, other.read_exact(&mut same)).await.unwrap().unwrap();
    assert_eq!(&same, b"still");
    drop(other);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_after_half_a_request_is_not_waited_for() {
    let (lab, _echo) = set().await;
    let hello = request("Cookie: msts=fl1-");
    let mut stream = from("127.0.0.1", lab.address()).await;
    stream.write_all(&hello[..hello.len() / 2]).await.unwrap();
    let began = Instant::now();
    let mut heard = Vec::new();
    drop(timeout(PATIENCE, stream.read_to_end(&mut heard)).await.expect("an end"));
    assert!(
        heard.is_empty() && began.elapsed() > Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    lab.stop().await;
}
