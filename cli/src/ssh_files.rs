//! The two files that stock ssh reads: a configuration for the gateway and everything behind it, and the authority of
//! its host certificates.

use std::path::{Path, PathBuf};

use anyhow::Context;
use fairlead_runtime::config_file::{HostPort, write_private};

use crate::profile::{Facts, Profile};

/// Writes `ssh_config` and `known_hosts` into the profile; returns the configuration's path.
///
/// # Errors
/// When a file cannot be written, or the gateway's address is damaged.
pub(crate) fn write(profile: &Profile, facts: &Facts) -> anyhow::Result<PathBuf> {
    let config = profile.path("ssh_config");
    let known_hosts = profile.path("known_hosts");
    write_private(&known_hosts, known_hosts_text(facts).as_bytes(), 0o600)?;
    write_private(&config, config_text(profile, facts)?.as_bytes(), 0o600)?;
    Ok(config)
}

/// Adds one `Include` of `config` to the head of the person's own `~/.ssh/config`; whether it was not there before.
///
/// # Errors
/// When the file cannot be read or written.
pub(crate) fn install(config: &Path, ssh_dir: &Path) -> anyhow::Result<bool> {
    let own = ssh_dir.join("config");
    // People link this file to where they keep their settings.
    let own = std::fs::canonicalize(&own).unwrap_or(own);
    let before = match std::fs::read_to_string(&own) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", own.display())),
    };
    let include = format!("Include {}", quoted(config));
    if before.lines().any(|line| line.trim() == include) {
        return Ok(false);
    }
    if !ssh_dir.exists() {
        fairlead_runtime::config_file::private_dir(ssh_dir)?;
    }
    // At the head: an Include below a Host line would belong to that host.
    write_private(&own, format!("{include}\n\n{before}").as_bytes(), 0o600)?;
    Ok(true)
}

fn known_hosts_text(facts: &Facts) -> String {
    let domain = &facts.domain;
    let line = |ca: &String| format!("@cert-authority {domain},*.{domain},*.internal {ca}\n");
    facts.ssh_host_ca.iter().map(line).collect()
}

fn config_text(profile: &Profile, facts: &Facts) -> anyhow::Result<String> {
    let address = facts
        .gateways
        .first()
        .context("login kept no gateway address: log in again")?;
    let address: HostPort = address
        .parse()
        .with_context(|| format!("`{address}` is no gateway address"))?;
    let (domain, name) = (&facts.domain, &facts.name);
    let identity = format!(
        "    IdentityFile {key}\n    CertificateFile {certificate}\n",
        key = quoted(&profile.path("id")),
        certificate = quoted(&profile.path("id-cert.pub")),
    );
    // ssh writes keys that people accept into the first file, and we rewrite the second.
    let known = format!(
        "    UserKnownHostsFile {devices} {authority} ~/.ssh/known_hosts\n",
        devices = quoted(&profile.path("known_devices")),
        authority = quoted(&profile.path("known_hosts")),
    );
    let asking = asking(profile);
    // A device's own sshd trusts its own keys, so the person's usual ones are offered too.
    let usual =
        "    IdentityFile ~/.ssh/id_ed25519\n    IdentityFile ~/.ssh/id_ecdsa\n    IdentityFile ~/.ssh/id_rsa\n";
    Ok(format!(
        "# Written by `fairlead login`; changes are lost at the next one.\n\
         Host {domain}\n    HostName {host}\n    Port {port}\n    User {name}\n    HostKeyAlias {domain}\n    IdentitiesOnly yes\n{identity}{known}\n\
         Host *.internal *.{domain}\n    ProxyJump {domain}\n{identity}{usual}{known}{asking}",
        host = address.host(),
        port = address.port(),
    ))
}

/// Has ssh ask the gateway for the host keys of devices. Clients before OpenSSH 8.5 pass over the line and ask the person.
/// Where this program is not `fairlead` itself, there is nothing to run.
fn asking(profile: &Profile) -> String {
    let program = std::env::current_exe().ok();
    let program = program.filter(|path| path.file_stem().is_some_and(|name| name == "fairlead"));
    program.map_or_else(String::new, |program| {
        format!(
            "    IgnoreUnknown KnownHostsCommand\n    KnownHostsCommand {} known-hosts --profile {} %H\n",
            quoted(&program),
            quoted(profile.path("").as_path())
        )
    })
}

/// A path as an ssh_config argument: quoted, and with the percent signs doubled that ssh would expand.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('%', "%%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            name: "alice".into(),
            principal: "spiffe://gw.example.com/user/alice".into(),
            domain: "gw.example.com".into(),
            gateways: vec!["gw.example.com:443".into()],
            ssh_host_ca: vec!["ssh-ed25519 AAAA".into()],
        }
    }

    #[test]
    fn installing_twice_adds_one_line_before_everything_else() {
        let dir = tempfile::tempdir().unwrap();
        let ssh_dir = dir.path().join("ssh");
        let config = dir.path().join("ssh_config");
        assert!(install(&config, &ssh_dir).unwrap());
        std::fs::write(
            ssh_dir.join("config"),
            format!("Include {}\n\nHost old\n", quoted(&config)),
        )
        .unwrap();
        assert!(!install(&config, &ssh_dir).unwrap());
        let text = std::fs::read_to_string(ssh_dir.join("config")).unwrap();
        assert!(text.starts_with("Include ") && text.contains("Host old"), "{text}");
    }

    #[test]
    fn every_host_behind_the_gateway_jumps_through_it() {
        let text = config_text(&Profile::at("/home/a b/.config/fairlead"), &facts()).unwrap();
        assert!(
            text.contains("Host *.internal *.gw.example.com\n    ProxyJump gw.example.com\n"),
            "{text}"
        );
        assert!(
            text.contains("IdentityFile \"/home/a b/.config/fairlead/id\""),
            "{text}"
        );
    }
}
