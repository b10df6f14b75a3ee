//! Other tunnels: rathole and wstunnel (`cargo install`, by `tests/bench/run`), stunnel4 (Debian). What is not installed is said and
//! left out.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Stdio;

use fairlead_tests::clients::{run, stock};
use fairlead_tests::programs::{Daemon, PATIENCE, free_port, throw_away, until};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;

use super::{Entry, Way};
use crate::load::Target;

type Started<'a> = Pin<Box<dyn Future<Output = Result<Way, String>> + 'a>>;
type Peer = for<'a> fn(&'static str, &'a Target) -> Started<'a>;

pub(super) const WAYS: [(&str, Peer); 4] = [
    ("rathole tls", |name, target| Box::pin(rathole(name, target, false))),
    ("rathole noise", |name, target| Box::pin(rathole(name, target, true))),
    ("wstunnel", |name, target| Box::pin(wstunnel(name, target))),
    ("stunnel", |name, target| Box::pin(stunnel(name, target))),
];

const PFX_PASSWORD: &str = "bench";

/// target/bench-peers/bin/PROGRAM, where `run` installs, else on the path.
fn installed(program: &str) -> Result<PathBuf, String> {
    let own = std::env::current_exe().expect("a program knows its own path");
    let ours = own
        .ancestors()
        .nth(2)
        .map(|target| target.join("bench-peers/bin").join(program));
    if let Some(ours) = ours.filter(|path| path.is_file()) {
        return Ok(ours);
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let found = path
        .split(':')
        .map(|folder| Path::new(folder).join(program))
        .find(|file| file.is_file());
    found.ok_or_else(|| format!("{program} is not installed"))
}

/// A certificate and key of 127.0.0.1 and localhost, P-256 as ours: `cert.pem`, `key.pem`, and both as `identity.pfx`. `more` is
/// for `openssl req`.
pub(super) async fn certificate(dir: &Path, more: &[&str]) {
    let mut openssl = stock("openssl");
    openssl.current_dir(dir).args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost,IP:127.0.0.1",
        "-keyout",
        "key.pem",
        "-out",
        "cert.pem",
    ]);
    openssl.args(more);
    run(openssl).await.succeeded();
    let mut openssl = stock("openssl");
    let password = format!("pass:{PFX_PASSWORD}");
    openssl.current_dir(dir).args([
        "pkcs12",
        "-export",
        "-inkey",
        "key.pem",
        "-in",
        "cert.pem",
        "-out",
        "identity.pfx",
        "-passout",
        &password,
    ]);
    run(openssl).await.succeeded();
}

/// A way by two programs, where `near` takes the clients on `port`.
async fn way(name: &'static str, dir: TempDir, port: u16, near: Command, far: Command) -> Way {
    let near = Daemon::start(near, &dir.path().join("near.log"));
    let far = Daemon::start(far, &dir.path().join("far.log"));
    until(name, PATIENCE, async || {
        TcpStream::connect(("127.0.0.1", port)).await.ok().map(drop)
    })
    .await;
    Way {
        name,
        entry: Entry::plain(SocketAddr::from(([127, 0, 0, 1], port))),
        near: vec![near.id()],
        far: vec![far.id()],
        _alive: vec![Box::new(far), Box::new(near), Box::new(dir)],
    }
}

async fn rathole(name: &'static str, target: &Target, noise: bool) -> Result<Way, String> {
    let program = installed("rathole")?;
    let dir = throw_away();
    let path = |file: &str| dir.path().join(file);
    let (bind, port) = (free_port(), free_port());
    let (server, client) = if noise {
        let keys = run(stock_at(&program, &["--genkey"])).await.succeeded().text();
        let after = |title: &str| {
            let mut lines = keys.lines().skip_while(|line| !line.starts_with(title)).skip(1);
            lines.next().expect("a key").to_owned()
        };
        (
            format!(
                "type = \"noise\"\n[server.transport.noise]\nlocal_private_key = \"{}\"\n",
                after("Private Key")
            ),
            format!(
                "type = \"noise\"\n[client.transport.noise]\nremote_public_key = \"{}\"\n",
                after("Public Key")
            ),
        )
    } else {
        certificate(dir.path(), &[]).await;
        (
            format!(
                "type = \"tls\"\n[server.transport.tls]\npkcs12 = \"{}\"\npkcs12_password = \"{PFX_PASSWORD}\"\n",
                path("identity.pfx").display()
            ),
            format!(
                "type = \"tls\"\n[client.transport.tls]\ntrusted_root = \"{}\"\nhostname = \"localhost\"\n",
                path("cert.pem").display()
            ),
        )
    };
    let write = |file: &str, text: String| std::fs::write(path(file), text).expect("a file is written");
    write(
        "server.toml",
        format!(
            "[server]\nbind_addr = \"127.0.0.1:{bind}\"\ndefault_token = \"bench\"\n[server.services.bench]\nbind_addr = \"127.0.0.1:{port}\"\n[server.transport]\n{server}"
        ),
    );
    write(
        "client.toml",
        format!(
            "[client]\nremote_addr = \"127.0.0.1:{bind}\"\ndefault_token = \"bench\"\n[client.services.bench]\nlocal_addr = \"127.0.0.1:{}\"\n[client.transport]\n{client}",
            target.port
        ),
    );
    let near = stock_at(&program, &["--server", &path("server.toml").display().to_string()]);
    let far = stock_at(&program, &["--client", &path("client.toml").display().to_string()]);
    Ok(way(name, dir, port, near, far).await)
}

async fn wstunnel(name: &'static str, target: &Target) -> Result<Way, String> {
    let program = installed("wstunnel")?;
    let dir = throw_away();
    certificate(dir.path(), &[]).await;
    let (bind, port) = (free_port(), free_port());
    let gate = format!("wss://127.0.0.1:{bind}");
    let file = |name: &str| dir.path().join(name).display().to_string();
    let near = stock_at(
        &program,
        &[
            "server",
            &gate,
            "--tls-certificate",
            &file("cert.pem"),
            "--tls-private-key",
            &file("key.pem"),
        ],
    );
    let reverse = format!("tcp://127.0.0.1:{port}:127.0.0.1:{}", target.port);
    let far = stock_at(&program, &["client", "-R", &reverse, &gate]);
    Ok(way(name, dir, port, near, far).await)
}

async fn stunnel(name: &'static str, target: &Target) -> Result<Way, String> {
    let program = installed("stunnel4")?;
    let dir = throw_away();
    certificate(dir.path(), &[]).await;
    let (bind, port) = (free_port(), free_port());
    let at = dir.path().display();
    let common = "foreground = yes\npid =\nsyslog = no\ndebug = 3\nsocket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\n[bench]\n";
    let near = format!(
        "{common}client = yes\naccept = 127.0.0.1:{port}\nconnect = 127.0.0.1:{bind}\nCAfile = {at}/cert.pem\nverifyChain = yes\n"
    );
    let far = format!(
        "{common}accept = 127.0.0.1:{bind}\nconnect = 127.0.0.1:{}\ncert = {at}/cert.pem\nkey = {at}/key.pem\n",
        target.port
    );
    let start = |file: &str, text: String| {
        let file = dir.path().join(file);
        std::fs::write(&file, text).expect("a file is written");
        stock_at(&program, &[&file.display().to_string()])
    };
    let (near, far) = (start("near.conf", near), start("far.conf", far));
    Ok(way(name, dir, port, near, far).await)
}

fn stock_at(program: &Path, arguments: &[&str]) -> Command {
    let mut command = stock(program.to_str().expect("a path that is text"));
    command.args(arguments).stdin(Stdio::null());
    command
}
