//! From files to a policy that decides: the loader, its budgets and its thread.

use crate::decide::RuleSet;
use crate::document::{AccessDocument, RuleAsWritten, RuleOutline, Side};
use crate::explain::Explanation;
use crate::expression::Engine;
use crate::mistake::{self, Mistake, Report, Warning};
use crate::request::{Decision, Request, ShadowMatch};
use crate::rule::CompiledRule;
use crate::selftest;
use fairlead_identity::name::Protocol;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Most bytes of all files of one set.
pub const MAX_SET_BYTES: usize = 4 * 1024 * 1024;
/// Most rules of one set.
pub const MAX_RULES: usize = 10_000;
/// Most files of one set.
pub const MAX_FILES: usize = 1000;
/// Stack of the loader's thread. The parser of expressions takes some 10 KiB for each open bracket in a release build and
/// 170 KiB in a debug build, and stops by itself at 96 brackets: that is 16 MiB at the worst, measured by tests/hostile.rs.
/// Only what is used is ever backed by memory.
const LOADER_STACK_BYTES: usize = 32 * 1024 * 1024;

/// One file of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The name shown in mistakes and in [`RuleRef`](crate::RuleRef): usually the path.
    pub name: String,
    /// The file's text.
    pub text: String,
}

/// The gateway's access policy: immutable, cheap to share, replaced as a whole.
pub struct AccessPolicy {
    rules: RuleSet,
    tests: usize,
    digest: String,
}

impl std::fmt::Debug for AccessPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessPolicy")
            .field("rules", &self.rules.len())
            .field("digest", &self.digest)
            .finish()
    }
}

impl AccessPolicy {
    /// Compiles a set of access files, in the order given, and runs their `tests:`.
    ///
    /// No files at all is a policy that denies everything. The work is bounded by [`MAX_SET_BYTES`], [`MAX_RULES`] and
    /// [`MAX_FILES`]; it runs on a thread of its own and this call waits for it, so it does not belong on a request path.
    ///
    /// # Errors
    /// Every mistake in every file, at most [`MAX_MISTAKES`](crate::MAX_MISTAKES) and a last one that says so. The tests of a
    /// set run only when all its files are right.
    pub fn compile(sources: &[Source]) -> Result<(Self, Vec<Warning>), Vec<Mistake>> {
        let bytes: usize = sources.iter().map(|s| s.text.len()).fold(0, usize::saturating_add);
        check_sizes(
            sources.first().map_or("access policy", |s| &s.name),
            sources.len(),
            bytes,
        )?;
        on_loader_stack(|| compile_access(sources)).map_err(mistake::at_most)
    }

    /// The policy of an installation without one: everything is denied.
    #[must_use]
    pub fn deny_all() -> Self {
        Self {
            rules: RuleSet::new(Engine::new(), Vec::new()),
            tests: 0,
            digest: policy_digest(&[]),
        }
    }

    /// Decides one request. Never blocks, never fails: whatever goes wrong is a denial. Of an MQTT client that has said
    /// CONNECT and no act yet, a rule that reads the act does not refuse, and counts as one that may allow.
    #[must_use]
    pub fn decide(&self, request: &Request) -> Decision {
        self.rules.decide(request)
    }

    /// Decides on what is known before the client of a protocol that is read (Postgres, MQTT) has spoken: a rule that reads
    /// what it will say does not refuse, and counts as one that may allow. The last word is [`AccessPolicy::decide`]'s, with the
    /// facts; of other protocols nothing more will be known, and the answer is the same.
    #[must_use]
    pub fn decide_unspoken(&self, request: &Request) -> Decision {
        match request.endpoint.protocol {
            Protocol::Postgres => self.rules.decide_unspoken(request),
            Protocol::Mqtt => self.rules.decide_opening(request),
            _ => self.rules.decide(request),
        }
    }

    /// Decides, and names the rules with `enforce: false` that would have matched, for counting and logging.
    #[must_use]
    pub fn decide_with_shadow(&self, request: &Request) -> (Decision, Vec<ShadowMatch>) {
        self.rules.decide_with_shadow(request)
    }

    /// Decides, with what each rule said and the values it saw. Evaluates every rule of the site: off the request path.
    #[must_use]
    pub fn explain(&self, request: &Request) -> Explanation {
        self.rules.explain(request)
    }

