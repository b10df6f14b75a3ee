//! A host bound to several agents that all offer its endpoint: sessions go to the one with the fewest, and away from one
//! that is gone.

use std::collections::BTreeMap;
use std::time::Duration;

use fairlead_tests::clients::{Running, stock};
use fairlead_tests::postgres::{PASSWORD, Postgres};
use fairlead_tests::programs::{Daemon, PATIENCE, Scene, until};
use fairlead_tests::upstream::Echo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::stage::Connect;

const URL: &str = "postgres://billing.default.internal";

struct Pool {
    scene: Scene,
    members: BTreeMap<&'static str, Daemon>,
    connect: Connect,
    _postgres: Postgres,
}

impl Pool {
    async fn set() -> Self {
        let postgres = Postgres::start().await;
        let scene = Scene::set().await;
        let endpoint = format!(
            "  - {{ url: {URL}, upstream: {{ url: \"{}\" }}, pooling_enabled: true }}\n",
            postgres.upstream()
        );
        let mut members = BTreeMap::new();
        for name in ["db-1", "db-2"] {
            let home = scene.home.agent(&scene.path(name), name, &endpoint).await;
            let bound = scene.home.fairlead(&["hosts", "bind", "billing.default", name]).await;
            bound.succeeded();
            members.insert(name, home.start());
        }
        scene.home.linked(3).await;
        let connect = Connect::start(scene.alice.dir(), URL).await;
        connect.query("dbname=postgres", "select 1").await.succeeded();
        Self {
            scene,
            members,
            connect,
            _postgres: postgres,
        }
    }

    /// pgbench with eight clients, once each has its session; how many go through each member.
    async fn bench(&self) -> (Running, BTreeMap<String, usize>) {
        let bench = |arguments: &[&str]| {
            let mut bench = stock("pgbench");
            bench
                .env("PGPASSWORD", PASSWORD)
                .args(["-h", "127.0.0.1", "-U", "postgres", "-p"])
                .arg(self.connect.address.port().to_string())
                .args(arguments)
                .arg("postgres");
            bench
        };
        fairlead_tests::clients::run(bench(&["-i", "-q", "-s", "1"]))
            .await
            .succeeded();
        let running = Running::start(bench(&["-S", "-c", "8", "-j", "2", "-T", "18"]));
        let through = until("eight sessions", PATIENCE, async || {
            let list = self.scene.home.json(&["sessions", "list"]).await;
            let mut through = BTreeMap::new();
            for session in list["sessions"].as_array().unwrap() {
                let agent = session["agent"].as_str().unwrap().to_owned();
                *through.entry(agent).or_insert(0) += 1;
            }
            (through.values().sum::<usize>() == 8).then_some(through)
        });
        (running, through.await)
    }

    /// Connects again and again for so long: every time in vain is a failure.
    async fn always_serves(&self, span: Duration) {
        let began = Instant::now();
        while began.elapsed() < span {
            self.connect.query("dbname=postgres", "select 1").await.succeeded();
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_members_one_is_killed_and_only_its_sessions_end() {
    let mut pool = Pool::set().await;
    let (running, through) = pool.bench().await;
    // pgbench's two threads connect at the same moment, and two that are decided at once see the same counts.
    assert!(
        through.len() == 2 && through.values().all(|count| *count >= 3),
        "the fewest sessions first: {through:?}"
    );
    pool.members.get_mut("db-1").unwrap().kill().await;
    pool.always_serves(Duration::from_secs(10)).await;
    let said = running.finish().await;
    let aborted = said.stderr.matches("aborted in command").count();
    assert_eq!(aborted, through["db-1"], "{}{}", said.text(), said.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_stops_in_order_is_not_asked_any_more() {
    let mut pool = Pool::set().await;
    pool.members["db-2"].signal(nix::sys::signal::Signal::SIGTERM);
    pool.members.get_mut("db-2").unwrap().ended(PATIENCE).await;
    pool.always_serves(Duration::from_secs(3)).await;
    let agents = pool.scene.home.audit(&["\"session.permit\""]);
    let last = agents.last().unwrap();
    assert!(last.contains("\"db-1\""), "{last}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_upstream_does_not_answer_its_health_check_is_asked_last() {
    let scene = Scene::set().await;
    let (first, second) = (Echo::start().await, Echo::start().await);
    let url = "tcp://till.default.internal:7";
    let mut members = BTreeMap::new();
    for (name, echo) in [("db-1", &first), ("db-2", &second)] {
        let endpoint = format!(
            "  - {{ url: \"{url}\", upstream: {{ url: \"tcp://{}\" }}, pooling_enabled: true, health_check: {{ interval: 1s }} }}\n",
            echo.address
        );
        let home = scene.home.agent(&scene.path(name), name, &endpoint).await;
        let bound = scene.home.fairlead(&["hosts", "bind", "till.default", name]).await;
        bound.succeeded();
        members.insert(name, home.start());
    }
    scene.home.linked(3).await;
    let connect = Connect::start(scene.alice.dir(), url).await;
    let serves = async || {
        let mut stream = connect.dial().await;
        stream.write_all(b"pennies").await.unwrap();
        let mut answer = [0; 7];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"pennies");
    };
    let asked = |member: &str| scene.home.audit(&["\"session.permit\"", member]).len();
    serves().await;
    assert_eq!((asked("\"db-1\""), asked("\"db-2\"")), (1, 0));

    let address = first.address;
    drop(first);
    let says = async |text: &str| {
        until(text, PATIENCE, async || {
            members["db-1"].log().contains(text).then_some(())
        })
        .await;
    };
    says("does not answer its health check").await;
    until("the gateway has heard it", PATIENCE, async || {
        let before = asked("\"db-1\"");
        serves().await;
        (asked("\"db-1\"") == before).then_some(())
    })
    .await;
    let before = asked("\"db-1\"");
    for _ in 0..5 {
        serves().await;
    }
    assert_eq!(asked("\"db-1\""), before, "it is not even asked");

    let _listens_again = tokio::net::TcpListener::bind(address).await.unwrap();
    says("answers its health check again").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_that_do_not_all_pool_are_no_pool() {
    let postgres = Postgres::start().await;
    let scene = Scene::set().await;
    let mut members = Vec::new();
    for (name, pooling) in [("db-1", true), ("db-2", false)] {
        let endpoint = format!(
            "  - {{ url: {URL}, upstream: {{ url: \"{}\" }}, pooling_enabled: {pooling} }}\n",
            postgres.upstream()
        );
        let home = scene.home.agent(&scene.path(name), name, &endpoint).await;
        scene
            .home
            .fairlead(&["hosts", "bind", "billing.default", name])
            .await
            .succeeded();
        members.push(home.start());
    }
    scene.home.linked(3).await;
    let connect = Connect::start(scene.alice.dir(), URL).await;
    for _ in 0..3 {
        connect.query("dbname=postgres", "select 1").await.succeeded();
    }
    assert_eq!(scene.home.audit(&["\"session.permit\"", "\"db-2\""]).len(), 0);
}
