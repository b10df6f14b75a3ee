use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn event(name: &'static str) -> Record {
    Record {
        session: Some("s-1".into()),
        ..Record::new(name)
    }
}

fn check(path: &Path) -> Result<Verified, FirstBad> {
    verify(File::open(path).unwrap())
}

fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A file of `count` records, and its bytes.
fn written(path: &Path, count: usize) -> Vec<u8> {
    let log = AuditLog::open(path, "gw").unwrap();
    for _ in 0..count {
        log.append(&event("session.permit")).unwrap();
    }
    fs::read(path).unwrap()
}

#[test]
fn a_line_has_the_fields_of_the_contract_in_their_order() {
    let dir = dir();
    let path = dir.path().join("audit.jsonl");
    let log = AuditLog::open(&path, "gw.example.com").unwrap();
    let record = Record {
        event: "session.permit".into(),
        session: Some("018f-x".into()),
        caller: Some("alice".into()),
        client_ip: Some("192.0.2.7".into()),
        site: Some("plant-7".into()),
        agent: Some("pump-7".into()),
        endpoint: Some("ssh://pump-7.plant-7.internal".into()),
        act: Some("shell".into()),
        decision: Some("allow".into()),
        rule: Some("field-ssh (ssh.yaml:3)".into()),
        policy: Some("ab12".into()),
        reason: Some("denied".into()),
        facts: Some(Map::from_iter([("user".to_owned(), Value::from("root\n\u{7f}"))])),
        bytes_in: Some(1),
        bytes_out: Some(u64::MAX),
    };
    let at = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 120_000_000);
    assert_eq!(log.append_at(&record, at).unwrap(), 1);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(
        text,
        format!(
            "{}\"{NO_PREVIOUS}\"{}\n",
            r#"{"v":1,"seq":1,"prev":"#,
            concat!(
                r#","ts":"2023-11-14T22:13:20.120000Z","node":"gw.example.com","event":"session.permit","#,
                r#""session":"018f-x","caller":"alice","client_ip":"192.0.2.7","site":"plant-7","agent":"pump-7","#,
                r#""endpoint":"ssh://pump-7.plant-7.internal","act":"shell","decision":"allow","#,
                r#""rule":"field-ssh (ssh.yaml:3)","policy":"ab12","reason":"denied","#,
                r#""facts":{"user":"root\n"#,
                "\u{7f}",
                r#""},"bytes_in":1,"bytes_out":18446744073709551615}"#
            )
        )
    );
    let read: Record = serde_json::from_str(&text).unwrap();
    assert_eq!(read, record);
}

#[test]
fn fields_without_a_value_are_left_out() {
    let dir = dir();
    let path = dir.path().join("a");
    AuditLog::open(&path, "n")
        .unwrap()
        .append(&Record::new("link.up"))
        .unwrap();
    let line = lines(&path).remove(0);
    let keys: Vec<&String> = line.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["event", "node", "prev", "seq", "ts", "v"]);
}

#[test]
fn the_file_is_for_its_owner_only() {
    let dir = dir();
    let path = dir.path().join("a");
    drop(AuditLog::open(&path, "n").unwrap());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o622)).unwrap();
    let error = AuditLog::open(&path, "n").unwrap_err();
    assert!(matches!(error, AuditError::Writable { mode: 0o622, .. }));
    assert!(error.to_string().contains("chmod 600"));
}

#[test]
fn links_and_directories_are_not_written_to() {
    let dir = dir();
    let real = dir.path().join("real");
    fs::write(&real, "").unwrap();
    std::os::unix::fs::symlink(&real, dir.path().join("link")).unwrap();
    assert!(matches!(
        AuditLog::open(&dir.path().join("link"), "n"),
        Err(AuditError::Io { .. })
    ));
    assert!(AuditLog::open(dir.path(), "n").is_err());
}

#[test]
fn a_second_writer_is_refused() {
    let dir = dir();
    let path = dir.path().join("a");
    let first = AuditLog::open(&path, "n").unwrap();
    assert!(matches!(AuditLog::open(&path, "n"), Err(AuditError::Locked { .. })));
    drop(first);
    AuditLog::open(&path, "n").unwrap();
}

