//! A client whose every byte can be chosen: it speaks the protocol in the clear, which only these tests let the server do.

use std::borrow::Cow;

use russh::keys::signature::Signer;
use russh::keys::ssh_key::Signature;
use russh::keys::ssh_key::encoding::Encode;
use russh::{Preferred, cipher, compression, kex, mac};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::super::serve_protocol;
use super::*;

pub(super) const DISCONNECT: u8 = 1;
pub(super) const SERVICE_REQUEST: u8 = 5;
pub(super) const SERVICE_ACCEPT: u8 = 6;
pub(super) const EXT_INFO: u8 = 7;
pub(super) const KEXINIT: u8 = 20;
pub(super) const NEWKEYS: u8 = 21;
pub(super) const USERAUTH_REQUEST: u8 = 50;
pub(super) const USERAUTH_FAILURE: u8 = 51;
pub(super) const USERAUTH_SUCCESS: u8 = 52;
pub(super) const USERAUTH_PK_OK: u8 = 60;
pub(super) const CHANNEL_OPEN: u8 = 90;
pub(super) const CHANNEL_OPEN_CONFIRMATION: u8 = 91;
pub(super) const CHANNEL_DATA: u8 = 94;
pub(super) const CHANNEL_CLOSE: u8 = 97;
pub(super) const CHANNEL_REQUEST: u8 = 98;
pub(super) const CHANNEL_SUCCESS: u8 = 99;

/// A connection in the clear.
pub(super) struct Raw {
    pub(super) stream: DuplexStream,
    pub(super) tasks: TaskGroup,
    pub(super) ended: mpsc::Receiver<Ended>,
    pub(super) key: PrivateKey,
    pub(super) rules: Arc<Rules>,
    pub(super) account: Account,
    _home: tempfile::TempDir,
}

/// Bytes of the protocol, put together.
pub(super) fn packet(kind: u8, parts: &[&dyn Part]) -> Vec<u8> {
    let mut payload = vec![kind];
    for part in parts {
        part.put(&mut payload);
    }
    payload
}

/// Something that is written into a packet.
pub(super) trait Part {
    fn put(&self, to: &mut Vec<u8>);
}

impl Part for u32 {
    fn put(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.to_be_bytes());
    }
}

impl Part for bool {
    fn put(&self, to: &mut Vec<u8>) {
        to.push(u8::from(*self));
    }
}

impl Part for &str {
    fn put(&self, to: &mut Vec<u8>) {
        self.as_bytes().put(to);
    }
}

impl Part for &[u8] {
    fn put(&self, to: &mut Vec<u8>) {
        u32::try_from(self.len()).unwrap().put(to);
        to.extend_from_slice(self);
    }
}

impl Raw {
    pub(super) async fn connect() -> Self {
        let (key, host_key, home) = (key(), key(), tempfile::tempdir().unwrap());
        let account = Account {
            home: home.path().to_owned(),
            shell: "/bin/sh".into(),
            ..Account::current().unwrap()
        };
        let settings = Arc::new(Settings {
            host_key,
            host_certificate: None,
            user_cas: Vec::new(),
            account: account.clone(),
            own_login: true,
            users: Users::default(),
        });
        let login = Login {
            caller: "alice".into(),
            registered_keys: vec![key.public_key().clone()],
            acts: ["shell", "exec", "sftp"].map(str::to_owned).into(),
            client_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            session: "s-0002".into(),
        };
        let mut protocol = settings.protocol();
        protocol.preferred = Preferred {
            kex: Cow::Borrowed(&[kex::NONE]),
            cipher: Cow::Borrowed(&[cipher::NONE]),
            mac: Cow::Borrowed(&[mac::NONE]),
            compression: Cow::Borrowed(&[compression::NONE]),
            ..protocol.preferred
        };
        let (stream, served) = duplex(256 * 1024);
        let tasks = TaskGroup::new("raw", &CancellationToken::new());
        let (report, ended) = mpsc::channel(1);
        let rules = Arc::new(Rules::default());
        let acts = Arc::clone(&rules);
        let owner = tasks.clone();
        tasks.spawn("connection", async move {
            let end = serve_protocol(protocol, served, settings, login, acts, &owner, std::future::pending()).await;
            report.send(end).await.unwrap();
        });
        let mut raw = Self {
            stream,
            tasks,
            ended,
            key,
            rules,
            account,
            _home: home,
        };
        raw.exchange_keys().await;
        raw
    }

