//! Which machine a state directory belongs to.
//!
//! Two machines with one key are one agent to the gateway, and a thief's copy looks like a clone. So the state remembers
//! the machine that made its key, by a digest of `/etc/machine-id` (machine-id(5) asks not to pass the id itself on), and
//! is refused on another. Where there is no such file, or it is not set yet, nothing is compared.

use std::path::{Path, PathBuf};

use fairlead_runtime::audit;

/// Unique to an installation of the system; made anew by whatever prepares an image rightly.
const MACHINE_ID: &str = "/etc/machine-id";

/// The state directory was made on another machine.
#[derive(Debug, thiserror::Error)]
#[error(
    "{dir} was copied from another machine ({MACHINE_ID} differs from the one that made it), and an agent's state is one \
     machine's own. Here: `mv {dir} {dir}.copied`, then `fairlead-agent enroll --token-file FILE` with a join string for \
     this machine. If this is the same device, set up anew, its operator makes one that keeps its name: \
     `fairlead token create --agent NAME --replace`. An image may hold a join file, never this directory",
    dir = dir.display()
)]
pub struct CopiedState {
    /// The directory.
    pub dir: PathBuf,
}

/// The digest of this machine's id, or `None` where it has none.
pub(crate) fn this_machine() -> Option<String> {
    digest_of(Path::new(MACHINE_ID))
}

fn digest_of(file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let id = text.trim();
    // An image that is not set up yet has an empty file, or the word "uninitialized".
    let is_set = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()) && id.bytes().any(|b| b != b'0');
    is_set.then(|| audit::hash(format!("fairlead-agent state of machine {id}").as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_a_set_id_has_no_digest() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("machine-id");
        assert_eq!(digest_of(&file), None);
        for unset in [
            "",
            "\n",
            "uninitialized\n",
            "00000000000000000000000000000000\n",
            "not an id",
        ] {
            std::fs::write(&file, unset).unwrap();
            assert_eq!(digest_of(&file), None, "{unset:?}");
        }
        std::fs::write(&file, "3d1219c7c4c5404aaa1f6d2a48adfda4\n").unwrap();
        let one = digest_of(&file).unwrap();
        assert!(one.len() == 64 && !one.contains("3d1219"));
        std::fs::write(&file, "3d1219c7c4c5404aaa1f6d2a48adfda5").unwrap();
        assert_ne!(digest_of(&file), Some(one));
    }
}