#[test]
fn the_chain_goes_on_after_a_restart() {
    let dir = dir();
    let path = dir.path().join("a");
    for run in 0..5 {
        let log = AuditLog::open(&path, "n").unwrap();
        assert_eq!(log.head().seq, run * 3);
        for _ in 0..3 {
            log.append(&event("x")).unwrap();
        }
    }
    let verified = check(&path).unwrap();
    assert_eq!((verified.count, verified.first_seq, verified.head.seq), (15, 1, 15));
    assert_eq!(verified.first_prev, NO_PREVIOUS);
}

#[test]
fn every_torn_end_is_moved_aside_and_said() {
    let dir = dir();
    let whole = written(&dir.path().join("whole"), 3);
    let two = whole.len() - whole.iter().rev().skip(1).position(|byte| *byte == b'\n').unwrap() - 1;
    for cut in two + 1..whole.len() {
        let path = dir.path().join("torn");
        let beside = dir.path().join("torn.torn");
        fs::write(&path, &whole[..cut]).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let log = AuditLog::open(&path, "n").unwrap();
        assert_eq!(log.append(&event("after")).unwrap(), 4, "cut at {cut}");
        assert_eq!(check(&path).unwrap().count, 4);
        let told = &lines(&path)[2];
        assert_eq!(told["event"], "audit.torn");
        assert_eq!(told["facts"]["bytes"], cut - two);
        let mut piece = whole[two..cut].to_vec();
        piece.push(b'\n');
        assert_eq!(fs::read(&beside).unwrap(), piece);
        assert_eq!(fs::metadata(&beside).unwrap().permissions().mode() & 0o777, 0o600);
        fs::remove_file(&path).unwrap();
        fs::remove_file(&beside).unwrap();
    }
}

#[test]
fn a_torn_first_line_and_zeros_after_a_power_cut_are_survived() {
    let dir = dir();
    let whole = written(&dir.path().join("whole"), 1);
    let mut zeros = whole.clone();
    zeros.extend_from_slice(&[0; 5_000]);
    let mut rubbish = whole.clone();
    rubbish.extend_from_slice(b"\0\0\n{\"v\":1,\"se\n");
    for (name, bytes, count) in [
        ("first", &whole[..20], 1),
        ("start", b"{\"".as_slice(), 1),
        ("zeros", &zeros, 2),
        ("rubbish", &rubbish, 2),
        ("only zeros", [0; 100].as_slice(), 1),
    ] {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        drop(AuditLog::open(&path, "n").unwrap());
        assert_eq!(check(&path).unwrap().count, count, "{name}");
    }
}

#[test]
fn a_file_that_is_not_ours_is_not_touched() {
    let dir = dir();
    for (name, bytes) in [
        ("hosts", b"127.0.0.1 localhost\n".to_vec()),
        ("word", b"hello".to_vec()),
        ("long", vec![b'x'; 10 * MAX_LINE]),
        ("long lines", [vec![b'x'; 3 * MAX_LINE], b"\n".to_vec()].concat()),
    ] {
        let path = dir.path().join(name);
        fs::write(&path, &bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(
            matches!(AuditLog::open(&path, "n"), Err(AuditError::Damaged { .. })),
            "{name}"
        );
        assert_eq!(fs::read(&path).unwrap(), bytes);
        assert!(!dir.path().join(format!("{name}.torn")).exists());
    }
}

#[test]
fn concurrent_appends_make_one_chain() {
    let dir = dir();
    let path = dir.path().join("a");
    let log = AuditLog::open(&path, "n").unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..250 {
                    log.append(&event("x")).unwrap();
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..20 {
                log.sync().unwrap();
            }
        });
    });
    assert_eq!(check(&path).unwrap().count, 2_000);
}

#[test]
fn facts_that_do_not_fit_are_left_out_but_the_event_is_recorded() {
    let dir = dir();
    let path = dir.path().join("a");
    let log = AuditLog::open(&path, "n").unwrap();
    let facts = Map::from_iter([("statement".to_owned(), Value::from("\u{1}".repeat(MAX_LINE / 4)))]);
    log.append(&Record {
        facts: Some(facts),
        ..event("x")
    })
    .unwrap();
    assert_eq!(lines(&path)[0]["facts"], serde_json::json!({"left_out": 1}));
    let long = Record {
        caller: Some("a".repeat(MAX_LINE)),
        ..event("x")
    };
    assert!(matches!(log.append(&long), Err(AuditError::TooLong { .. })));
    log.append(&event("y")).unwrap();
    assert_eq!(check(&path).unwrap().count, 2);
}