    /// Whether a rule reads `time.now`: then live sessions are decided again as time passes.
    #[must_use]
    pub fn reads_time(&self) -> bool {
        self.rules.reads_time()
    }

    #[cfg(test)]
    pub(crate) fn rule_set(&self) -> &RuleSet {
        &self.rules
    }

    /// Whether a rule reads `time.now` or `conn.*`: what one question is answered holds for others only with care.
    #[must_use]
    pub fn reads_circumstances(&self) -> bool {
        self.rules.rules().iter().any(CompiledRule::reads_circumstances)
    }

    /// How many tests the set has; all have passed.
    #[must_use]
    pub fn test_count(&self) -> usize {
        self.tests
    }

    /// How many rules the set has.
    #[must_use]
    pub fn rule_count(&self) -> usize {
        self.rules.len()
    }

    /// SHA-256 over the texts in order, in lower-case hex. File names do not enter: a moved file is the same policy.
    #[must_use]
    pub fn digest(&self) -> String {
        self.digest.clone()
    }
}

/// The rules of one endpoint in the agent's own file: the same language without `sites`.
pub struct LocalRules {
    rules: RuleSet,
    outline: Vec<RuleOutline>,
}

impl std::fmt::Debug for LocalRules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalRules").field("rules", &self.rules.len()).finish()
    }
}

impl LocalRules {
    /// Compiles the rules of one endpoint. `file` and `text` are the file they were read from, for places and snippets.
    ///
    /// An empty list denies everything: whoever wrote `rules: []` wrote a default deny. A file without `rules` has none to
    /// compile, and that is the agent's case to decide.
    ///
    /// # Errors
    /// Every mistake, as [`AccessPolicy::compile`].
    pub fn compile(file: &str, text: &str, rules: &[RuleAsWritten]) -> Result<Self, Vec<Mistake>> {
        check_sizes(file, 1, text.len())?;
        let compiled = on_loader_stack(|| {
            let mut report = Report::new(file, text);
            let engine = Engine::new();
            let mut names = Names::default();
            let compiled = compile_rules(rules, Side::Agent, file, &engine, &mut names, &mut report);
            let read = |rule: &RuleAsWritten| rule.read(Side::Agent, &mut Report::new(file, text));
            let outline = rules.iter().filter_map(|rule| RuleOutline::of(&read(rule)?)).collect();
            let (mistakes, _) = report.finish();
            if mistakes.is_empty() {
                Ok(Self {
                    rules: RuleSet::new(engine, compiled),
                    outline,
                })
            } else {
                Err(mistakes)
            }
        });
        compiled.map_err(mistake::at_most)
    }

    /// The rules in words, in the order of the file.
    #[must_use]
    pub fn outline(&self) -> &[RuleOutline] {
        &self.outline
    }

    /// Decides one request, as [`AccessPolicy::decide`].
    #[must_use]
    pub fn decide(&self, request: &Request) -> Decision {
        self.rules.decide(request)
    }

    /// Decides whether a session may be opened in which each act is asked about later, by [`LocalRules::decide`]: a rule
    /// that reads what is not known yet does not refuse, and counts as one that may allow.
    #[must_use]
    pub fn decide_opening(&self, request: &Request) -> Decision {
        self.rules.decide_opening(request)
    }

    /// Decides, and names the rules with `enforce: false` that would have matched.
    #[must_use]
    pub fn decide_with_shadow(&self, request: &Request) -> (Decision, Vec<ShadowMatch>) {
        self.rules.decide_with_shadow(request)
    }

    /// As [`AccessPolicy::explain`].
    #[must_use]
    pub fn explain(&self, request: &Request) -> Explanation {
        self.rules.explain(request)
    }

    /// Whether a rule reads `time.now`.
    #[must_use]
    pub fn reads_time(&self) -> bool {
        self.rules.reads_time()
    }
}

fn check_sizes(file: &str, files: usize, bytes: usize) -> Result<(), Vec<Mistake>> {
    let message = if bytes > MAX_SET_BYTES {
        format!("the files have {bytes} bytes together; at most {MAX_SET_BYTES} are read")
    } else if files > MAX_FILES {
        format!("{files} files; at most {MAX_FILES} are read")
    } else {
        return Ok(());
    };
    Err(vec![mistake::without_place(file, message)])
}

