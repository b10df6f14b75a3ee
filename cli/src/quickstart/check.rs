//! `--check`: runs the commands that quickstart prints, with the stock clients, and looks at what they say.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::process::Command;
use tokio::time::timeout;

use super::stage::{DEVICE, Stage};
use crate::command::Context;

/// One command.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// Runs every check; the first that fails ends it.
pub(super) async fn run(stage: &Stage, context: &Context) -> anyhow::Result<()> {
    let done = |text: &str| {
        context
            .note(&format!("ok       {text}"))
            .map_err(|error| anyhow::anyhow!("{error}"))
    };
    let alice = stage.ssh_config("alice");

    let hello = ssh(&alice, stage, &["echo", "hello from $(id -un)"]).await?;
    let text = String::from_utf8_lossy(&hello.stdout).trim().to_owned();
    ensure!(
        hello.status.success() && text == format!("hello from {}", stage.account()),
        "ssh: {}",
        said(&hello)
    );
    done(&format!("ssh {}@{DEVICE} says: {text}", stage.account()))?;

    let seven = ssh(&alice, stage, &["exit 7"]).await?;
    ensure!(
        seven.status.code() == Some(7),
        "ssh ... 'exit 7' gave {:?}: {}",
        seven.status.code(),
        said(&seven)
    );
    done("ssh ... 'exit 7' gives 7")?;

    copy_there_and_back(stage, &alice).await?;
    done("scp of 4 MiB there and back, equal")?;

    let mallory = ssh(&stage.ssh_config("mallory"), stage, &["true"]).await?;
    let words = String::from_utf8_lossy(&mallory.stderr).into_owned();
    ensure!(
        !mallory.status.success() && words.contains("fairlead: denied (session "),
        "mallory was not refused: {}",
        said(&mallory)
    );
    let line = words
        .lines()
        .find(|line| line.contains("fairlead: denied"))
        .unwrap_or_default()
        .trim();
    done(&format!("mallory is told: {line}"))?;

    audited(&stage.path("gateway/state/audit.jsonl"), line)?;
    done("the refusal stands in the gateway's audit log under that session")?;
    Ok(())
}

async fn copy_there_and_back(stage: &Stage, config: &Path) -> anyhow::Result<()> {
    let (original, there, back) = (
        stage.path("run/original"),
        stage.path("run/there"),
        stage.path("run/back"),
    );
    // Bytes with structure enough that a lost or swapped block shows.
    let bytes: Vec<u8> = (0..4 * 1024 * 1024_u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()[0])
        .collect();
    std::fs::write(&original, &bytes)?;
    let remote = format!("{}@{DEVICE}:{}", stage.account(), there.display());
    for (from, to) in [
        (original.display().to_string(), remote.clone()),
        (remote, back.display().to_string()),
    ] {
        let copied =
            output(
                Command::new("scp")
                    .arg("-q")
                    .arg("-F")
                    .arg(config)
                    .args(["-o", "BatchMode=yes", &from, &to]),
            )
            .await?;
        ensure!(copied.status.success(), "scp {from} {to}: {}", said(&copied));
    }
    ensure!(
        std::fs::read(&back)? == bytes,
        "scp brought back other bytes than it took"
    );
    Ok(())
}

async fn ssh(config: &Path, stage: &Stage, command: &[&str]) -> anyhow::Result<Output> {
    let destination = format!("{}@{DEVICE}", stage.account());
    let mut ssh = Command::new("ssh");
    ssh.arg("-F")
        .arg(config)
        .args(["-o", "BatchMode=yes", &destination])
        .args(command);
    output(&mut ssh).await
}

async fn output(command: &mut Command) -> anyhow::Result<Output> {
    command.stdin(std::process::Stdio::null()).kill_on_drop(true);
    let shown = format!("{:?}", command.as_std());
    let ended = timeout(COMMAND_LIMIT, command.output()).await;
    ended
        .with_context(|| format!("{shown} did not end within 60 s"))?
        .with_context(|| format!("cannot run {shown}"))
}

fn said(output: &Output) -> String {
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    format!("{}, said: {}", output.status, text.trim())
}

/// Finds exactly one `session.refuse` line with the session that the caller was told.
fn audited(log: &Path, told: &str) -> anyhow::Result<()> {
    let Some(session) = told.split("(session ").nth(1).and_then(|rest| rest.split(')').next()) else {
        bail!("no session id in: {told}");
    };
    let text = std::fs::read_to_string(log).with_context(|| format!("cannot read {}", log.display()))?;
    let found = text.lines().filter(|line| line.contains(session)).collect::<Vec<_>>();
    ensure!(
        found.len() == 1 && found.iter().all(|line| line.contains("\"session.refuse\"")),
        "audit lines of {session}: {found:?}"
    );
    Ok(())
}
