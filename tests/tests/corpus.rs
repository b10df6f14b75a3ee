//! Replays every committed fuzz input through the body of its target, and holds tests/fuzz to the list of targets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use fairlead_tests::fuzz::{TARGETS, Target};

/// More than any seed needs; a corpus of large files would slow every checkout.
const MAX_SEED_BYTES: u64 = 128 * 1024;

#[test]
fn every_committed_input_is_survived() {
    for (name, target) in TARGETS {
        let inputs = files(&corpus().join(name));
        assert!(inputs.len() >= 5, "{name}: only {} inputs in its corpus", inputs.len());
        for path in inputs {
            replay(&path, *target);
        }
    }
}

#[test]
fn every_truncation_of_a_committed_input_is_survived() {
    for (name, target) in TARGETS {
        for path in files(&corpus().join(name)) {
            let input = fs::read(&path).unwrap();
            // Long inputs repeat themselves; their first KiB holds every kind of border.
            for end in 0..input.len().min(1024) {
                target(&input[..end]);
            }
        }
    }
}

#[test]
fn every_target_has_a_corpus_and_a_binary_and_nothing_else_has() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let names = |folder: PathBuf| -> BTreeSet<String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(corpus()), targets);
    assert_eq!(names(fuzz().join("fuzz_targets")), targets);
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for name in &targets {
        assert!(
            manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")),
            "{name} has no binary"
        );
    }
}

#[test]
fn every_golden_frame_of_the_wire_is_a_seed() {
    let seeds: BTreeSet<Vec<u8>> = files(&corpus().join("frame"))
        .iter()
        .map(|path| fs::read(path).unwrap())
        .collect();
    for path in files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../foundation/wire/golden")) {
        let digits: Vec<u8> = fs::read(&path)
            .unwrap()
            .into_iter()
            .filter(u8::is_ascii_hexdigit)
            .collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        let bytes: Vec<u8> = digits.chunks(2).map(byte).collect();
        assert!(
            seeds.contains(&bytes),
            "{} is no seed of the target frame",
            path.display()
        );
    }
}

fn replay(path: &Path, target: Target) {
    assert!(
        fs::metadata(path).unwrap().len() <= MAX_SEED_BYTES,
        "{} is too large",
        path.display()
    );
    let input = fs::read(path).unwrap();
    assert!(
        catch_unwind(|| target(&input)).is_ok(),
        "{} breaks its target",
        path.display()
    );
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn corpus() -> PathBuf {
    fuzz().join("corpus")
}

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}
