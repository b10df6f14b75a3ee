//! What a program asks of the operating system for itself as a whole, once, at its start.
//!
//! What systemd can do for it (user, capabilities, system calls) belongs to the unit file.

use std::io;

use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

/// Keeps the memory of this process, which holds keys, out of core files and away from debuggers of its own user.
///
/// # Errors
/// The operating system's refusal; keys may then reach a core file.
pub fn forbid_dumps() -> io::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    prctl::set_dumpable(false)?;
    Ok(())
}

/// Raises the number of files this process may have open to the most the system allows it, and returns that number:
/// each session takes one or two. A number of 32 bits on 32-bit machines.
///
/// # Errors
/// The operating system's refusal; the former limit stays.
pub fn raise_file_limit() -> io::Result<rlim_t> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    Ok(most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::own_process;

    #[test]
    fn limits_are_set_for_the_whole_process() {
        let child = "process::tests::sets_limits";
        assert!(
            own_process::command(child)
                .env("FAIRLEAD_TEST", "1")
                .status()
                .unwrap()
                .success()
        );
    }

    #[test]
    #[ignore = "needs a process of its own; run by the test above"]
    fn sets_limits() {
        if std::env::var_os("FAIRLEAD_TEST").is_none() {
            return;
        }
        forbid_dumps().unwrap();
        assert!(!prctl::get_dumpable().unwrap());
        assert_eq!(getrlimit(Resource::RLIMIT_CORE).unwrap(), (0, 0));
        let most = raise_file_limit().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (most, most));
    }
}
