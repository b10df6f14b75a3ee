//! Callers who ask: `fairlead endpoints` with the real programs, and the conversation behind it (ALPN fairlead-call/1) with
//! certificates that may not have it, and questions that are none.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::time::Duration;

use fairlead::profile::Profile;
use fairlead_agent::identity_files::IdentityFiles;
use fairlead_agent::link::dial;
use fairlead_identity::keys::PrivateKey;
use fairlead_identity::tls;
use fairlead_identity::verify::Roots;
use fairlead_runtime::frame;
use fairlead_runtime::quic::Role;
use fairlead_runtime::relay::Sink;
use fairlead_runtime::transport::{Closed, Connection};
use fairlead_tests::programs::{AgentHome, DEVICE, DOMAIN, PATIENCE, Scene, UserHome, ended_with, until};
use fairlead_wire::call::{self, CallAnswer, CallRequest, EndpointsRequest, HostKeysRequest, Question};
use fairlead_wire::codec::{self, MAX_CONTROL_FRAME, MAX_PREAUTH_FRAME};
use fairlead_wire::refusal::Reason;
use fairlead_wire::version::{ALPN_CALL, ALPN_LINK};
use prost::Message as _;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

#[tokio::test]
async fn a_caller_is_listed_what_they_may_reach_and_nothing_else() {
    let mut scene = Scene::with_endpoints(&AgentHome::tcp(DEVICE, 8080)).await;
    let pump_8 = AgentHome::builtin("pump-8");
    scene.home.agent(&scene.path("pump-8"), "pump-8", &pump_8).await;
    let mut away = scene
        .home
        .agent(&scene.path("pump-9"), "pump-9", &AgentHome::builtin("pump-9"))
        .await
        .start();
    scene.home.linked(2).await;
    away.kill().await;
    scene.home.linked(1).await;

    let url = |name: &str| format!("ssh://{name}.default.internal");
    // pump-8 was enrolled and never linked: it has offered nothing.
    let wanted = json!({"endpoints": [
        {"url": url(DEVICE), "mode": "builtin", "online": true},
        {"url": format!("tcp://{DEVICE}.default.internal:8080"), "mode": "tunnel", "online": true},
        {"url": url("pump-9"), "mode": "builtin", "online": false},
    ]});
    assert_eq!(endpoints(&scene.alice, &[]).await, wanted);
    let table = scene.alice.fairlead(&["endpoints"]).await.succeeded().text();
    assert!(table.contains("URL") && table.contains("offline"), "{table}");
    let none = json!({"endpoints": []});
    assert_eq!(endpoints(&scene.alice, &["--site", "default"]).await, wanted);
    assert_eq!(endpoints(&scene.alice, &["--site", "plant-7"]).await, none);
    // Whom no rule allows anything sees a gateway without endpoints.
    let bob = scene.home.user(&scene.path("bob"), "bob", "office").await;
    assert_eq!(endpoints(&bob, &[]).await, none);
    scene.is_sound().await;
}

#[tokio::test]
async fn who_is_shut_out_learns_nothing_more_not_even_in_a_conversation_under_way() {
    let mut scene = Scene::set().await;
    let conversation = Conversation::of(&scene, &scene.alice).await.unwrap();
    assert!(matches!(conversation.list().await, Ok(found) if found == [format!("ssh://{DEVICE}.default.internal")]));
    scene.home.fairlead(&["users", "disable", "alice"]).await.succeeded();
    assert_eq!(conversation.list().await.unwrap_err(), Reason::Revoked);
    ended_with(&scene.alice.fairlead(&["endpoints"]).await, 77, &["revoked"]);
    scene.is_sound().await;
}

#[tokio::test]
async fn only_callers_converse_and_callers_do_not_link() {
    let mut scene = Scene::set().await;
    let device = IdentityFiles::open(&scene.device.path("state"))
        .unwrap()
        .load()
        .unwrap();
    let agent = Some((device.chain.clone(), &device.key));
    let refused = Conversation::open(&scene, agent, &device.roots, ALPN_CALL)
        .await
        .unwrap_err();
    assert!(refused.contains("not-a-caller"), "{refused}");
    let refused = Conversation::open(&scene, None, &device.roots, ALPN_CALL)
        .await
        .unwrap_err();
    assert!(refused.contains("must present their certificate"), "{refused}");
    let profile = Profile::at(scene.alice.dir());
    let (key, chain) = (profile.login_key().unwrap(), profile.chain().unwrap());
    let refused = Conversation::open(&scene, Some((chain, &key)), &device.roots, ALPN_LINK)
        .await
        .unwrap_err();
    assert!(refused.contains("only agents link"), "{refused}");
    // The control case.
    let conversation = Conversation::of(&scene, &scene.alice).await.unwrap();
    assert_eq!(conversation.list().await.unwrap().len(), 1);
    scene.is_sound().await;
}

