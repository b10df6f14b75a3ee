use super::*;
use crate::own_process;
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_yaml::Spanned;
use std::collections::BTreeMap;
use std::fs::{self, Permissions};

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Written {
    listen: HostPort,
    #[serde(default)]
    drain: Option<HumanDuration>,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    transport: Option<Transport>,
    #[serde(default)]
    upstream: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct Limits {
    links: u16,
    enabled: bool,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Transport {
    Auto,
    Quic,
}

fn mistake(text: &str) -> Mistake {
    let mut mistakes = parse::<Written>("gw.yaml", text).unwrap_err();
    assert_eq!(mistakes.len(), 1);
    mistakes.remove(0)
}

#[test]
fn a_good_file_is_read() {
    let text =
        "listen: '[::]:443'\ndrain: 10m\nlimits: { links: 3, enabled: true }\nlabels:\n  a: b\ntransport: quic\n";
    let read: Written = parse("gw.yaml", text).unwrap();
    assert_eq!(read.listen.port(), 443);
    assert_eq!(read.drain.unwrap().to_string(), "10m");
    assert_eq!(
        read.limits,
        Limits {
            links: 3,
            enabled: true
        }
    );
    assert_eq!(read.transport, Some(Transport::Quic));
}

#[test]
fn every_mistake_says_where_what_and_what_to_do() {
    for (text, shown) in [
        (
            "listen: gw:1\nlimits:\n  link: 3\n",
            "gw.yaml:3:3: unknown key `link`\n  |   link: 3\n  |   ^\n  help: did you mean `links`? known here: links, enabled",
        ),
        (
            "listen: gw:1\ntransport: quick\n",
            "gw.yaml:2:12: `quick` is not known here\n  | transport: quick\n  |            ^\n  help: did you mean `quic`? known here: auto, quic",
        ),
        (
            "listen: gw:1\nlimits: { links: 70000 }\n",
            "gw.yaml:2:18: expected a whole number from 0 to 65535, found `70000`\n  | limits: { links: 70000 }\n  |                  ^",
        ),
        (
            "listen: gw:1\nlimits: { enabled: yes }\n",
            "gw.yaml:2:20: expected true or false, found `yes`\n  | limits: { enabled: yes }\n  |                    ^",
        ),
        (
            "listen: gw:1\nlisten: gw:2\n",
            "gw.yaml:2:1: the key `listen` is written twice\n  | listen: gw:2\n  | ^",
        ),
        (
            "listen: gw:1\nlabels: { a: x, a: y }\n",
            "gw.yaml:2:17: the key `a` is written twice\n  | labels: { a: x, a: y }\n  |                 ^",
        ),
        (
            "listen: gw:1\nlimits: [1]\n",
            "gw.yaml:2:9: expected keys and values (`key: value`)\n  | limits: [1]\n  |         ^",
        ),
    ] {
        assert_eq!(mistake(text).to_string(), shown);
    }
}

#[test]
fn values_of_ours_are_refused_in_our_words_at_their_place() {
    let shown = mistake("listen: gw\n");
    assert_eq!((shown.line, shown.column), (1, 9), "{shown}");
    assert!(shown.message.starts_with("`gw` has no port"), "{shown}");
    let shown = mistake("listen: gw:1\ndrain: 10\n");
    assert_eq!((shown.line, shown.column), (2, 8), "{shown}");
    assert!(shown.message.starts_with("`10` is not a duration"), "{shown}");
}

#[test]
fn a_missing_key_is_named() {
    let shown = mistake("drain: 10m\n");
    assert!(shown.message.contains("the key `listen` is missing"), "{shown}");
    assert!(shown.line > 0, "{shown}");
    let shown = mistake("");
    assert!(!shown.message.is_empty(), "{shown}");
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    for (text, expected) in [
        ("listen: &a gw:1\n", "anchors and aliases"),
        ("listen: gw:1\nlabels:\n  <<: {a: b}\n", "merge keys"),
        ("listen: !host gw:1\n", "tags"),
        ("listen: gw:1\n---\nlisten: gw:2\n", "several documents"),
        ("listen: gw:1\0\n", "NUL"),
        ("listen: gw:1\n\tdrain: 1s\n", "tab"),
    ] {
        let shown = mistake(text).to_string().to_lowercase();
        assert!(shown.contains(&expected.to_lowercase()), "{shown}");
    }
}

#[test]
fn bombs_are_refused_quickly() {
    let started = std::time::Instant::now();
    for text in [
        format!("listen: {}", "[".repeat(50_000)),
        format!("listen: gw:1\nlabels: {}1", "{a: ".repeat(50_000)),
        (0..40_000).fold(String::new(), |text, depth| text + &" ".repeat(depth.min(100)) + "a:\n"),
        format!("listen: gw:1\nlabels: [{}]", "a,".repeat(500_000)),
        "a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n".to_owned(),
    ] {
        let shown = mistake(&text).to_string();
        assert!(shown.len() < 1_000, "{}", shown.len());
    }
    // Generous for a debug build on a busy machine; quadratic readers take minutes.
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

#[test]
fn a_later_check_points_at_a_value() {
    let text = "listen: gw:1\nupstream: 'udp://x'\n";
    let read: Written = parse("gw.yaml", text).unwrap();
    let place = read.upstream.unwrap().referenced;
    let shown = Mistake::at("gw.yaml", text, place, "`udp` cannot be dialled").with_help("write tcp://HOST:PORT");
    assert_eq!(
        shown.to_string(),
        "gw.yaml:2:11: `udp` cannot be dialled\n  | upstream: 'udp://x'\n  |           ^\n  help: write tcp://HOST:PORT"
    );
}

fn put(dir: &Path, name: &str, text: &[u8], mode: u32) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    path
}

#[test]
fn a_file_of_ours_is_read_and_a_link_to_it_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = put(dir.path(), "a.yaml", b"x: 1\n", 0o644);
    assert_eq!(read(&path, 5).unwrap().text, "x: 1\n");
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert_eq!(read(&link, MAX_BYTES).unwrap().file(), link.display().to_string());
}

#[test]
fn files_that_others_may_change_are_refused_with_the_command_that_helps() {
    let dir = tempfile::tempdir().unwrap();
    for mode in [0o664, 0o646, 0o622, 0o666] {
        let error = read(&put(dir.path(), "a.yaml", b"", mode), MAX_BYTES).unwrap_err();
        assert!(matches!(error, ReadError::Writable { .. }), "{error}");
        assert!(error.to_string().contains("chmod go-w"), "{error}");
    }
    let path = put(dir.path(), "b.yaml", b"", 0o644);
    fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(
        read(&path, MAX_BYTES).unwrap_err(),
        ReadError::OpenDirectory { .. }
    ));
    fs::set_permissions(dir.path(), Permissions::from_mode(0o1777)).unwrap();
    read(&path, MAX_BYTES).unwrap();
}