#[test]
fn a_line_of_exactly_the_limit_is_read_again() {
    let dir = dir();
    let path = dir.path().join("a");
    let log = AuditLog::open(&path, "n").unwrap();
    log.append(&Record {
        caller: Some(String::new()),
        ..Record::new("x")
    })
    .unwrap();
    let base = fs::read(&path).unwrap().len();
    let filler = "a".repeat(MAX_LINE - base);
    log.append(&Record {
        caller: Some(filler.clone()),
        ..Record::new("x")
    })
    .unwrap();
    assert!(
        log.append(&Record {
            caller: Some(filler + "a"),
            ..Record::new("x")
        })
        .is_err()
    );
    drop(log);
    assert_eq!(AuditLog::open(&path, "n").unwrap().head().seq, 2);
    assert_eq!(check(&path).unwrap().count, 2);
}

#[test]
fn every_kind_of_tampering_but_the_last_line_is_found_and_named() {
    let dir = dir();
    let path = dir.path().join("a");
    let whole = written(&path, 6);
    let all: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    let found = |parts: &[&[u8]]| verify(parts.concat().as_slice()).unwrap_err();
    let edited = String::from_utf8(all[2].to_vec()).unwrap().replace("s-1", "s-2");

    let edit = found(&[all[0], all[1], edited.as_bytes(), all[3], all[4], all[5]]);
    assert!(
        matches!((edit.line, edit.seq, &edit.why), (3, Some(3), BadLine::Altered)),
        "{edit}"
    );
    let delete = found(&[all[0], all[1], all[3], all[4]]);
    assert!(
        matches!(
            (delete.line, delete.seq, &delete.why),
            (3, Some(3), BadLine::OutOfOrder { found: 4 })
        ),
        "{delete}"
    );
    let reorder = found(&[all[0], all[2], all[1], all[3]]);
    assert!(matches!((reorder.line, reorder.seq), (2, Some(2))), "{reorder}");
    let repeat = found(&[all[0], all[1], all[1], all[2]]);
    assert!(matches!((repeat.line, repeat.seq), (3, Some(3))), "{repeat}");
    let torn = found(&[all[0], &all[1][..10]]);
    assert!(matches!(torn.why, BadLine::NotARecord | BadLine::Torn), "{torn}");
    let rubbish = found(&[all[0], b"hello\n", all[1]]);
    assert!(
        matches!((rubbish.line, &rubbish.why), (2, BadLine::NotARecord)),
        "{rubbish}"
    );
    let endless = found(&[all[0], &vec![b'x'; 2 * MAX_LINE]]);
    assert!(matches!(endless.why, BadLine::TooLong), "{endless}");

    // Lines of another file with the right numbers.
    let other = dir.path().join("b");
    let others = written(&other, 6);
    let other: Vec<&[u8]> = others.split_inclusive(|byte| *byte == b'\n').collect();
    let splice = found(&[all[0], all[1], other[2], other[3]]);
    assert!(matches!((splice.line, &splice.why), (2, BadLine::Altered)), "{splice}");
}

#[test]
fn an_empty_file_verifies() {
    assert_eq!(verify(io::empty()).unwrap().count, 0);
}

#[test]
fn the_chain_goes_on_over_a_rotation() {
    let dir = dir();
    let (path, old) = (dir.path().join("a"), dir.path().join("a.1"));
    let log = AuditLog::open(&path, "n").unwrap();
    log.append(&event("x")).unwrap();
    log.reopen().unwrap();
    log.append(&event("x")).unwrap();
    fs::rename(&path, &old).unwrap();
    log.append(&event("x")).unwrap();
    log.reopen().unwrap();
    log.append(&event("x")).unwrap();
    let (before, after) = (check(&old).unwrap(), check(&path).unwrap());
    assert_eq!((before.count, after.count, after.first_seq), (3, 1, 4));
    assert_eq!(after.first_prev, before.head.hash);
    drop(log);
    assert_eq!(AuditLog::open(&path, "n").unwrap().append(&event("x")).unwrap(), 5);
}