/// Runs the loader where deep input cannot overflow the stack, and turns its panic into a mistake.
fn on_loader_stack<T: Send>(work: impl FnOnce() -> Result<T, Vec<Mistake>> + Send) -> Result<T, Vec<Mistake>> {
    let failed = |message: &str| Err(vec![mistake::without_place("policy", message.to_owned())]);
    std::thread::scope(|scope| {
        let loader = std::thread::Builder::new()
            .name("policy-loader".to_owned())
            .stack_size(LOADER_STACK_BYTES);
        match loader.spawn_scoped(scope, work) {
            Ok(thread) => thread
                .join()
                .unwrap_or_else(|_| failed("the loader failed on these files; nothing was loaded")),
            Err(_) => failed("no thread for the loader: the machine is short of memory or tasks"),
        }
    })
}

fn compile_access(sources: &[Source]) -> Result<(AccessPolicy, Vec<Warning>), Vec<Mistake>> {
    let engine = Engine::new();
    let mut names = Names::default();
    let mut reports: Vec<Report<'_>> = sources.iter().map(|s| Report::new(&s.name, &s.text)).collect();
    let documents: Vec<Option<AccessDocument>> = reports.iter_mut().map(AccessDocument::from_text).collect();
    let count: usize = documents.iter().flatten().map(|d| d.rules.len()).sum();
    if count > MAX_RULES {
        let file = sources.first().map_or("access policy", |s| &s.name);
        return Err(vec![mistake::without_place(
            file,
            format!("{count} rules; at most {MAX_RULES} are read"),
        )]);
    }
    let mut rules = Vec::new();
    for ((source, document), report) in sources.iter().zip(&documents).zip(&mut reports) {
        if let Some(document) = document {
            rules.extend(compile_rules(
                &document.rules,
                Side::Gateway,
                &source.name,
                &engine,
                &mut names,
                report,
            ));
        }
    }
    let tests: Vec<Vec<selftest::Test>> = documents
        .iter()
        .zip(&mut reports)
        .map(|(document, report)| {
            document
                .iter()
                .flat_map(|d| &d.tests)
                .filter_map(|t| selftest::Test::read(t, report))
                .collect()
        })
        .collect();
    let rules = RuleSet::new(engine, rules);
    if reports.iter().all(Report::is_clean) {
        selftest::run(&rules, &tests, &mut reports);
    }
    let (mut mistakes, mut warnings) = (Vec::new(), Vec::new());
    for report in reports {
        let (wrong, doubtful) = report.finish();
        mistakes.extend(wrong);
        warnings.extend(doubtful);
    }
    if mistakes.is_empty() {
        Ok((
            AccessPolicy {
                rules,
                tests: tests.iter().map(Vec::len).sum(),
                digest: policy_digest(sources),
            },
            warnings,
        ))
    } else {
        Err(mistakes)
    }
}

/// Rule names so far, and where each stands: audit and tests tell rules apart by name.
type Names = BTreeMap<String, (String, u32)>;

fn compile_rules(
    written: &[RuleAsWritten],
    side: Side,
    file: &str,
    engine: &Engine,
    names: &mut Names,
    report: &mut Report<'_>,
) -> Vec<CompiledRule> {
    if written.len() > MAX_RULES {
        report.mistake(
            written.first().map(|r| r.0.at).unwrap_or_default(),
            format!("more than {MAX_RULES} rules"),
            None,
        );
        return Vec::new();
    }
    let mut compiled = Vec::new();
    for rule in written {
        // Enough is enough: nobody reads more, and each costs time.
        if report.is_full() {
            break;
        }
        let Some(rule) = rule.read(side, report) else { continue };
        if let Some(name) = &rule.name
            && let Some((other, line)) = names.insert(name.text.clone(), (file.to_owned(), name.at.line))
        {
            report.mistake(
                name.at,
                format!("a rule `{}` exists already", name.text),
                Some(format!("see {other}:{line}")),
            );
        }
        compiled.extend(CompiledRule::compile(rule, file, engine, side, report));
    }
    compiled
}

/// The digest that a policy of these files has, see [`AccessPolicy::digest`].
#[must_use]
pub fn policy_digest(sources: &[Source]) -> String {
    let mut hash = Sha256::new();
    for source in sources {
        // The length keeps two files apart from one file of both texts.
        hash.update(u64::try_from(source.text.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(source.text.as_bytes());
    }
    hash.finalize().iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
