//! Where the sources are: the repository root, its crates, every Rust file in them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::source::{SourceFile, follow};

/// A workspace member: its folder and the name its library has in paths.
pub(crate) struct Member {
    /// Folder, relative to the repository.
    pub(crate) folder: &'static str,
    /// Package name, as in its manifest.
    pub(crate) package: &'static str,
    /// Library name, as in `use`.
    pub(crate) library: &'static str,
}

/// All members. A folder that is missing here fails `every_member_is_known`.
pub(crate) const MEMBERS: &[Member] = &[
    Member {
        folder: "foundation/wire",
        package: "fairlead-wire",
        library: "fairlead_wire",
    },
    Member {
        folder: "foundation/protocol",
        package: "fairlead-protocol",
        library: "fairlead_protocol",
    },
    Member {
        folder: "foundation/identity",
        package: "fairlead-identity",
        library: "fairlead_identity",
    },
    Member {
        folder: "foundation/policy",
        package: "fairlead-policy",
        library: "fairlead_policy",
    },
    Member {
        folder: "foundation/runtime",
        package: "fairlead-runtime",
        library: "fairlead_runtime",
    },
    Member {
        folder: "gateway",
        package: "fairlead-gateway",
        library: "fairlead_gateway",
    },
    Member {
        folder: "edge-agent",
        package: "fairlead-agent",
        library: "fairlead_agent",
    },
    Member {
        folder: "cli",
        package: "fairlead",
        library: "fairlead",
    },
    Member {
        folder: "packaging/pages",
        package: "fairlead-pages",
        library: "fairlead_pages",
    },
    Member {
        folder: "tests",
        package: "fairlead-tests",
        library: "fairlead_tests",
    },
];

/// The repository root. Read at run time where the runner says where the package is, so that moved binaries still find it.
pub(crate) fn root() -> PathBuf {
    let package =
        std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package
        .parent()
        .expect("the tests package lies in a folder of the repository")
        .to_path_buf()
}

/// Every file below `folder` with this extension, relative to the repository, in order. Build output is left out.
pub(crate) fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let root = root();
    let mut found = Vec::new();
    walk(&root.join(folder), &mut |path| {
        if path.extension().is_some_and(|e| e == extension) {
            found.push(
                path.strip_prefix(&root)
                    .expect("the walk started at the root")
                    .to_path_buf(),
            );
        }
    });
    found.sort();
    found
}

fn walk(folder: &Path, visit: &mut dyn FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("a folder of the repository can be read").path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if name == "target" || name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            walk(&path, visit);
        } else {
            visit(&path);
        }
    }
}

/// Members that no package ships.
const UNSHIPPED: &[&str] = &["fairlead-tests", "fairlead-pages"];

/// The parsed `src` files of every member that ships.
pub(crate) fn product() -> Vec<SourceFile> {
    let mut files = Vec::new();
    for member in MEMBERS.iter().filter(|m| !UNSHIPPED.contains(&m.package)) {
        files.extend(crate_sources(member));
    }
    files
}

fn crate_sources(member: &Member) -> Vec<SourceFile> {
    let mut parsed: Vec<SourceFile> = files(&format!("{}/src", member.folder), "rs")
        .iter()
        .map(|path| {
            let text = fs::read_to_string(root().join(path)).expect("a source file is text");
            let name = path.to_str().expect("file names are text");
            SourceFile::parse(name, member.library, &text).unwrap_or_else(|error| panic!("{name}: {error}"))
        })
        .collect();
    let exports: BTreeMap<_, _> = parsed
        .iter()
        .flat_map(|f| f.exports.clone())
        .filter(|(offered, real)| offered != real)
        .collect();
    for mention in parsed.iter_mut().flat_map(|f| &mut f.mentions) {
        follow(&mut mention.path, &exports);
    }
    let test_only: BTreeSet<Vec<String>> = parsed.iter().flat_map(|f| f.test_modules.clone()).collect();
    for file in &mut parsed {
        if test_only.iter().any(|module| file.module.starts_with(module)) {
            file.mark_as_test();
        }
    }
    parsed
}

#[test]
fn every_member_is_known() {
    let mut manifests = files(".", "toml");
    manifests.retain(|path| {
        path.ends_with("Cargo.toml") && path != Path::new("Cargo.toml") && !path.starts_with("tests/fuzz")
    });
    let found: BTreeSet<String> = manifests
        .iter()
        .filter_map(|m| m.parent()?.to_str().map(str::to_owned))
        .collect();
    let known: BTreeSet<String> = MEMBERS.iter().map(|m| m.folder.to_owned()).collect();
    assert_eq!(
        found, known,
        "the list of members in tests/tests/architecture/tree.rs is not the list of crates"
    );
}

#[test]
fn the_walk_finds_sources_of_every_member() {
    for member in MEMBERS {
        assert!(
            !files(member.folder, "rs").is_empty(),
            "no Rust file found below {}",
            member.folder
        );
    }
}
