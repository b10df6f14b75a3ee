//! Bad input of every kind, given to the real programs: the person who can act is told what to do, the exit code is
//! right, nothing is lost, and the process lives.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail by panicking, and measured figures are for the reader"
)]

#[path = "bad_input/hostile_link.rs"]
mod hostile_link;
#[path = "bad_input/noise.rs"]
mod noise;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fairlead_runtime::config_file::write_private;
use fairlead_tests::clients;
use fairlead_tests::programs::{
    self, AgentHome, GatewayHome, UserHome, ended_with, free_port, throw_away, udp_port_taken,
};

const SUBCOMMANDS: [&str; 2] = ["check", "run"];

#[tokio::test]
async fn all_mistakes_of_a_gateways_file_are_told_at_once_each_with_its_place() {
    let dir = throw_away();
    let home = GatewayHome::plan(&dir.path().join("gateway"));
    let text = "version: 2\ndomain: \"not a name\"\nlisten: somewhere\ncertificates: { agent: 1s, user: 99d }\n";
    write(&home.config(), text);
    let file = home.config().display().to_string();
    let places: Vec<String> = ["1:10", "2:9", "3:9", "4:24", "4:34"]
        .iter()
        .map(|at| format!("{file}:{at}: "))
        .collect();
    for subcommand in SUBCOMMANDS {
        let refused = clients::run(home.command(subcommand)).await;
        ended_with(&refused, 78, &places.iter().map(String::as_str).collect::<Vec<_>>());
    }
    ended_with(&home.init().await, 78, &[&places[0]]);
    assert!(!home.path("state").exists(), "nothing was made");
}

