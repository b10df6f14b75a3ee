//! Where the package is installed, the state belongs to the service's account, also when root sets the gateway up.

use std::io;
use std::path::Path;

use fairlead_runtime::account::Account;

/// The account that the units name.
const ACCOUNT: &str = "fairlead-gateway";
/// Where the units look for the gateway's file.
const CONFIGURATION: &str = "/etc/fairlead-gateway";

/// Makes the state directory for the account, where the file is the one that the unit names and root asks.
///
/// # Errors
/// When it cannot be made.
pub fn make_state_dir(config_file: &Path, state_dir: &Path) -> io::Result<()> {
    if config_file.parent() == Some(Path::new(CONFIGURATION)) {
        Account::make_dir(state_dir, ACCOUNT)?;
    }
    Ok(())
}

/// Whether systemd has the gateway's units and runs.
pub fn has_unit() -> bool {
    let unit = |folder: &&str| Path::new(folder).join("fairlead-gateway.service").exists();
    let folders = ["/etc/systemd/system", "/lib/systemd/system", "/usr/lib/systemd/system"];
    Path::new("/run/systemd/system").is_dir() && folders.iter().any(unit)
}
