//! The database's password is nowhere but at the customer's (SECURITY.md A15): not in the gateway's memory, log, state or
//! metrics, not among the bytes of a link, and not in what the agent says.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use fairlead_protocol::postgres::Startup;
use fairlead_tests::clients::{Running, stock};
use fairlead_tests::hand_made::HandMade;
use fairlead_tests::postgres::Postgres;
use fairlead_tests::programs::{AgentHome, DOMAIN, Daemon, GatewayHome, http_get, throw_away};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::stage::{CREDENTIALS, PERMISSIVE, Stage};

/// What the caller writes: where this is found, the search works.
const SPOKEN: &str = "spoken-by-the-caller-4F";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_databases_password_is_nowhere_on_the_gateway_nor_on_the_link() {
    let dir = throw_away();
    let postgres = Stage::database().await;
    let home = GatewayHome::set_up(&dir.path().join("gateway")).await;
    std::fs::write(home.path("access.yaml"), PERMISSIVE).unwrap();
    let gateway = home.start_as(|| traced(home.command("run"))).await;
    let device = home
        .agent(&dir.path().join("device"), "db", &endpoint(dir.path(), &postgres))
        .await;
    let agent = Daemon::start(traced(device.command("run")), &device.path("agent.log"));
    home.linked(1).await;
    let app = home.user(&dir.path().join("app"), "app", "apps").await;
    let secrets = secrets(&postgres).await;

    // One session of each user, alive while memory is searched.
    let mut sessions = Vec::new();
    for user in ["readonly", "md5", "password"] {
        let mut psql = psql(app.dir(), home.port, user);
        psql.stdin(Stdio::piped());
        let mut psql = Running::start(psql);
        let mut stdin = psql.stdin.take().unwrap();
        stdin
            .write_all(format!("select '{SPOKEN}';\n").as_bytes())
            .await
            .unwrap();
        assert_eq!(psql.line().await, SPOKEN, "{user}");
        sessions.push((psql, stdin));
    }

    let mut hay = Hay::default();
    if nix::unistd::geteuid().is_root() {
        let of_gateway = memory(gateway.id());
        let of_agent = memory(agent.id());
        assert!(
            finds(&of_gateway, SPOKEN.as_bytes()),
            "what the caller says passes through the gateway's memory"
        );
        let (_, password) = &secrets[0];
        assert!(finds(&of_agent, password), "the agent knows the password");
        hay.0.push(("the gateway's memory".into(), of_gateway));
    } else {
        #[expect(clippy::print_stdout, reason = "a skip is loud")]
        {
            println!("SKIPPED: the gateway's memory was NOT searched: it is root's alone; run tests/run as root");
        }
    }
    let (_, metrics) = http_get((std::net::Ipv4Addr::LOCALHOST, home.metrics).into(), "/metrics")
        .await
        .unwrap();
    hay.0.push(("metrics".into(), metrics.into_bytes()));
    for log in [gateway.log(), agent.log()] {
        assert!(log.contains("TRACE"), "the log is at its finest");
        hay.0.push(("a log".into(), log.into_bytes()));
    }
    drop(sessions);
    drop((gateway, agent));
    hay.tree(&home.path(""));
    hay.tree(&device.path("state"));
    hay.0.push(("the link".into(), of_the_link(&home, &device).await));
    assert!(
        hay.0.iter().any(|(place, _)| place.ends_with("audit.jsonl")),
        "the state was looked at"
    );
    for (name, secret) in &secrets {
        for (place, bytes) in &hay.0 {
            for spelling in spellings(secret) {
                assert!(!finds(bytes, &spelling), "{name} is in {place}");
            }
        }
    }
    // The search finds what is there.
    let file = std::fs::read(dir.path().join("readonly.pw")).unwrap();
    assert!(finds(&file, &secrets[0].1));
}

/// Everything that the agent sends to a gateway of no scruples over a session, in clear.
async fn of_the_link(home: &GatewayHome, device: &AgentHome) -> Vec<u8> {
    let address = SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, home.port));
    let hand_made = HandMade::listen(&home.path("state"), DOMAIN, address);
    let _agent = Daemon::start(device.command("run"), &device.path("agent.log"));
    let mut link = hand_made.accept().await;
    let mut seen = format!("{:?}", link.hello().await).into_bytes();
    seen.extend(format!("{:?}", link.welcome(Vec::new(), DOMAIN).await).bytes());
    for user in ["readonly", "md5", "password", "stale"] {
        let open = link.ask("postgres://db.default.internal");
        let mut open = open;
        open.caller.as_mut().unwrap().groups = vec!["apps".into()];
        let parameters = [("user", user), ("database", "billing")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        let startup = Startup {
            minor: 0,
            parameters: parameters.to_vec(),
        };
        let frame = fairlead_wire::codec::encode(&open, fairlead_wire::codec::MAX_CONTROL_FRAME).unwrap();
        let first = [frame.as_ref(), &startup.to_bytes()].concat();
        match link.open_with(&first).await {
            Err(refused) => {
                assert_eq!(user, "stale", "{refused:?}");
                seen.extend(format!("{refused:?}").bytes());
            }
            Ok(mut session) => {
                let query = format!("select '{SPOKEN}'\0");
                let length = u32::try_from(query.len() + 4).unwrap().to_be_bytes();
                session
                    .send
                    .write_all(&[b"Q", length.as_slice(), query.as_bytes()].concat())
                    .await
                    .unwrap();
                session.send.write_all(b"X\0\0\0\x04").await.unwrap();
                session.send.finish().unwrap();
                seen.extend(session.recv.read_to_end(1 << 20).await.unwrap());
            }
        }
    }
    assert!(
        finds(&seen, SPOKEN.as_bytes()) && finds(&seen, b"server_version"),
        "the link was listened to"
    );
    seen
}

