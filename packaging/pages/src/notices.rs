//! The notices that licences ask for: every crate a program is linked with, and the texts that lie in its sources.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde::Deserialize;

/// What the names of such files begin with.
const NOTICES: &[&str] = &["license", "licence", "copying", "notice", "unlicense", "copyright"];
/// A text longer than this is none that a licence asks to repeat.
const MAX_TEXT: u64 = 512 * 1024;

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    repository: Option<String>,
    /// Absent for what is ours.
    source: Option<String>,
    manifest_path: PathBuf,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    /// `None` is a normal dependency.
    kind: Option<String>,
}

/// Writes the notices of `package`, as built for `target`, to `out`.
///
/// # Errors
/// When cargo does not answer, or a crate states no licence.
pub(crate) fn write(package: &str, target: &str, out: &Path) -> anyhow::Result<()> {
    let metadata = metadata(target)?;
    let linked = linked(&metadata, package)?;
    let text = describe(package, &linked)?;
    fs::write(out, text).with_context(|| format!("cannot write {}", out.display()))
}

fn metadata(target: &str) -> anyhow::Result<Metadata> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
            target,
        ])
        .output()
        .context("cargo cannot be run")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The foreign crates below `root`, in order; those that only build or test it are left out.
fn linked<'a>(metadata: &'a Metadata, root: &str) -> anyhow::Result<Vec<&'a Package>> {
    let packages: BTreeMap<&str, &Package> = metadata.packages.iter().map(|p| (p.id.as_str(), p)).collect();
    let nodes: BTreeMap<&str, &Node> = metadata.resolve.nodes.iter().map(|n| (n.id.as_str(), n)).collect();
    let ours = |package: &&Package| package.name == root && package.source.is_none();
    let first = metadata.packages.iter().find(ours);
    let mut waiting: VecDeque<&str> = [first.with_context(|| format!("no package {root}"))?.id.as_str()].into();
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    while let Some(id) = waiting.pop_front() {
        if !seen.insert(id) {
            continue;
        }
        let below = nodes.get(id).map(|node| node.deps.as_slice()).unwrap_or_default();
        let normal = below.iter().filter(|d| d.dep_kinds.iter().any(|k| k.kind.is_none()));
        waiting.extend(normal.map(|d| d.pkg.as_str()));
    }
    let mut linked: Vec<&Package> = seen.iter().filter_map(|id| packages.get(id).copied()).collect();
    linked.retain(|package| package.source.is_some());
    linked.sort_by_key(|package| (&package.name, &package.version));
    Ok(linked)
}

fn describe(program: &str, linked: &[&Package]) -> anyhow::Result<String> {
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut list = String::new();
    for package in linked {
        let name = format!("{} {}", package.name, package.version);
        let license = package.license.as_deref();
        let license = license.with_context(|| format!("{name} states no licence"))?;
        let place = package.repository.as_deref().unwrap_or("https://crates.io");
        writeln!(list, "{name}: {license}; {place}")?;
        for text in texts_of(package)? {
            texts.entry(text).or_default().push(name.clone());
        }
    }
    let mut by_first: Vec<(&String, &Vec<String>)> = texts.iter().collect();
    by_first.sort_by_key(|(_, names)| *names);
    let mut out = format!(
        "{program} is linked with the Rust standard library (MIT or Apache-2.0, https://github.com/rust-lang/rust) and with\n\
         the crates below. Where a crate may be had under several licences, Apache-2.0 or MIT is chosen.\n\n{list}"
    );
    for (text, names) in by_first {
        write!(out, "\n{}\n{}\n\n{text}\n", "-".repeat(80), names.join(", "))?;
    }
    Ok(out)
}

/// The notices that lie in a crate's sources, once each, without ends of lines that differ.
fn texts_of(package: &Package) -> anyhow::Result<BTreeSet<String>> {
    let folder = package.manifest_path.parent().context("a manifest lies in a folder")?;
    let mut texts = BTreeSet::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().to_lowercase();
        let metadata = fs::metadata(entry.path())?;
        let wanted = metadata.is_file() && metadata.len() <= MAX_TEXT && NOTICES.iter().any(|n| name.starts_with(n));
        if wanted {
            let text = String::from_utf8_lossy(&fs::read(entry.path())?).replace('\r', "");
            let lines: Vec<&str> = text.trim().lines().map(str::trim_end).collect();
            texts.insert(lines.join("\n"));
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_notices_name_what_it_is_linked_with_and_nothing_of_the_tests() {
        let metadata = metadata("x86_64-unknown-linux-gnu").unwrap();
        let linked = linked(&metadata, "fairlead-agent").unwrap();
        let names: BTreeSet<&str> = linked.iter().map(|p| p.name.as_str()).collect();
        assert!(names.contains("rustls") && names.contains("aws-lc-sys"), "{names:?}");
        assert!(!names.contains("proptest") && !names.contains("rusqlite") && !names.contains("fairlead-wire"));
        let text = describe("fairlead-agent", &linked).unwrap();
        assert!(text.contains("\nquinn ") && text.contains("Apache License"), "{text}");
    }
}
