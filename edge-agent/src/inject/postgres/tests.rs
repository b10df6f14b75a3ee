//! Hostile databases: what a real one never does, in memory.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, SystemTime};

use fairlead_policy::{Caller, CallerKind};
use fairlead_protocol::postgres::Startup;
use fairlead_runtime::stop::CancellationToken;
use fairlead_runtime::tasks::TaskGroup;
use fairlead_wire::id::SessionId;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::super::{Attempt, LoggedIn, LoginFailed, Told};
use super::*;
use crate::config::{self, Credential};
use crate::service::{Asked, Channel};

const PASSWORD: &str = "canary-of-the-unit-test";

fn credential() -> Credential {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pw");
    fairlead_runtime::config_file::write_private(&file, PASSWORD.as_bytes(), 0o640).unwrap();
    let text = format!(
        "version: 1\nendpoints:\n  - url: postgres://db\n    upstream: {{ url: \"tcp://10.0.0.1:5432\" }}\n    rules: []\n    \
         credentials: [ {{ as: readonly, user: fairlead_ro, password_file: \"{}\" }} ]\n",
        file.display()
    );
    config::check("agent.yaml", &text).unwrap().endpoints[0].credentials[0].clone()
}

fn asked() -> Asked {
    Asked {
        session: SessionId::from_bytes([7; 16]),
        endpoint: "postgres://db".parse().unwrap(),
        caller: Caller {
            name: "app".into(),
            kind: CallerKind::User,
            groups: Vec::new(),
            labels: BTreeMap::new(),
            site: None,
        },
        ssh_keys: Vec::new(),
        client_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        client_port: 1,
        acts: Default::default(),
        at: SystemTime::UNIX_EPOCH,
        question: None,
        cancel: None,
        postgres: Some(Startup {
            minor: 0,
            parameters: vec![
                ("user".into(), "readonly".into()),
                ("database".into(), "billing".into()),
            ],
        }),
        mqtt: None,
        supposed: None,
    }
}

/// Logs in to a database that says `lines` in turn, each after it has heard something; gives what it has heard, too.
async fn against(lines: &[&[u8]], trust: Trust) -> (Result<LoggedIn, LoginFailed>, Vec<u8>) {
    let (mut ours, mut theirs) = duplex(1 << 20);
    let tasks = TaskGroup::new("test", &CancellationToken::new());
    let (asked, credential) = (asked(), credential());
    let channel = Channel { trust, binding: None };
    let attempt = Attempt {
        asked: &asked,
        credential: &credential,
        channel: &channel,
        tasks: &tasks,
    };
    let database = async {
        let mut heard = Vec::new();
        for line in lines {
            hear(&mut theirs, &mut heard).await;
            theirs.write_all(line).await.unwrap();
        }
        // Whoever gives up hangs up; whoever waits is waited for.
        drop(tokio::time::timeout(Duration::from_millis(200), hear(&mut theirs, &mut heard)).await);
        drop(theirs);
        heard
    };
    let login = async {
        let result = log_in(&mut ours, attempt).await;
        drop(ours);
        result
    };
    tokio::join!(login, database)
}

async fn hear(theirs: &mut DuplexStream, heard: &mut Vec<u8>) {
    let mut buffer = vec![0; 4096];
    let read = theirs.read(&mut buffer).await.unwrap_or(0);
    heard.extend_from_slice(&buffer[..read]);
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [[kind].as_slice(), &length, body].concat()
}

fn request(code: u32, body: &[u8]) -> Vec<u8> {
    message(b'R', &[code.to_be_bytes().as_slice(), body].concat())
}

fn failed(result: Result<LoggedIn, LoginFailed>) -> LoginFailed {
    let Err(failed) = result else { panic!("logged in") };
    assert!(!failed.detail.contains(PASSWORD), "{}", failed.detail);
    if let Told::Words(words) = &failed.told {
        assert!(!String::from_utf8_lossy(words).contains(PASSWORD), "{words:?}");
    }
    failed
}

#[tokio::test]
async fn the_database_sees_its_own_user_and_what_it_says_after_the_login_is_kept() {
    let after = message(b'S', b"a\0b\0");
    let sent = [request(0, b""), after.clone()].concat();
    let (result, heard) = against(&[&sent], Trust::None).await;
    let logged_in = result.expect("logged in");
    assert_eq!(logged_in.greeting, [request(0, b""), after].concat());
    let heard = String::from_utf8_lossy(&heard).into_owned();
    assert!(
        heard.contains("user\0fairlead_ro\0") && heard.contains("database\0billing\0"),
        "{heard:?}"
    );
}