#[tokio::test]
async fn all_mistakes_of_an_agents_file_are_told_at_once_each_with_its_place() {
    let dir = throw_away();
    let home = AgentHome::plan(&dir.path().join("device"), "");
    let text = "version: 1\ngateway: nowhere\nendpoints:\n  - url: ssh://pump-7\n    upstream: { url: \"udp://x:1\" }\n  - url: ssh://UP_per\n    upstream: { url: \"tcp://127.0.0.1:22\", allow_cidrs: [10.0.0.0/33] }\n";
    write(&home.path("agent.yaml"), text);
    let file = home.path("agent.yaml").display().to_string();
    let places: Vec<String> = ["2:10", "5:22", "6:10", "7:58"]
        .iter()
        .map(|at| format!("{file}:{at}: "))
        .collect();
    for subcommand in SUBCOMMANDS {
        let refused = clients::run(home.command(subcommand)).await;
        ended_with(&refused, 78, &places.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let refused = home.enroll(&dir.path().join("no.join")).await;
    ended_with(&refused, 78, &[&places[0]]);
}

#[tokio::test]
async fn what_is_no_yaml_or_no_key_is_told_with_its_place_and_a_suggestion() {
    let dir = throw_away();
    let gateway = GatewayHome::plan(&dir.path().join("gateway"));
    let agent = AgentHome::plan(&dir.path().join("device"), "");
    let (gateway_file, agent_file) = (gateway.config(), agent.path("agent.yaml"));
    for (file, text, at, words) in [
        (&gateway_file, "version: 1\ndomain: gw.test\nlisten: [\n", "3:9", ""),
        (
            &gateway_file,
            "version: 1\ndomain: gw.test\nlisen: x\n",
            "3:1",
            "did you mean `listen`?",
        ),
        (
            &gateway_file,
            "version: 1\ndomain: gw.test\nlimits: { link: 3 }\n",
            "3:11",
            "did you mean `links`?",
        ),
        (
            &gateway_file,
            "version: 1\ndomain: gw.test\ndomain: other.test\n",
            "3:1",
            "domain",
        ),
        (&agent_file, "version: 1\nendpoints: {\n", "2:12", ""),
        (
            &agent_file,
            "version: 1\nendpoint: []\n",
            "2:1",
            "did you mean `endpoints`?",
        ),
        (&agent_file, "version: 1\ndata_saver: often\n", "2:13", ""),
    ] {
        write(file, text);
        let place = format!("{}:{at}: ", file.display());
        for subcommand in SUBCOMMANDS {
            let command = if file == &gateway_file {
                gateway.command(subcommand)
            } else {
                agent.command(subcommand)
            };
            ended_with(&clients::run(command).await, 78, &[&place, words]);
        }
    }
}

#[tokio::test]
async fn a_taken_port_is_a_failure_that_names_the_port() {
    let dir = throw_away();
    let mut home = GatewayHome::set_up(&dir.path().join("gateway")).await;
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = tcp.local_addr().unwrap().port();
    let free = (home.port, home.metrics);

    home.port = port;
    home.write();
    let words = [format!("TCP 127.0.0.1:{port}"), "`listen`".into()];
    ended_with(&clients::run(home.command("run")).await, 1, &[&words[0], &words[1]]);

    home.port = free.0;
    home.metrics = port;
    home.write();
    let words = [format!("127.0.0.1:{port}"), "admin.metrics_listen".into()];
    ended_with(&clients::run(home.command("run")).await, 1, &[&words[0], &words[1]]);

    let (_udp, port) = udp_port_taken();
    home.port = port;
    home.metrics = free.1;
    home.write();
    ended_with(
        &clients::run(home.command("run")).await,
        1,
        &[&format!("UDP 127.0.0.1:{port}")],
    );

    // Nothing was lost on the way.
    home.port = free.0;
    home.write();
    home.start().await;
}

#[tokio::test]
async fn a_first_init_asks_for_the_domain() {
    let dir = throw_away();
    let mut init = programs::command("fairlead-gateway", ["init", "--config"]);
    init.arg(dir.path().join("gateway.yaml"));
    ended_with(&clients::run(init).await, 64, &["--domain gw.example.com"]);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was made");
}

#[tokio::test]
async fn a_state_directory_that_others_may_enter_is_refused_with_the_command_that_closes_it() {
    let dir = throw_away();
    let gateway = GatewayHome::set_up(&dir.path().join("gateway")).await;
    let state = gateway.path("state");
    open_up(&state);
    let chmod = format!("chmod 700 {}", state.display());
    for subcommand in ["check", "run", "init"] {
        ended_with(
            &clients::run(gateway.command(subcommand)).await,
            78,
            &["mode 0755", &chmod],
        );
    }

    let agent = AgentHome::plan(&dir.path().join("device"), "");
    let state = agent.path("state");
    std::fs::create_dir(&state).unwrap();
    open_up(&state);
    let chmod = format!("chmod 700 {}", state.display());
    for subcommand in SUBCOMMANDS {
        ended_with(
            &clients::run(agent.command(subcommand)).await,
            78,
            &["mode 0755", &chmod],
        );
    }
    std::fs::set_permissions(gateway.path("state"), PermissionsExt::from_mode(0o700)).unwrap();
    let _running = gateway.start().await;
    let join = dir.path().join("join.txt");
    gateway.token(&join, &["--agent", "pump-7"]).await;
    ended_with(&agent.enroll(&join).await, 78, &["mode 0755", &chmod]);
}

#[tokio::test]
async fn missing_state_says_what_to_run_first() {
    let dir = throw_away();
    let gateway = GatewayHome::plan(&dir.path().join("gateway"));
    let agent = AgentHome::plan(&dir.path().join("device"), "");
    for subcommand in SUBCOMMANDS {
        ended_with(
            &clients::run(gateway.command(subcommand)).await,
            78,
            &["run `fairlead-gateway init"],
        );
        let words = [
            "this agent is not enrolled",
            "fairlead token create",
            "fairlead-agent enroll",
        ];
        ended_with(&clients::run(agent.command(subcommand)).await, 78, &words);
    }
    let nobody = dir.path().join("nobody");
    let mut config = programs::command("fairlead", ["ssh-config"]);
    config.env("FAIRLEAD_HOME", &nobody);
    ended_with(
        &clients::run(config).await,
        1,
        &["nobody has logged in here", "fairlead login"],
    );
}

#[tokio::test]
async fn init_twice_changes_nothing_and_another_domain_is_refused() {
    let dir = throw_away();
    let home = GatewayHome::set_up(&dir.path().join("gateway")).await;
    let before = contents(&home.path(""));
    assert!(before.len() > 8, "{:?}", before.keys());
    for (file, (mode, _)) in before.iter().filter(|(file, _)| file.starts_with(home.path("state"))) {
        assert_eq!(mode & 0o077, 0, "{} is open to others", file.display());
    }
    ended_with(&home.init().await, 0, &["nothing was changed"]);
    assert!(contents(&home.path("")) == before, "init changed something");

    let mut other = home.command("init");
    other.args(["--domain", "other.test"]);
    ended_with(&clients::run(other).await, 78, &["not other.test"]);
    assert!(contents(&home.path("")) == before, "a refused init changed something");
}

#[tokio::test]
async fn a_second_gateway_or_agent_on_the_same_state_is_refused() {
    let dir = throw_away();
    let home = GatewayHome::set_up(&dir.path().join("gateway")).await;
    let mut first = home.start().await;
    let text = std::fs::read_to_string(home.config()).unwrap();
    let text = text.replace(&format!(":{}\"", home.port), &format!(":{}\"", free_port()));
    let text = text.replace(&format!(":{}\"", home.metrics), &format!(":{}\"", free_port()));
    let second = home.path("second.yaml");
    write(&second, &text.replace("admin.sock", "second.sock"));
    let words = ["state/audit.jsonl is in use by another process"];
    for config in [&home.config(), &second] {
        let mut run = programs::command("fairlead-gateway", ["run", "--config"]);
        run.arg(config);
        ended_with(&clients::run(run).await, 1, &words);
    }
    assert!(first.is_alive());

    let agent = home.agent(&dir.path().join("device"), "pump-7", "").await;
    let _first = agent.start();
    home.linked(1).await;
    ended_with(&clients::run(agent.command("run")).await, 1, &words);
}

#[tokio::test]
async fn an_unknown_command_or_option_is_a_usage_error() {
    for name in ["fairlead", "fairlead-gateway", "fairlead-agent"] {
        ended_with(&programs::run(name, ["frobnicate"]).await, 64, &["frobnicate", "Usage"]);
        ended_with(
            &programs::run(name, ["--frobnicate"]).await,
            64,
            &["--frobnicate", "Usage"],
        );
        ended_with(&programs::run::<&str>(name, []).await, 64, &["Usage"]);
        let help = programs::run(name, ["--help"]).await.succeeded();
        assert!(help.text().contains("Examples:"), "{name}");
        let version = programs::run(name, ["--version"]).await.succeeded();
        assert!(version.text().starts_with(&format!("{name} ")), "{name}");
    }
    let unknown = programs::run("fairlead", ["agents", "frobnicate"]).await;
    ended_with(&unknown, 64, &["frobnicate"]);
}

#[tokio::test]
async fn a_gateway_that_is_not_there_is_told_apart_from_one_that_refuses() {
    let dir = throw_away();
    let home = GatewayHome::set_up(&dir.path().join("gateway")).await;
    ended_with(
        &home.fairlead(&["agents", "list"]).await,
        69,
        &["no gateway answers on", "admin.sock", "--admin-socket"],
    );

    let mut gateway = home.start().await;
    let (agent_join, user_join) = (dir.path().join("agent.join"), dir.path().join("user.join"));
    home.token(&agent_join, &["--agent", "pump-7"]).await;
    home.token(&user_join, &["--user", "alice"]).await;
    gateway.kill().await;
    // The socket's file is still there; nobody is behind it.
    ended_with(
        &home.fairlead(&["agents", "list"]).await,
        69,
        &["no gateway answers on"],
    );
    let address = format!("127.0.0.1:{}", home.port);
    let alice = UserHome::plan(&dir.path().join("alice"));
    let device = AgentHome::plan(&dir.path().join("device"), "");
    let (login, enrol) = tokio::join!(alice.login(&user_join), device.enroll(&agent_join));
    for nobody in [login, enrol] {
        ended_with(&nobody, 69, &["cannot reach the gateway", &address, "stays good"]);
    }

    let _gateway = home.start().await;
    ended_with(&alice.login(&user_join).await, 0, &["logged in as alice"]);
    ended_with(&device.enroll(&agent_join).await, 0, &["enrolled as"]);
    ended_with(&home.fairlead(&["agents", "show", "nobody"]).await, 1, &["nobody"]);
}

fn write(path: &Path, text: &str) {
    write_private(path, text.as_bytes(), 0o600).unwrap();
}

fn open_up(directory: &Path) {
    std::fs::set_permissions(directory, PermissionsExt::from_mode(0o755)).unwrap();
}

/// Every file below a directory with its mode and its bytes.
fn contents(directory: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            let mode = path.metadata().unwrap().permissions().mode();
            found.insert(path.clone(), (mode, std::fs::read(&path).unwrap()));
        }
    }
    found
}
