//! Manual pages, completions and schemas: `man/NAME.1`, `completions/…`, `schema/KIND.schema.json` below one folder.

use std::fs;
use std::path::Path;

use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use fairlead_policy::Document;

/// Fills `out`; what lies there under the same names is replaced.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn write(out: &Path) -> anyhow::Result<()> {
    let (man, completions, schema) = (out.join("man"), out.join("completions"), out.join("schema"));
    for folder in [&man, &completions, &schema] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    for mut program in programs() {
        let name = program.get_name().to_owned();
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            clap_complete::generate_to(shell, &mut program, &name, &completions)?;
        }
        clap_mangen::generate_to(program.disable_help_subcommand(true), &man)?;
    }
    for (name, document) in [
        ("access", Document::Access),
        ("agent", Document::Agent),
        ("gateway", Document::Gateway),
    ] {
        fs::write(
            schema.join(format!("{name}.schema.json")),
            document.json_schema().trim_end().to_owned() + "\n",
        )?;
    }
    Ok(())
}

fn programs() -> [Command; 3] {
    [
        fairlead::Cli::command(),
        fairlead_agent::command::Arguments::command(),
        fairlead_gateway::command::Arguments::command(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_has_pages_completions_and_schemas() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path()).unwrap();
        let text = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        for program in ["fairlead", "fairlead-agent", "fairlead-gateway"] {
            assert!(text(&format!("man/{program}.1")).contains(".SH SYNOPSIS"), "{program}");
            assert!(text(&format!("completions/{program}.bash")).contains("complete -F"));
            assert!(text(&format!("completions/_{program}")).starts_with("#compdef"));
            assert!(text(&format!("completions/{program}.fish")).contains("complete -c"));
        }
        assert!(text("man/fairlead-agent-enroll.1").contains("join string"));
        let schema: serde_json::Value = serde_json::from_str(&text("schema/agent.schema.json")).unwrap();
        assert!(schema["properties"]["endpoints"].is_object(), "{schema}");
    }

    #[test]
    fn what_clap_itself_says_is_right() {
        programs().into_iter().for_each(|program| program.debug_assert());
    }
}
