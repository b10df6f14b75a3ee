//! Pictures of real desktops, as real clients draw them.

use std::path::PathBuf;

use fairlead_tests::clients::{Running, stock};
use fairlead_tests::desktop::{
    BACKGROUND, CLOCK, NLA_USER, Screen, Shadow, Vnc, WITHOUT_QUESTIONS, Xrdp, clock, xfreerdp,
};
use fairlead_tests::lab::{DOMAIN, Lab, Person, until};
use fairlead_tests::programs::{command, free_port};
use tokio::net::TcpStream;

use super::stage::{lab, rdp};

const RED: &str = "c03040";
const GREEN: &str = "208040";

/// FAIRLEAD_TESTS_PICTURES names a directory that keeps what was seen.
async fn keep(screen: &Screen, name: &str) {
    if let Some(dir) = std::env::var_os("FAIRLEAD_TESTS_PICTURES") {
        screen.keep(&PathBuf::from(dir).join(format!("{name}.png"))).await;
    }
}

/// `fairlead rdp --open` as somebody of a lab.
fn opened(person: &Person, desktop: &str, more: &[&str]) -> tokio::process::Command {
    let (mut rdp, _) = rdp(person, desktop);
    rdp.args(["--open", "--"])
        .args(WITHOUT_QUESTIONS)
        .args(more)
        .env("HOME", person.path(""));
    rdp
}

/// A forward on a local port: `fairlead connect`, or stock ssh.
async fn forwarded(program: tokio::process::Command, port: u16) -> Running {
    let mut program = program;
    program.stdin(std::process::Stdio::null());
    let running = Running::start(program);
    until("the local port", async || {
        TcpStream::connect(("127.0.0.1", port)).await.is_ok().then_some(())
    })
    .await;
    running
}

fn connect(person: &Person, url: &str, port: u16) -> tokio::process::Command {
    let mut connect = command("fairlead", ["connect", url, "--listen", &format!("127.0.0.1:{port}")]);
    connect.env("FAIRLEAD_HOME", person.path(""));
    connect
}

async fn stage() -> (Lab, Person) {
    let lab = lab("").await;
    let alice = lab.user("alice", &["operators"]).await;
    (lab, alice)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_token_shows_the_login_of_its_own_desktop_on_one_port() {
    let (mut lab, alice) = stage().await;
    let (red, green) = (Xrdp::start(RED, None).await, Xrdp::start(GREEN, None).await);
    lab.agent("hmi")
        .host("press")
        .endpoint("rdp://hmi", &red.upstream())
        .endpoint("rdp://press", &green.upstream())
        .start()
        .await;
    for (desktop, colour) in [("hmi", RED), ("press", GREEN)] {
        let screen = Screen::start().await;
        let client = screen.put(opened(&alice, desktop, &[]));
        screen.shows(BACKGROUND, colour).await;
        keep(&screen, &format!("login-{desktop}")).await;
        drop(client);
    }
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_desktop_draws_by_token_by_connect_and_by_ssh() {
    let (mut lab, alice) = stage().await;
    let vnc = Vnc::start().await;
    let xrdp = Xrdp::start(RED, Some(&vnc)).await;
    lab.agent("hmi").endpoint("rdp://hmi", &xrdp.upstream()).start().await;
    let log_in = ["/u:operator", "/p:na"];

    let screen = Screen::start().await;
    let client = screen.put(opened(&alice, "hmi", &log_in));
    screen.shows(CLOCK.0, CLOCK.1).await;
    screen.moves().await;
    keep(&screen, "desktop").await;
    drop((client, screen));

    let port = free_port();
    let ssh = alice.ssh(&[
        "-N",
        "-L",
        &format!("127.0.0.1:{port}:hmi.default.internal:3389"),
        DOMAIN,
    ]);
    for way in [connect(&alice, "rdp://hmi", port), ssh] {
        let shown = format!("{way:?}");
        let forward = forwarded(way, port).await;
        let screen = Screen::start().await;
        let mut client = xfreerdp(&alice.path(""), &format!("/v:127.0.0.1:{port}"));
        client.args(log_in);
        let client = screen.put(client);
        screen.shows(CLOCK.0, CLOCK.1).await;
        screen.moves().await;
        drop((client, screen, forward));
        let port_is_free = async || TcpStream::connect(("127.0.0.1", port)).await.is_err().then_some(());
        until(&shown, port_is_free).await;
    }
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nla_is_between_the_client_and_the_desktop() {
    let (mut lab, alice) = stage().await;
    let shown = Screen::start().await;
    let clock = shown.put(clock());
    shown.shows(CLOCK.0, CLOCK.1).await;
    let shadow = Shadow::start(&shown).await;
    lab.agent("hmi").endpoint("rdp://hmi", &shadow.upstream()).start().await;
    let (user, password) = (format!("/u:{}", NLA_USER.0), format!("/p:{}", NLA_USER.1));
    let screen = Screen::start().await;
    let wrong = screen.put(opened(&alice, "hmi", &["/sec:nla", &user, "/p:guessed"]));
    let said = wrong.finish().await;
    assert!(!said.status.success(), "{}{}", said.text(), said.stderr);
    let client = screen.put(opened(&alice, "hmi", &["/sec:nla", &user, &password]));
    let drawn = async || (screen.colour(CLOCK.0.0, CLOCK.0.1).await != "000000").then_some(());
    until("the shared screen", drawn).await;
    screen.moves().await;
    drop((client, screen, shadow, clock));
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vnc_is_plain_tcp() {
    let (mut lab, alice) = stage().await;
    let vnc = Vnc::start().await;
    lab.agent("hmi")
        .endpoint("tcp://hmi:5900", &vnc.upstream())
        .start()
        .await;
    let port = free_port();
    let forward = forwarded(connect(&alice, "tcp://hmi:5900", port), port).await;
    let screen = Screen::start().await;
    let mut viewer = stock("xtigervncviewer");
    viewer
        .arg("-FullScreen")
        .arg(format!("127.0.0.1::{port}"))
        .env("HOME", alice.path(""));
    let viewer = screen.put(viewer);
    screen.shows(CLOCK.0, CLOCK.1).await;
    screen.moves().await;
    keep(&screen, "vnc").await;
    drop((viewer, forward));
    lab.stop().await;
}
