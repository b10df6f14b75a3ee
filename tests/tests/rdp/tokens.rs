//! Where a routing token leads, for how long, from where, and what becomes of wrong ones. The desktop is an echo, which says
//! a Connection Request back.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use fairlead_tests::clients::run;
use fairlead_tests::desktop::Screen;
use fairlead_tests::desktop::xfreerdp;
use fairlead_tests::lab::{Lab, until};
use fairlead_tests::programs::ended_with;
use fairlead_tests::upstream::Echo;

use super::stage::{REFUSED, lab, rdp, refused, request, shown, token};

/// Refusals come within this (the issue: 2 s).
const REFUSAL: Duration = Duration::from_secs(2);

async fn set(lines: &str) -> (Lab, Echo) {
    let mut lab = lab(lines).await;
    let echo = Echo::start().await;
    lab.agent("hmi")
        .endpoint("rdp://hmi", &format!("tcp://{}", echo.address))
        .start()
        .await;
    (lab, echo)
}

fn is_refused(answer: &[u8]) -> bool {
    answer.get(5) == Some(&0xd0) && answer.ends_with(REFUSED)
}

/// The answer of the echo, which was not shown the token.
fn is_led(answer: &[u8]) -> bool {
    answer.get(5) == Some(&0xe0) && !answer.windows(4).any(|four| four == b"fl1-")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_for_its_caller_and_address_and_for_ten_seconds() {
    let (lab, _echo) = set("").await;
    let alice = lab.user("alice", &["operators"]).await;
    let token = token(&alice, "hmi").await;
    let mode = std::fs::metadata(alice.path("hmi.rdp")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(is_led(&shown("127.0.0.1", lab.address(), &token).await));
    let permit = lab.gateway_audit().awaited("session.permit", None).await;
    assert_eq!(
        (permit.text("caller"), permit.text("endpoint")),
        ("alice", "rdp://hmi.default.internal")
    );
    // Clients connect again while they negotiate.
    assert!(is_led(&shown("127.0.0.1", lab.address(), &token).await));
    let asked = Instant::now();
    assert!(is_refused(&shown("127.0.0.2", lab.address(), &token).await));
    assert!(asked.elapsed() < REFUSAL, "{:?}", asked.elapsed());
    let fail = lab.gateway_audit().awaited("auth.fail", None).await;
    assert_eq!(fail.text("reason"), "routing-token-elsewhere", "{}", fail.shown());
    until("the end of the token's window", async || {
        is_refused(&shown("127.0.0.1", lab.address(), &token).await).then_some(())
    })
    .await;
    let asked = Instant::now();
    assert!(is_refused(&shown("127.0.0.1", lab.address(), &token).await));
    assert!(asked.elapsed() < REFUSAL, "{:?}", asked.elapsed());
    let lines = lab.gateway_audit().lines();
    let expired = |line: &fairlead_tests::lab::Line| line.text("reason") == "routing-token-expired";
    assert!(lines.iter().any(expired));
    let text: Vec<String> = lines.iter().map(fairlead_tests::lab::Line::shown).collect();
    assert!(!text.concat().contains("fl1-"), "a token is in the audit");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_may_not_gets_no_token_and_one_who_is_shut_out_no_session() {
    let (mut lab, _echo) = set("").await;
    let bob = lab.user("bob", &[]).await;
    let alice = lab.user("alice", &["operators"]).await;
    for (person, desktop) in [(&bob, "hmi"), (&alice, "press")] {
        ended_with(&refused(person, desktop).await, 77, &["denied (session "]);
    }
    let permitted = token(&alice, "hmi").await;
    lab.policy("version: 1\nrules: []\n").await;
    assert!(is_refused(&shown("127.0.0.1", lab.address(), &permitted).await));
    lab.policy(super::stage::POLICY).await;
    let shut_out = token(&alice, "hmi").await;
    lab.disable_user("alice", true).await;
    assert!(is_refused(&shown("127.0.0.1", lab.address(), &shut_out).await));
    lab.disable_user("alice", false).await;
    lab.stop_agent("hmi").await;
    ended_with(&refused(&alice, "hmi").await, 1, &["offline"]);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn xfreerdp_ends_when_its_token_leads_nowhere() {
    let (lab, _echo) = set("").await;
    let alice = lab.user("alice", &["operators"]).await;
    let screen = Screen::start().await;
    let (command, file) = rdp(&alice, "hmi");
    run(command).await.succeeded();
    let text = std::fs::read_to_string(&file).unwrap();
    let wrong = text.replace("fl1-", "fl1-0");
    std::fs::write(&file, wrong).unwrap();
    let client = xfreerdp(&alice.path(""), file.to_str().unwrap());
    let said = screen.put(client).finish().await;
    assert!(!said.status.success(), "{}{}", said.text(), said.stderr);
    let fail = lab.gateway_audit().awaited("auth.fail", None).await;
    assert_eq!(fail.text("reason"), "routing-token-unknown");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_tokens_are_failed_logins_and_shut_their_source_out() {
    let (lab, _echo) = set("limits: { login_failures_per_source: 3 }").await;
    let alice = lab.user("alice", &["operators"]).await;
    let good = token(&alice, "hmi").await;
    for guess in 0..3 {
        let wrong = format!("fl1-{guess:032x}");
        assert!(is_refused(&shown("127.0.0.2", lab.address(), &wrong).await));
    }
    assert!(
        is_refused(&shown("127.0.0.2", lab.address(), &good).await),
        "the right one is not looked at any more"
    );
    assert!(
        is_led(&shown("127.0.0.1", lab.address(), &good).await),
        "nobody else is"
    );
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_of_its_own_serves_rdp_too() {
    let (lab, _echo) = set("listeners:\n  - { protocol: rdp, listen: \"127.0.0.1:0\" }").await;
    let alice = lab.user("alice", &["operators"]).await;
    let token = token(&alice, "hmi").await;
    let listener = lab.gateway().dedicated[0];
    assert!(is_led(&shown("127.0.0.1", listener, &token).await));
    assert!(is_led(
        &super::stage::answered(
            super::stage::from("127.0.0.1", lab.address()).await,
            &request(&format!("Cookie: msts={token}"))
        )
        .await
    ));
    lab.stop().await;
}