#[tokio::test]
async fn what_is_no_question_is_refused_by_name_and_the_next_one_answered() {
    let mut scene = Scene::set().await;
    let conversation = Conversation::of(&scene, &scene.alice).await.unwrap();
    let sound = request(Question::Endpoints(EndpointsRequest::default()));
    let newer = [sound.encode_to_vec(), vec![0xf2, 0x3f, 0x00]].concat();
    let without = CallRequest {
        question: None,
        ..sound.clone()
    };
    let unheard_of = CallRequest {
        requires: vec!["teleportation".into()],
        ..sound.clone()
    };
    let future = CallRequest {
        version_min: 900,
        version_max: 901,
        ..sound.clone()
    };
    let host = "x".repeat(300);
    let cases: [(&str, Vec<u8>, Reason); 6] = [
        ("an unknown question", without.encode_to_vec(), Reason::Unsupported),
        (
            "an unknown requirement",
            unheard_of.encode_to_vec(),
            Reason::Unsupported,
        ),
        ("an unknown version", future.encode_to_vec(), Reason::Unsupported),
        ("no message", vec![0xff; 64], Reason::Malformed),
        (
            "a long host",
            request(keys_of(&host, 22)).encode_to_vec(),
            Reason::Malformed,
        ),
        ("port 0", request(keys_of(DEVICE, 0)).encode_to_vec(), Reason::Malformed),
    ];
    for (what, body, reason) in cases {
        assert_eq!(
            conversation.ask_raw(&framed(&body)).await.unwrap_err(),
            reason,
            "{what}"
        );
    }
    for prefix in [u32::MAX, u32::try_from(MAX_PREAUTH_FRAME).unwrap() + 1, 0] {
        let told = conversation.ask_raw(&prefix.to_be_bytes()).await.unwrap_err();
        assert_eq!(told, Reason::Malformed, "a length of {prefix}");
    }
    assert!(
        conversation.ask_raw(&framed(&newer)).await.is_ok(),
        "an additional field changes nothing"
    );
    assert_eq!(conversation.list().await.unwrap().len(), 1);
    scene.is_sound().await;
}

#[tokio::test]
async fn a_forbidden_endpoint_and_one_that_is_not_there_are_the_same_to_who_asks_for_host_keys() {
    let mut scene = Scene::set().await;
    let bob = scene.home.user(&scene.path("bob"), "bob", "office").await;
    let conversation = Conversation::of(&scene, &bob).await.unwrap();
    for (host, port) in [
        (DEVICE, 22),
        (DEVICE, 23),
        ("nobody", 22),
        ("10.0.0.1", 22),
        ("a..b", 1),
    ] {
        let told = conversation.ask(keys_of(host, port)).await.unwrap_err();
        assert_eq!(told, Reason::Denied, "{host}:{port}");
    }
    let refused = scene.home.audit(&["\"session.refuse\"", "\"bob\""]);
    assert_eq!(refused.len(), 5, "{refused:?}");
    // builtin:ssh has a certificate and needs no keys.
    let conversation = Conversation::of(&scene, &scene.alice).await.unwrap();
    let answers = conversation.ask(keys_of(DEVICE, 22)).await.unwrap();
    assert_eq!(answers, [call::Body::HostKeys(call::HostKeys::default())]);
    scene.is_sound().await;
}

#[tokio::test]
async fn an_expired_certificate_is_renewed_by_the_command_before_it_asks() {
    let mut scene = Scene::set().await;
    // As after eight hours: the files of an earlier login are there, the certificate in them is no good.
    std::fs::remove_file(scene.alice.dir().join("cert.pem")).unwrap();
    let listed = scene.alice.fairlead(&["endpoints"]).await.succeeded();
    assert!(listed.stderr.contains("logging in again"), "{}", listed.stderr);
    assert!(listed.text().contains(DEVICE), "{}", listed.text());
    scene.is_sound().await;
}

#[tokio::test]
async fn a_gateway_that_is_gone_is_unreachable() {
    let mut scene = Scene::set().await;
    scene.gateway.kill().await;
    ended_with(
        &scene.alice.fairlead(&["endpoints"]).await,
        69,
        &["cannot reach the gateway"],
    );
}

