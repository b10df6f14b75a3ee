//! A real Redis on loopback, plain or with TLS alone.

use std::path::Path;
use std::process::Stdio;

use fairlead_runtime::config_file::private_dir;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

use crate::customer::ServerFiles;
use crate::lab::until;

/// A running redis-server; ends when dropped.
pub struct Redis {
    /// The port on 127.0.0.1.
    pub port: u16,
    _child: Child,
}

impl Redis {
    /// Starts it with its files in `dir`; with `tls` it speaks nothing else.
    ///
    /// # Panics
    /// When there is no redis-server on this machine: these tests are not skipped.
    pub async fn start(dir: &Path, tls: Option<&ServerFiles>) -> Self {
        private_dir(dir).expect("a private directory");
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        drop(listener);
        let mut redis = Command::new("redis-server");
        redis
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
            .arg(dir);
        match tls {
            None => {
                redis.args(["--port", &port.to_string()]);
            }
            Some(files) => {
                redis
                    .args([
                        "--port",
                        "0",
                        "--tls-port",
                        &port.to_string(),
                        "--tls-auth-clients",
                        "no",
                    ])
                    .arg("--tls-cert-file")
                    .arg(&files.certificate)
                    .arg("--tls-key-file")
                    .arg(&files.key)
                    .arg("--tls-ca-cert-file")
                    .arg(&files.certificate);
            }
        }
        let log = std::fs::File::create(dir.join("redis.log")).expect("a log");
        let mut child = redis
            .stdin(Stdio::null())
            .stdout(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .expect("no redis-server on this machine: apt-get install redis-server (its service is not needed)");
        until("redis-server", async || {
            if child.try_wait().expect("the child's state").is_some() {
                panic!(
                    "redis-server ended: {}",
                    std::fs::read_to_string(dir.join("redis.log")).unwrap_or_default()
                );
            }
            TcpStream::connect(("127.0.0.1", port)).await.ok()
        })
        .await;
        Self { port, _child: child }
    }
}
