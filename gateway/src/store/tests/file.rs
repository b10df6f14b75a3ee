use std::os::unix::fs::PermissionsExt;

use super::*;

fn version(path: &Path, number: u32) {
    Connection::open(path)
        .unwrap()
        .pragma_update(None, "user_version", number)
        .unwrap();
}

#[test]
fn what_is_written_is_there_after_a_restart_in_private_files() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("state.db");
    let mut store = SqliteStore::open(&path).unwrap();
    let id = enrol(&mut store, 1, "plant-7", "pump");
    store
        .replace_endpoints(&id, &[endpoint("pump", "ssh", 22)], NOW)
        .unwrap();
    for name in ["state.db", "state.db-wal", "state.db-shm"] {
        let mode = std::fs::metadata(directory.path().join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    drop(store);
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(store.endpoint_owner("plant-7", "pump", 22).unwrap()[0].agent, id);
}

#[test]
fn a_newer_file_is_refused_and_left_as_it_is() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("state.db");
    drop(SqliteStore::open(&path).unwrap());
    version(&path, 99);
    let before = std::fs::read(&path).unwrap();
    let text = SqliteStore::open(&path).unwrap_err().to_string();
    assert!(
        text.contains("newer Fairlead") && text.contains("99") && text.contains("state.db"),
        "{text}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn another_programs_database_and_plain_rubbish_are_refused() {
    let directory = TempDir::new().unwrap();
    let foreign = directory.path().join("foreign.db");
    Connection::open(&foreign)
        .unwrap()
        .execute_batch("CREATE TABLE music (title TEXT)")
        .unwrap();
    assert!(matches!(SqliteStore::open(&foreign), Err(StoreError::Foreign { .. })));
    let rubbish = directory.path().join("rubbish.db");
    std::fs::write(&rubbish, [7_u8; 4096]).unwrap();
    assert!(matches!(SqliteStore::open(&rubbish), Err(StoreError::Open { .. })));
    let nowhere = directory.path().join("nowhere/state.db");
    assert!(matches!(SqliteStore::open(&nowhere), Err(StoreError::Open { .. })));
}

#[test]
fn fifty_first_openings_at_once_make_one_schema() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("state.db");
    std::thread::scope(|scope| {
        let openings: Vec<_> = (0..50)
            .map(|_| scope.spawn(|| SqliteStore::open(&path).map(drop)))
            .collect();
        for opening in openings {
            opening.join().unwrap().unwrap();
        }
    });
}

#[test]
fn whatever_hangs_on_an_agent_follows_its_new_name() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("state.db");
    drop(SqliteStore::open(&path).unwrap());
    let db = Connection::open(&path).unwrap();
    let query = "SELECT m.name, f.on_update FROM sqlite_schema AS m, pragma_foreign_key_list(m.name) AS f
                 WHERE m.type = 'table' AND f.\"table\" = 'agents'";
    let mut statement = db.prepare(query).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let found: Vec<(String, String)> = rows.collect::<Result<_, _>>().unwrap();
    assert!(!found.is_empty());
    for (table, on_update) in found {
        assert_eq!(
            on_update, "CASCADE",
            "{table} must say ON UPDATE CASCADE, or renaming an agent fails"
        );
    }
}