#[test]
fn a_file_of_a_stranger_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = put(dir.path(), "a.yaml", b"", 0o644);
    // Only root can give a file away.
    if std::os::unix::fs::chown(&path, Some(12_345), None).is_ok() {
        let error = read(&path, MAX_BYTES).unwrap_err();
        assert!(
            matches!(error, ReadError::ForeignOwner { owner: 12_345, .. }),
            "{error}"
        );
    }
}

#[test]
fn what_is_no_text_file_of_a_sane_size_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        read(dir.path(), MAX_BYTES).unwrap_err(),
        ReadError::NotAFile { .. }
    ));
    assert!(matches!(
        read(&dir.path().join("none"), MAX_BYTES).unwrap_err(),
        ReadError::Io { .. }
    ));
    let path = put(dir.path(), "a", b"123456", 0o600);
    assert!(matches!(
        read(&path, 5).unwrap_err(),
        ReadError::TooLarge { max_bytes: 5, .. }
    ));
    let path = put(dir.path(), "b", b"a\nb\xff", 0o600);
    assert!(matches!(
        read(&path, 5).unwrap_err(),
        ReadError::NotText { line: 2, .. }
    ));
    let pipe = dir.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert!(matches!(
        read(&pipe, MAX_BYTES).unwrap_err(),
        ReadError::NotAFile { .. }
    ));
}