    pub(super) async fn exchange_keys(&mut self) {
        self.stream.write_all(b"SSH-2.0-raw\r\n").await.unwrap();
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            line.push(self.stream.read_u8().await.unwrap());
        }
        assert_eq!(self.receive().await.unwrap()[0], KEXINIT);
        let mut hello = vec![KEXINIT];
        hello.extend_from_slice(&[0; 16]);
        for names in [
            "none",
            "ssh-ed25519",
            "none",
            "none",
            "none",
            "none",
            "none",
            "none",
            "",
            "",
        ] {
            names.put(&mut hello);
        }
        false.put(&mut hello);
        0u32.put(&mut hello);
        self.send(&hello).await;
        assert_eq!(self.receive().await.unwrap()[0], NEWKEYS);
        self.send(&[NEWKEYS]).await;
    }

    pub(super) async fn send(&mut self, payload: &[u8]) {
        // A server that has hung up is what most of these tests wait for.
        let _closed = self.try_send(payload).await;
    }

    pub(super) async fn try_send(&mut self, payload: &[u8]) -> std::io::Result<()> {
        let mut padding = 8 - (5 + payload.len()) % 8;
        if padding < 4 {
            padding += 8;
        }
        let mut packet = Vec::new();
        u32::try_from(1 + payload.len() + padding).unwrap().put(&mut packet);
        packet.push(u8::try_from(padding).unwrap());
        packet.extend_from_slice(payload);
        packet.resize(packet.len() + padding, 0);
        timeout(PATIENCE, self.stream.write_all(&packet)).await.unwrap()
    }

    /// The next packet, or nothing once the server has hung up.
    pub(super) async fn receive(&mut self) -> Option<Vec<u8>> {
        let length = timeout(PATIENCE, self.stream.read_u32()).await.unwrap().ok()?;
        let mut packet = vec![0; length as usize];
        self.stream.read_exact(&mut packet).await.ok()?;
        Some(packet[1..packet.len() - packet[0] as usize].to_vec())
    }

    /// The next packet of a kind, whatever comes before.
    pub(super) async fn receive_kind(&mut self, kind: u8) -> Vec<u8> {
        loop {
            let packet = self.receive().await.expect("the connection lives");
            if packet[0] == kind {
                return packet;
            }
        }
    }

    pub(super) async fn ask_for_authentication(&mut self) {
        self.send(&packet(SERVICE_REQUEST, &[&"ssh-userauth"])).await;
        assert_eq!(self.receive().await.unwrap()[0], SERVICE_ACCEPT);
    }

    /// A public key request, signed by `signer` where there is one.
    pub(super) fn request(&self, user: &str, key: &PrivateKey, signer: Option<&PrivateKey>) -> Vec<u8> {
        let blob = key.public_key().to_bytes().unwrap();
        let parts: [&dyn Part; 6] = [
            &user,
            &"ssh-connection",
            &"publickey",
            &signer.is_some(),
            &"ssh-ed25519",
            &blob.as_slice(),
        ];
        let mut request = packet(USERAUTH_REQUEST, &parts);
        if let Some(signer) = signer {
            // The session's id is empty without a key exchange.
            let mut signed = Vec::new();
            (&[][..] as &[u8]).put(&mut signed);
            signed.extend_from_slice(&request);
            let signature: Signature = signer.try_sign(&signed).unwrap();
            let mut blob = Vec::new();
            signature.encode(&mut blob).unwrap();
            blob.as_slice().put(&mut request);
        }
        request
    }

    pub(super) async fn log_in(&mut self) {
        self.ask_for_authentication().await;
        let request = self.request(&self.account.name.clone(), &self.key.clone(), Some(&self.key.clone()));
        self.send(&request).await;
        assert_eq!(self.receive().await.unwrap()[0], USERAUTH_SUCCESS);
    }

    pub(super) async fn open(&mut self, window: u32, largest: u32) -> Vec<u8> {
        self.send(&packet(CHANNEL_OPEN, &[&"session", &0u32, &window, &largest]))
            .await;
        self.receive().await.expect("an answer")
    }

    /// A channel's number at the server.
    pub(super) async fn open_well(&mut self) -> u32 {
        let answer = self.open(1 << 20, 1 << 15).await;
        assert_eq!(answer[0], CHANNEL_OPEN_CONFIRMATION);
        u32::from_be_bytes(answer[5..9].try_into().unwrap())
    }

    pub(super) async fn exec(&mut self, channel: u32, command: &str) {
        self.send(&packet(CHANNEL_REQUEST, &[&channel, &"exec", &true, &command]))
            .await;
    }

    pub(super) async fn end(&mut self) -> Ended {
        timeout(Duration::from_secs(45), self.ended.recv())
            .await
            .expect("the session ends")
            .unwrap()
    }

    /// What remains true whatever a client sent: it did not get in.
    pub(super) async fn is_locked_out(&mut self) {
        self.send(&packet(CHANNEL_OPEN, &[&"session", &0u32, &1024u32, &1024u32]))
            .await;
        self.stream.shutdown().await.unwrap();
        while let Some(packet) = self.receive().await {
            assert!(
                ![USERAUTH_SUCCESS, CHANNEL_OPEN_CONFIRMATION].contains(&packet[0]),
                "{packet:?}"
            );
        }
        let end = self.end().await;
        assert!(matches!(end, Ended::NotAdmitted(_) | Ended::Failed(_)), "{end:?}");
        assert!(self.rules.seen.lock().unwrap().is_empty());
        assert!(self.tasks.running().keys().all(|name| *name != "ssh program"));
    }
}