fn endpoint(dir: &Path, postgres: &Postgres) -> String {
    let mut text = format!(
        "  - url: postgres://db.default.internal\n    upstream: {{ url: \"{}\" }}\n    rules: {}\n    credentials:\n",
        postgres.upstream(),
        super::stage::RULES
    );
    for (requested, user, password) in CREDENTIALS {
        let file = dir.join(format!("{requested}.pw"));
        fairlead_runtime::config_file::write_private(&file, password.as_bytes(), 0o600).unwrap();
        let file = file.display();
        text.push_str(&format!(
            "      - {{ as: {requested}, user: {user}, password_file: \"{file}\" }}\n"
        ));
    }
    text
}

/// The passwords, and what is as good as they are: the MD5 hash that the database keeps.
async fn secrets(postgres: &Postgres) -> Vec<(String, Vec<u8>)> {
    let mut secrets: Vec<(String, Vec<u8>)> = CREDENTIALS
        .iter()
        .map(|(requested, _, password)| ((*requested).to_owned(), password.as_bytes().to_vec()))
        .collect();
    let kept = postgres
        .sql(
            "postgres",
            "select substr(rolpassword, 4) from pg_authid where rolname = 'by_md5'",
        )
        .await;
    let hash = kept.text().trim().to_owned();
    assert_eq!(hash.len(), 32, "{hash}");
    secrets.push(("the kept MD5 hash".into(), hash.into_bytes()));
    secrets
}

fn spellings(secret: &[u8]) -> Vec<Vec<u8>> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let numbers: Vec<String> = secret.iter().map(u8::to_string).collect();
    let base64 = |before: usize| {
        use base64::Engine as _;
        let shifted = [vec![0; before], secret.to_vec()].concat();
        let text = base64::engine::general_purpose::STANDARD_NO_PAD.encode(shifted);
        text.as_bytes()[4..text.len() - 4].to_vec()
    };
    vec![
        secret.to_vec(),
        hex.to_uppercase().into_bytes(),
        hex.into_bytes(),
        numbers.join(", ").into_bytes(),
        base64(0),
        base64(1),
        base64(2),
    ]
}

#[derive(Default)]
struct Hay(Vec<(String, Vec<u8>)>);

impl Hay {
    fn tree(&mut self, dir: &Path) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.tree(&path);
            } else if path.is_file() {
                self.0.push((path.display().to_string(), std::fs::read(&path).unwrap()));
            }
        }
    }
}

/// Everything that a process can read of its own memory.
fn memory(id: u32) -> Vec<u8> {
    let proc = PathBuf::from(format!("/proc/{id}"));
    let maps = std::fs::read_to_string(proc.join("maps")).unwrap();
    let mut file = File::open(proc.join("mem")).unwrap();
    let mut all = Vec::new();
    for line in maps.lines().filter(|line| !line.contains("[v")) {
        let mut fields = line.split_whitespace();
        let (range, modes) = (fields.next().unwrap(), fields.next().unwrap());
        let (from, to) = range.split_once('-').unwrap();
        let (from, to) = (
            u64::from_str_radix(from, 16).unwrap(),
            u64::from_str_radix(to, 16).unwrap(),
        );
        // Programs and libraries as they are on disk hold no secrets of this run.
        if !modes.starts_with("rw") {
            continue;
        }
        file.seek(SeekFrom::Start(from)).unwrap();
        // What was never touched, or has gone since, cannot be read.
        drop(file.by_ref().take(to - from).read_to_end(&mut all));
    }
    assert!(all.len() > 1 << 20, "only {} bytes", all.len());
    all
}

fn finds(hay: &[u8], needle: &[u8]) -> bool {
    let first = needle[0];
    let mut rest = hay;
    while let Some(at) = rest.iter().position(|byte| *byte == first) {
        if rest[at..].starts_with(needle) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

fn psql(profile: &Path, port: u16, user: &str) -> Command {
    let file = |name: &str| profile.join(name).display().to_string();
    let mut psql = stock("psql");
    psql.env("PGPASSFILE", "/none").args(["-X", "-At", "-w", "-d"]).arg(format!(
        "host=db.default.{DOMAIN} hostaddr=127.0.0.1 port={port} sslmode=verify-full sslrootcert={} sslcert={} sslkey={} \
         user={user} dbname=billing connect_timeout=30",
        file("ca.pem"),
        file("cert.pem"),
        file("login.key.pem")
    ));
    psql
}

fn traced(mut command: Command) -> Command {
    command.env("FAIRLEAD_LOG", "trace");
    command
}