#[tokio::test]
async fn a_weak_login_is_made_with_whoever_has_proven_itself_and_with_nobody_else() {
    for ask in [request(3, b""), request(5, &[1, 2, 3, 4])] {
        let (result, heard) = against(&[&ask], Trust::None).await;
        assert_eq!(failed(result).told, Told::Outline(TOO_WEAK));
        assert!(!heard.windows(3).any(|window| window == b"md5"));
        assert!(
            !heard
                .windows(PASSWORD.len())
                .any(|window| window == PASSWORD.as_bytes())
        );
        for trust in [Trust::Proven, Trust::OwnMachine] {
            let (result, _) = against(&[&ask, &request(0, b"")], trust).await;
            assert!(result.is_ok());
        }
    }
}

#[tokio::test]
async fn a_database_that_does_not_prove_itself_by_scram_is_left() {
    let begin = request(10, b"SCRAM-SHA-256\0\0");
    for next in [
        // Another's nonce, an unbounded number of rounds, no sense at all, an OK without a proof, a fallback to less.
        request(11, b"r=not-ours,s=AAAA,i=4096"),
        request(11, b"garbage"),
        request(0, b""),
        request(3, b""),
        request(12, b"v=AAAA"),
        request(7, b""),
        request(9, b""),
    ] {
        let (result, heard) = against(&[&begin, &next], Trust::Proven).await;
        failed(result);
        assert!(
            !heard
                .windows(PASSWORD.len())
                .any(|window| window == PASSWORD.as_bytes())
        );
    }
    let (result, _) = against(&[&request(10, b"OAUTHBEARER\0\0")], Trust::Proven).await;
    assert_eq!(failed(result).told, Told::Outline(NOT_SPOKEN));
}

#[tokio::test]
async fn a_server_that_answers_with_a_wrong_signature_or_too_many_rounds_is_left() {
    for (rounds, signature) in [
        ("4096", Some("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")),
        ("4000000000", None),
    ] {
        let (mut ours, mut theirs) = duplex(1 << 16);
        let tasks = TaskGroup::new("test", &CancellationToken::new());
        let (asked, credential) = (asked(), credential());
        let channel = Channel {
            trust: Trust::Proven,
            binding: None,
        };
        let attempt = Attempt {
            asked: &asked,
            credential: &credential,
            channel: &channel,
            tasks: &tasks,
        };
        let database = async {
            let mut heard = Vec::new();
            hear(&mut theirs, &mut heard).await;
            theirs.write_all(&request(10, b"SCRAM-SHA-256\0\0")).await.unwrap();
            heard.clear();
            hear(&mut theirs, &mut heard).await;
            let text = String::from_utf8_lossy(&heard).into_owned();
            let nonce = text.rsplit("r=").next().unwrap().to_owned();
            let challenge = format!("r={nonce}more,s=AAAA,i={rounds}");
            theirs.write_all(&request(11, challenge.as_bytes())).await.unwrap();
            if let Some(signature) = signature {
                hear(&mut theirs, &mut heard).await;
                let last = request(12, format!("v={signature}").as_bytes());
                theirs.write_all(&[last, request(0, b"")].concat()).await.unwrap();
            }
            hear(&mut theirs, &mut heard).await;
        };
        let login = async {
            let result = log_in(&mut ours, attempt).await;
            drop(ours);
            result
        };
        let (result, ()) = tokio::join!(login, database);
        let told = if signature.is_some() { NOT_TAKEN } else { NOT_SPOKEN };
        assert_eq!(failed(result).told, Told::Outline(told));
    }
}

#[tokio::test]
async fn endless_notices_and_huge_messages_end_soon() {
    let notice = message(b'N', &[b'x'; 7000]);
    for sent in [
        notice.repeat(100),
        message(b'N', b"\0").repeat(1000),
        b"R\xff\xff\xff\xff".to_vec(),
        b"E\x7f\xff\xff\xff".to_vec(),
        b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
        b"R\0\0\0\x08\0".to_vec(),
        Vec::new(),
    ] {
        let (result, _) = against(&[&sent], Trust::Proven).await;
        failed(result);
    }
}

#[tokio::test]
async fn what_the_database_says_reaches_the_caller_without_the_login_and_without_the_password() {
    let said = |state: &str, text: &str| message(b'E', format!("SFATAL\0C{state}\0M{text}\0Dinternal\0\0").as_bytes());
    let (result, _) = against(&[&said("57P03", "the database system is starting up")], Trust::None).await;
    let Told::Words(words) = failed(result).told else {
        panic!()
    };
    let words = String::from_utf8_lossy(&words).into_owned();
    assert!(
        words.contains("C57P03\0Mthe database system is starting up\0"),
        "{words:?}"
    );
    assert!(
        words.contains("session 07070707-") && !words.contains("internal"),
        "{words:?}"
    );
    let (result, _) = against(
        &[&said("28000", "no pg_hba.conf entry for host \"10.9.0.7\"")],
        Trust::None,
    )
    .await;
    assert_eq!(failed(result).told, Told::Outline(NOT_TAKEN));
    let echo = said("57P03", &format!("you said {PASSWORD}"));
    let (result, _) = against(&[&request(3, b""), &echo], Trust::Proven).await;
    assert_eq!(failed(result).told, Told::Outline(NOT_TAKEN));
}
