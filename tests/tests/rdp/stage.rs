//! A gateway, an agent with desktops behind it, and people who ask for tokens.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use fairlead_tests::clients::{Finished, run};
use fairlead_tests::lab::{Lab, Person};
use fairlead_tests::programs::command;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::Command;
use tokio::time::timeout;

pub(crate) const POLICY: &str = "version: 1
rules:
  - { name: operators, sites: ['*'], effect: allow, expressions: [\"'operators' in caller.groups\"] }
";

/// What offers TLS and NLA behind the line of text.
const NEGOTIATION: &[u8] = b"\x01\0\x08\0\x03\0\0\0";
/// The end of a refusal: a failure of negotiation that wants a user to be authenticated first.
pub(crate) const REFUSED: &[u8] = b"\x03\0\x08\0\x05\0\0\0";
/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A lab in which operators may use everything.
pub(crate) async fn lab(lines: &str) -> Lab {
    let lab = Lab::configured(lines).await;
    lab.policy(POLICY).await;
    lab
}

/// `fairlead rdp` as somebody of a lab, with the file that it writes.
pub(crate) fn rdp(person: &Person, desktop: &str) -> (Command, PathBuf) {
    let file = person.path(&format!("{}.rdp", desktop.replace(':', "-")));
    let mut rdp = command("fairlead", ["rdp", desktop, "--out"]);
    rdp.arg(&file).env("FAIRLEAD_HOME", person.path(""));
    (rdp, file)
}

/// A token, as it stands in the file.
pub(crate) async fn token(person: &Person, desktop: &str) -> String {
    let (command, file) = rdp(person, desktop);
    run(command).await.succeeded();
    let text = std::fs::read_to_string(file).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("loadbalanceinfo:s:Cookie: msts="));
    line.expect("a token in the file").to_owned()
}

/// `fairlead rdp` that fails.
pub(crate) async fn refused(person: &Person, desktop: &str) -> Finished {
    run(rdp(person, desktop).0).await
}

/// A Connection Request with a line of text.
pub(crate) fn request(line: &str) -> Vec<u8> {
    let mut body = b"\xe0\0\0\0\0\0".to_vec();
    body.extend(line.as_bytes());
    body.extend(b"\r\n");
    body.extend(NEGOTIATION);
    let mut packet = vec![3, 0];
    packet.extend(u16::try_from(5 + body.len()).unwrap().to_be_bytes());
    packet.push(u8::try_from(body.len()).unwrap());
    packet.extend(body);
    packet
}

/// A connection from an address of this machine.
pub(crate) async fn from(source: &str, gateway: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
    socket.connect(gateway).await.unwrap()
}

/// What is answered to these bytes, up to the first whole packet or the end.
pub(crate) async fn answered(mut stream: TcpStream, sent: &[u8]) -> Vec<u8> {
    // The gateway may end in the middle.
    drop(stream.write_all(sent).await);
    let read = async {
        let mut heard = vec![0; 4];
        if stream.read_exact(&mut heard).await.is_err() {
            return Vec::new();
        }
        let length = usize::from(u16::from_be_bytes([heard[2], heard[3]]));
        heard.resize(length, 0);
        stream.read_exact(&mut heard[4..]).await.unwrap();
        heard
    };
    timeout(PATIENCE, read).await.expect("an answer, or the end")
}

/// Shows a token from an address.
pub(crate) async fn shown(source: &str, gateway: SocketAddr, token: &str) -> Vec<u8> {
    let stream = from(source, gateway).await;
    answered(stream, &request(&format!("Cookie: msts={token}"))).await
}
