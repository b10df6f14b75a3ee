//! The access policy on disk: which files, compiled as one set, and the last good one kept for the day that the files
//! are broken at a restart.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use fairlead_policy::{AccessPolicy, MAX_FILES, Mistake, Source, Warning};
use fairlead_runtime::config_file::{self, write_private};
use serde::{Deserialize, Serialize};

/// Where access policy comes from and where the last good set is kept.
#[derive(Clone, Debug)]
pub(crate) struct PolicySet {
    files: Vec<PathBuf>,
    last_good: PathBuf,
    /// The first mistake of the files while an earlier set is in force.
    trouble: Arc<Mutex<Option<String>>>,
}

/// A set without mistakes.
pub(crate) struct Compiled {
    /// The policy to put in force.
    pub(crate) policy: AccessPolicy,
    /// What the files' author should know.
    pub(crate) warnings: Vec<Warning>,
    /// What to [keep](PolicySet::keep) once the policy is in force.
    pub(crate) sources: Sources,
}

/// The files that a policy was compiled from.
#[derive(Serialize, Deserialize)]
pub(crate) struct Sources {
    sources: Vec<(String, String)>,
}

impl PolicySet {
    /// The set of `files` (files and directories); the last good one is kept in `state_dir`.
    pub(crate) fn new(files: Vec<PathBuf>, state_dir: &Path) -> Self {
        Self {
            files,
            last_good: state_dir.join("last-good-policy.json"),
            trouble: Arc::default(),
        }
    }

    /// Reads and compiles the files; writes nothing.
    ///
    /// # Errors
    /// Every mistake of every file, in words with places.
    pub(crate) fn compile(&self) -> Result<Compiled, Vec<String>> {
        let sources = self.read()?;
        let (policy, warnings) = AccessPolicy::compile(&sources)
            .map_err(|mistakes| mistakes.iter().map(Mistake::to_string).collect::<Vec<_>>())?;
        let sources = Sources {
            sources: sources.into_iter().map(|source| (source.name, source.text)).collect(),
        };
        Ok(Compiled {
            policy,
            warnings,
            sources,
        })
    }

    /// The policy to start with: the files, else the last good set, else nothing is allowed.
    pub(crate) fn first(&self) -> AccessPolicy {
        let mistakes = match self.compile() {
            Ok(compiled) => {
                for warning in &compiled.warnings {
                    tracing::warn!("{}", warning.0);
                }
                self.keep(&compiled.sources);
                return compiled.policy;
            }
            Err(mistakes) => mistakes,
        };
        for mistake in &mistakes {
            tracing::error!("{mistake}");
        }
        self.set_trouble(mistakes.into_iter().next());
        match self.last_good() {
            Some(policy) => {
                tracing::error!("the access policy has mistakes; the last good one stays in force");
                policy
            }
            None => {
                tracing::error!("the access policy has mistakes and there is no earlier one: nothing is allowed");
                AccessPolicy::deny_all()
            }
        }
    }

    /// Keeps the set that was just put in force for a restart that finds the files broken. Waits for the disk.
    pub(crate) fn keep(&self, sources: &Sources) {
        let written = serde_json::to_vec(sources).map_err(|error| error.to_string());
        if let Err(error) =
            written.and_then(|bytes| write_private(&self.last_good, &bytes, 0o600).map_err(|e| e.to_string()))
        {
            tracing::warn!(error, "the good policy could not be kept for a restart");
        }
    }

    /// The set that was good last, if one was kept and this program still reads it.
    pub(crate) fn last_good(&self) -> Option<AccessPolicy> {
        AccessPolicy::compile(&self.kept()?).ok().map(|(policy, _)| policy)
    }

    /// The files that were kept last.
    pub(crate) fn kept(&self) -> Option<Vec<Source>> {
        let kept: Sources = serde_json::from_slice(&std::fs::read(&self.last_good).ok()?).ok()?;
        let sources = kept.sources.into_iter();
        Some(sources.map(|(name, text)| Source { name, text }).collect())
    }

    /// Remembers whether the files are good, for the health answer.
    pub(crate) fn set_trouble(&self, mistake: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = mistake;
    }

    /// The first mistake of the files, while an earlier set is in force.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn read(&self) -> Result<Vec<Source>, Vec<String>> {
        let (mut sources, mut mistakes) = (Vec::new(), Vec::new());
        for path in self.paths(&mut mistakes) {
            match config_file::read(&path, config_file::MAX_BYTES) {
                Ok(text) => sources.push(Source {
                    name: text.file(),
                    text: text.text,
                }),
                Err(error) => mistakes.push(error.to_string()),
            }
        }
        if mistakes.is_empty() {
            Ok(sources)
        } else {
            Err(mistakes)
        }
    }

    /// Every file of the set; directories give their `*.yaml` and `*.yml` in order of name.
    fn paths(&self, mistakes: &mut Vec<String>) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        for file in &self.files {
            if !file.is_dir() {
                paths.push(file.clone());
                continue;
            }
            match std::fs::read_dir(file) {
                Ok(entries) => {
                    let mut found: Vec<PathBuf> = entries
                        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
                        .filter(|path| path.extension().is_some_and(|end| end == "yaml" || end == "yml"))
                        .take(MAX_FILES.saturating_add(1))
                        .collect();
                    found.sort();
                    paths.append(&mut found);
                }
                Err(error) => mistakes.push(format!("{}: {error}", file.display())),
            }
        }
        paths
    }
}