async fn endpoints(person: &UserHome, more: &[&str]) -> Value {
    let listed = person
        .fairlead(&[&["endpoints", "--json"], more].concat())
        .await
        .succeeded();
    serde_json::from_slice(&listed.stdout).unwrap()
}

fn request(question: Question) -> CallRequest {
    CallRequest {
        version_min: 1,
        version_max: 1,
        requires: Vec::new(),
        question: Some(question),
    }
}

fn keys_of(host: &str, port: u32) -> Question {
    let host = host.to_owned();
    Question::HostKeys(HostKeysRequest { host, port })
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat()
}

/// A connection on which a test asks what it wants.
#[derive(Debug)]
struct Conversation {
    connection: Connection,
}

impl Conversation {
    /// With the certificate of a person.
    async fn of(scene: &Scene, person: &UserHome) -> Result<Self, String> {
        let profile = Profile::at(person.dir());
        let (key, chain, roots) = (profile.login_key(), profile.chain(), profile.roots());
        Self::open(scene, Some((chain.unwrap(), &key.unwrap())), &roots.unwrap(), ALPN_CALL).await
    }

    /// With any certificate, for any purpose; the gateway's words where it closes instead of taking a stream.
    async fn open(
        scene: &Scene,
        identity: Option<(Vec<CertificateDer<'static>>, &PrivateKey)>,
        roots: &Roots,
        alpn: &[u8],
    ) -> Result<Self, String> {
        let tls = tls::agent_quic(identity, roots, alpn).unwrap();
        let connection = dial(&[scene.address().to_string()], DOMAIN, &tls, Role::Caller)
            .await
            .unwrap();
        // A gateway that refuses says so after the handshake.
        match timeout(Duration::from_millis(500), connection.closed()).await {
            Err(_) => Ok(Self { connection }),
            Ok(Closed::ByPeer { text, .. }) => Err(text),
            Ok(other) => panic!("{other}"),
        }
    }

    async fn list(&self) -> Result<Vec<String>, Reason> {
        let pages = self.ask(Question::Endpoints(EndpointsRequest::default())).await?;
        let urls = pages.into_iter().flat_map(|page| match page {
            call::Body::Endpoints(page) => page.endpoints.into_iter().map(|endpoint| endpoint.url),
            other => panic!("{other:?}"),
        });
        Ok(urls.collect())
    }

    async fn ask(&self, question: Question) -> Result<Vec<call::Body>, Reason> {
        self.ask_raw(&framed(&request(question).encode_to_vec())).await
    }

    async fn ask_raw(&self, bytes: &[u8]) -> Result<Vec<call::Body>, Reason> {
        let (mut send, mut recv) = self.connection.open().await.unwrap();
        send.write_all(bytes).await.unwrap();
        Sink::finish(&mut send).await.unwrap();
        let mut answers = Vec::new();
        loop {
            let body = timeout(PATIENCE, frame::read_frame(&mut recv, MAX_CONTROL_FRAME))
                .await
                .unwrap();
            let Some(body) = body.unwrap() else {
                return Ok(answers);
            };
            let answer: CallAnswer = codec::decode_body(&body).unwrap();
            answer.check().unwrap();
            match answer.body.unwrap() {
                call::Body::Refused(refused) => return Err(refused.known_reason()),
                body => answers.push(body),
            }
        }
    }
}

#[tokio::test]
async fn a_caller_who_opens_conversation_after_conversation_is_bounded_and_others_are_not() {
    let mut scene = Scene::set().await;
    let (mut held, mut refused) = (Vec::new(), 0);
    for _ in 0..36 {
        match Conversation::of(&scene, &scene.alice).await {
            Ok(conversation) => held.push(conversation),
            Err(told) => {
                assert!(told.contains("too many conversations"), "{told}");
                refused += 1;
            }
        }
    }
    assert_eq!((held.len(), refused), (32, 4));
    let bob = scene.home.user(&scene.path("bob"), "bob", "field").await;
    assert_eq!(
        Conversation::of(&scene, &bob)
            .await
            .unwrap()
            .list()
            .await
            .unwrap()
            .len(),
        1
    );
    held.clear();
    until("the seats are free again", PATIENCE, async || {
        Conversation::of(&scene, &scene.alice).await.ok()
    })
    .await;
    scene.is_sound().await;
}
