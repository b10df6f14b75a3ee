use super::*;
use fairlead_identity::authority;
use std::time::SystemTime;

fn enrolled(state: &Path) -> IdentityFiles {
    let files = IdentityFiles::open(state).unwrap();
    files.key().unwrap();
    let (_, root) = authority::create_root("example.com", SystemTime::now()).unwrap();
    let root = chain::from_pem(&root).unwrap();
    let enrolled = Enrolled {
        principal: "spiffe://example.com/site/default/agent/pump-7".into(),
        domain: "gw.example.com".into(),
        gateways: vec!["gw.example.com:443".into()],
    };
    files.save(&[root[0].to_vec()], &[root[0].to_vec()], &enrolled).unwrap();
    files
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        // There only where the machine that tests has an id.
        .filter(|name| name != "machine")
        .collect();
    names.sort();
    names
}

#[test]
fn a_key_that_is_gone_is_named_and_not_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let files = enrolled(&state);
    std::fs::remove_file(state.join("key.pem")).unwrap();
    let error = files.load().err().unwrap().to_string();
    assert!(error.contains("key.pem is missing; enrol again"), "{error}");
    assert_eq!(names(&state), ["chain.pem", "enrolled.json", "roots.pem"]);
}

#[test]
fn looking_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let error = IdentityFiles::look(&state).unwrap().load().err().unwrap().to_string();
    assert!(error.contains("not enrolled"), "{error}");
    assert!(!state.exists());

    enrolled(&state);
    let identity = IdentityFiles::look(&state).unwrap().load().unwrap();
    assert!(identity.ssh_host_key.expose_secret().contains("OPENSSH PRIVATE KEY"));
    assert_eq!(names(&state), ["chain.pem", "enrolled.json", "key.pem", "roots.pem"]);
    IdentityFiles::open(&state).unwrap().load().unwrap();
    assert_eq!(names(&state).len(), 5, "a start keeps the host key");
}

#[test]
fn a_key_that_another_machine_made_is_refused_and_the_way_out_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let files = enrolled(&state);
    if machine::this_machine().is_none() {
        return;
    }
    write_private(&state.join("machine"), "0".repeat(64).as_bytes(), 0o600).unwrap();
    for error in [files.load().err().unwrap(), files.key().err().unwrap()] {
        assert!(error.is::<CopiedState>(), "{error}");
        let text = error.to_string();
        let moved = format!("mv {} ", state.display());
        assert!(
            text.contains(&moved) && text.contains("fairlead-agent enroll"),
            "{text}"
        );
    }
    std::fs::remove_file(state.join("machine")).unwrap();
    files.load().unwrap();
}