#[test]
fn a_secret_is_read_without_its_line_break_and_not_from_an_open_file() {
    let dir = tempfile::tempdir().unwrap();
    for mode in [0o600, 0o640, 0o400] {
        let path = put(dir.path(), "pw", b"two words \r\n", mode);
        assert_eq!(read_secret(&path).unwrap().expose_secret(), "two words ");
        fs::remove_file(path).unwrap();
    }
    let error = read_secret(&put(dir.path(), "open", b"hunter2", 0o644)).unwrap_err();
    assert!(matches!(error, ReadError::Readable { mode: 0o644, .. }));
    assert!(!error.to_string().contains("hunter2"));
}

#[test]
fn a_written_file_has_its_mode_and_replaces_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key.pem");
    for (bytes, mode) in [(b"one".as_slice(), 0o600), (b"two", 0o640), (b"three", 0o644)] {
        write_private(&path, bytes, mode).unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    assert!(matches!(
        write_private(Path::new("/"), b"", 0o600),
        Err(PrivateError::NoName { .. })
    ));
}

#[test]
fn a_link_is_replaced_and_not_written_through() {
    let dir = tempfile::tempdir().unwrap();
    let (victim, path) = (put(dir.path(), "victim", b"old", 0o600), dir.path().join("key"));
    std::os::unix::fs::symlink(&victim, &path).unwrap();
    write_private(&path, b"new", 0o600).unwrap();
    assert_eq!(
        (fs::read(&victim).unwrap(), fs::read(&path).unwrap()),
        (b"old".to_vec(), b"new".to_vec())
    );
}

#[test]
fn a_failed_write_leaves_the_old_file_and_no_rubbish() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("taken");
    fs::create_dir(&path).unwrap();
    let error = write_private(&path, b"x", 0o600).unwrap_err();
    assert!(matches!(error, PrivateError::Io { .. }), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn many_writers_leave_one_whole_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    std::thread::scope(|scope| {
        for writer in 0..4_u8 {
            let path = &path;
            scope.spawn(move || (0..20).for_each(|_| write_private(path, &[writer; 10_000], 0o600).unwrap()));
        }
    });
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.len(), 10_000);
    assert!(bytes.iter().all(|byte| *byte == bytes[0]));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_private_directory_is_made_or_found_tight() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/state");
    private_dir(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o700);
    private_dir(&path).unwrap();
    for mode in [0o755, 0o750, 0o701] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let error = private_dir(&path).unwrap_err();
        assert!(error.to_string().contains("chmod 700"), "{error}");
    }
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(matches!(
        private_dir(&link).unwrap_err(),
        PrivateError::NotADirectory { .. }
    ));
    let file = put(dir.path(), "file", b"", 0o600);
    assert!(matches!(
        private_dir(&file).unwrap_err(),
        PrivateError::NotADirectory { .. }
    ));
}

#[test]
fn what_a_killed_process_left_is_swept_once_it_is_old() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    private_dir(&path).unwrap();
    let old = put(&path, ".key.being-written.1.0", b"secret", 0o600);
    let young = put(&path, ".key.being-written.1.1", b"secret", 0o600);
    let other = put(&path, ".other", b"", 0o600);
    let hour_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3_600);
    for file in [&old, &other] {
        File::options()
            .write(true)
            .open(file)
            .unwrap()
            .set_modified(hour_ago)
            .unwrap();
    }
    private_dir(&path).unwrap();
    assert!(!old.exists() && young.exists() && other.exists());
}

#[test]
fn a_process_killed_while_writing_leaves_the_old_file_or_the_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    write_private(&path, &[0; 100_000], 0o600).unwrap();
    for round in 0..20_u64 {
        let mut child = own_process::command("config_file::tests::writes_until_killed")
            .env("FAIRLEAD_TEST_DIR", dir.path())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::park_timeout(std::time::Duration::from_millis(15 + round * 3));
        child.kill().unwrap();
        child.wait().unwrap();
        let bytes = fs::read(&path).unwrap();
        assert!(
            bytes.len() == 100_000 && bytes.iter().all(|byte| *byte == bytes[0]),
            "round {round}"
        );
        for entry in fs::read_dir(dir.path()).unwrap() {
            let mode = entry.unwrap().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }
}

#[test]
#[ignore = "needs a process of its own; run by the test above"]
fn writes_until_killed() {
    let Some(dir) = std::env::var_os("FAIRLEAD_TEST_DIR") else {
        return;
    };
    let path = PathBuf::from(dir).join("key");
    for turn in 0_u64.. {
        write_private(&path, &[turn as u8; 100_000], 0o600).unwrap();
    }
}
