use super::*;

#[tokio::test]
async fn a_door_that_closes_by_itself_ends_the_house_and_one_that_was_told_to_does_not() {
    let (house, told) = (
        TaskGroup::new("house", &CancellationToken::new()),
        CancellationToken::new(),
    );
    spawn_for_life(&house, "told", &told, {
        let told = told.clone();
        async move { told.cancelled().await }
    });
    told.cancel();
    tokio::task::yield_now().await;
    assert_eq!((house.failed(), house.len()), (None, 1));

    spawn_for_life(&house, "lost", &CancellationToken::new(), async {});
    timeout(STEP_LIMIT, house.token().cancelled()).await.unwrap();
    assert_eq!(house.failed(), Some("lost"));
}

#[test]
fn a_check_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (file, state) = (dir.path().join("gateway.yaml"), dir.path().join("state"));
    let text = format!(
        "version: 1\ndomain: gw.example.com\nlisten: \"127.0.0.1:0\"\nstate_dir: \"{}\"\naccess: [\"{}\"]\n",
        state.display(),
        dir.path().join("access.yaml").display()
    );
    let write = |name: &str, text: &str| {
        fairlead_runtime::config_file::write_private(&dir.path().join(name), text.as_bytes(), 0o600).unwrap();
    };
    write("gateway.yaml", &text);
    write("access.yaml", "version: 1\nrules: []\n");
    let config = config::load(&file).unwrap();
    let mistakes = check(&config).unwrap_err();
    assert!(
        mistakes.len() == 1 && mistakes[0].contains("fairlead-gateway init"),
        "{mistakes:?}"
    );
    assert!(!state.exists());

    init::init(&file, None, SystemTime::now()).unwrap();
    check(&config).unwrap();
    assert!(!state.join("last-good-policy.json").exists());
    PolicySet::new(config.access.clone(), &state).first();
    assert!(state.join("last-good-policy.json").exists(), "a start keeps it");
}