#[test]
fn a_foreign_file_does_not_take_the_place_of_a_rotated_one() {
    let dir = dir();
    let (path, old) = (dir.path().join("a"), dir.path().join("a.1"));
    let log = AuditLog::open(&path, "n").unwrap();
    log.append(&event("x")).unwrap();
    fs::rename(&path, &old).unwrap();
    fs::write(&path, "something\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(log.reopen(), Err(AuditError::OtherChain { .. })));
    log.append(&event("x")).unwrap();
    assert_eq!(check(&old).unwrap().count, 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_written_reaches_the_disk_within_a_second() {
    let dir = dir();
    let log = Arc::new(AuditLog::open(&dir.path().join("a"), "n").unwrap());
    let group = TaskGroup::new("test", &crate::stop::CancellationToken::new());
    group.spawn("audit sync", keep_synced(Arc::clone(&log), group.clone()));
    log.append(&event("x")).unwrap();
    tokio::time::timeout(Duration::from_secs(60), async {
        while log.chain().unsynced {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .unwrap();
    assert!(group.stop(Duration::from_secs(5)).await.is_empty());
}

/// A real limit of the kernel cuts writes short in the middle of a line. It holds for the whole process, so the test
/// runs in one of its own.
#[test]
fn a_full_disk_refuses_the_record_and_leaves_a_file_that_verifies() {
    let dir = dir();
    let status = std::process::Command::new("sh")
        .arg("-c")
        .arg(r#"trap "" XFSZ; ulimit -S -f 8; exec "$0" --exact audit::tests::on_a_full_disk --include-ignored"#)
        .arg(std::env::current_exe().unwrap())
        .env("FAIRLEAD_TEST_DIR", dir.path())
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    assert!(check(&dir.path().join("a")).unwrap().count > 5);
}

#[test]
#[ignore = "needs a process of its own; run by the test above"]
fn on_a_full_disk() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Some(dir) = std::env::var_os("FAIRLEAD_TEST_DIR") else {
        return;
    };
    let path = PathBuf::from(dir).join("a");
    let log = AuditLog::open(&path, "n").unwrap();
    let mut written = 0;
    let error = loop {
        match log.append(&event("x")) {
            Ok(seq) => written = seq,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, AuditError::Io { .. }), "{error}");
    assert_eq!(check(&path).unwrap().count, written);
    assert!(log.append(&event("x")).is_err());
    assert_eq!(log.head().seq, written);
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, hard, hard).unwrap();
    assert_eq!(log.append(&event("x")).unwrap(), written + 1);
    assert_eq!(check(&path).unwrap().count, written + 1);
}

#[test]
fn a_file_that_was_cut_off_is_found_by_what_an_earlier_check_saw() {
    let dir = dir();
    let path = dir.path().join("audit.jsonl");
    let bytes = written(&path, 5);
    let seen = check(&path).unwrap().head;
    assert_eq!(seen.to_string().parse::<Head>().unwrap(), seen);
    assert_eq!(verify_since(bytes.as_slice(), &seen).unwrap().count, 5);
    let third = bytes
        .split_inclusive(|byte| *byte == b'\n')
        .take(3)
        .map(<[u8]>::len)
        .sum::<usize>();
    let cut = &bytes[..third];
    assert_eq!(verify(cut).unwrap().count, 3, "the chain of a cut file holds");
    assert!(matches!(
        verify_since(cut, &seen).unwrap_err(),
        FirstBad {
            seq: Some(5),
            why: BadLine::Gone,
            ..
        }
    ));
    // The same number of records, but others.
    let other = dir.path().join("other.jsonl");
    let others = written(&other, 6);
    assert!(matches!(
        verify_since(others.as_slice(), &seen).unwrap_err().why,
        BadLine::Gone
    ));
    // Rotated right after the check: the new file goes on where the old one ended.
    let log = AuditLog::open(&path, "gw").unwrap();
    fs::rename(&path, dir.path().join("audit.1")).unwrap();
    log.reopen().unwrap();
    log.append(&event("session.end")).unwrap();
    assert_eq!(verify_since(File::open(&path).unwrap(), &seen).unwrap().first_seq, 6);
    assert!("5:xyz".parse::<Head>().is_err() && "five".parse::<Head>().is_err());
}
