use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::super::book::State;
use super::*;

const DOMAIN: &str = "gw.example.com";

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// A state directory after `init`.
fn made() -> (tempfile::TempDir, AuthorityFiles) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let files = AuthorityFiles::open(dir.path()).unwrap();
    assert!(files.create_missing(DOMAIN, now()).unwrap());
    assert!(
        !files.create_missing(DOMAIN, now()).unwrap(),
        "the second time finds everything"
    );
    (dir, files)
}

fn states(files: &AuthorityFiles) -> Vec<(u32, u32, State)> {
    let book = files.book().unwrap();
    let one = |(number, one): (&u32, &Issuing)| (*number, one.root, book.state(*number));
    book.issuing.iter().map(one).collect()
}

#[test]
fn the_next_authority_is_prepared_and_put_in_force() {
    let (_dir, files) = made();
    assert_eq!(states(&files), [(1, 1, State::Active)]);
    let turn = files.turn().unwrap();
    assert!(files.put_in_force(&turn, 1, now()).is_err(), "there is no next one");
    assert_eq!(files.prepare(&turn, false, RootKey::Here, now()).unwrap(), 2);
    assert_eq!(states(&files), [(1, 1, State::Active), (2, 1, State::Next)]);
    assert_eq!(files.in_force(now()).unwrap().number, 1);
    files.put_in_force(&turn, 2, now()).unwrap();
    assert_eq!(states(&files), [(1, 1, State::Retired), (2, 1, State::Active)]);
    let in_force = files.in_force(now()).unwrap();
    assert_eq!((in_force.number, in_force.roots.certificates().count()), (2, 1));
    assert!(
        files.put_in_force(&turn, 1, now()).is_err(),
        "there is no way back to a retired one"
    );
}

#[test]
fn a_new_root_is_trusted_at_once_and_shown_after_the_rotation() {
    let (_dir, files) = made();
    let turn = files.turn().unwrap();
    let old = files.in_force(now()).unwrap().issuer.root_sha256();
    files.prepare(&turn, true, RootKey::Here, now()).unwrap();
    assert_eq!(states(&files), [(1, 1, State::Active), (2, 2, State::Next)]);
    let roots = files.in_force(now()).unwrap().roots.sha256s();
    assert_eq!((roots.len(), roots[0]), (2, old));
    files.put_in_force(&turn, 2, now()).unwrap();
    let in_force = files.in_force(now()).unwrap();
    assert_ne!(in_force.issuer.root_sha256(), old);
    assert_eq!(in_force.roots.sha256s(), [in_force.issuer.root_sha256(), old]);
}

#[test]
fn the_key_of_a_root_may_be_kept_elsewhere() {
    let (dir, files) = made();
    let turn = files.turn().unwrap();
    let elsewhere = dir.path().join("elsewhere");
    std::fs::rename(dir.path().join("ca/root-1.key.pem"), &elsewhere).unwrap();
    assert!(files.load(now()).is_ok(), "the gateway does not need it");
    let refused = files
        .prepare(&turn, false, RootKey::Here, now())
        .unwrap_err()
        .to_string();
    assert!(refused.contains("--root-key-file"), "{refused}");
    assert_eq!(states(&files).len(), 1);
    files.prepare(&turn, false, RootKey::At(&elsewhere), now()).unwrap();
    let refused = files
        .prepare(&turn, true, RootKey::At(&elsewhere), now())
        .unwrap_err()
        .to_string();
    assert!(refused.contains("there already"), "{refused}");
    let new = dir.path().join("new");
    let number = files.prepare(&turn, true, RootKey::At(&new), now()).unwrap();
    assert!(!files.has_root_key(number));
    let mode = std::fs::metadata(&new).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let other_key = files.prepare(&turn, false, RootKey::At(&elsewhere), now());
    assert!(other_key.is_err(), "the key of another root");
}

#[test]
fn one_command_works_at_a_time() {
    let (_dir, files) = made();
    let turn = files.turn().unwrap();
    assert!(files.turn().is_err());
    drop(turn);
    files.turn().unwrap();
}

/// Every file that a command writes, in order; a crash leaves any beginning of that.
#[test]
fn a_crash_after_any_file_leaves_what_was_or_what_was_wanted() {
    let (dir, files) = made();
    let ca = dir.path().join("ca");
    let names = || -> BTreeSet<PathBuf> { std::fs::read_dir(&ca).unwrap().map(|e| e.unwrap().path()).collect() };
    let before = names();
    let turn = files.turn().unwrap();
    files.prepare(&turn, true, RootKey::Here, now()).unwrap();
    let mut written: Vec<PathBuf> = names().difference(&before).cloned().collect();
    written.retain(|path| !path.ends_with("lock"));
    let order = ["root-2.key.pem", "root-2.pem", "issuing-2.key.pem", "issuing-2.pem"];
    assert_eq!(written.len(), order.len(), "{written:?}");
    let contents: Vec<Vec<u8>> = order.iter().map(|name| std::fs::read(ca.join(name)).unwrap()).collect();
    for cut in (0..order.len()).rev() {
        std::fs::remove_file(ca.join(order[cut])).unwrap();
        assert_eq!(states(&files), [(1, 1, State::Active)], "after {cut} files");
        assert_eq!(files.in_force(now()).unwrap().roots.certificates().count(), 1);
    }
    for (name, content) in order.iter().zip(contents).take(3) {
        std::fs::write(ca.join(name), content).unwrap();
        std::fs::set_permissions(ca.join(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    // What the cut command left is passed over.
    assert_eq!(files.prepare(&turn, true, RootKey::Here, now()).unwrap(), 3);
    assert_eq!(states(&files), [(1, 1, State::Active), (3, 3, State::Next)]);
}
