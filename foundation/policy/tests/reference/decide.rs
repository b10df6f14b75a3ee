//! How rules add up, from the list in docs/policy.md, without an index and without early ends.

use super::evaluate::{Fault, Scene};
use super::random::Random;
use super::tree::Tree;
use fairlead_identity::name::Protocol;
use fairlead_policy::{Decision, Enforcement, Request, ShadowMatch};
use std::collections::BTreeSet;
use std::fmt::Write;

#[derive(Debug)]
pub(crate) struct Rule {
    name: String,
    sites: &'static [&'static str],
    deny: bool,
    enforce: bool,
    actions: &'static [&'static str],
    expressions: Vec<Tree>,
}

#[derive(Debug)]
pub(crate) struct RuleSet(Vec<Rule>);

/// A decision in few words.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// `allow`, or the reason.
    pub(crate) word: String,
    rule: Option<String>,
    acts: BTreeSet<String>,
    shadow: BTreeSet<String>,
}

pub(crate) fn answer((decision, shadow): &(Decision, Vec<ShadowMatch>)) -> Answer {
    let shadow = shadow.iter().map(|s| s.rule.name.clone()).collect();
    match decision {
        Decision::Allow(allowed) => Answer {
            word: "allow".to_owned(),
            rule: Some(allowed.rule.name.clone()),
            acts: allowed.acts.clone(),
            shadow,
        },
        Decision::Deny(denied) => Answer {
            word: denied.reason.to_string(),
            rule: denied.rule.as_ref().map(|rule| rule.name.clone()),
            acts: BTreeSet::new(),
            shadow,
        },
    }
}

pub(crate) fn request(random: &mut Random) -> Request {
    let port = random.one(&[22, 23]);
    let mut request = random.request(port);
    if random.often(4) {
        request.enforce = Enforcement::Tunnel;
        request.ssh = None;
    } else if random.often(5) && request.ssh.is_none() {
        request.enforce = Enforcement::Acts(Enforcement::acts_of(Protocol::Ssh));
    }
    if random.often(1) {
        request.caller.site = Some("elsewhere".to_owned());
    }
    if random.often(1) {
        let url = format!(
            "postgres://{}.{}.internal",
            request.endpoint.host, request.endpoint.site
        );
        request.endpoint = url.parse().unwrap();
        request.enforce = Enforcement::Tunnel;
        request.ssh = None;
    }
    request
}

impl RuleSet {
    pub(crate) fn random(random: &mut Random) -> Self {
        let count = 1 + random.below(5);
        let everywhere = random.often(5);
        Self(
            (0..count)
                .map(|number| Rule::random(random, number, everywhere))
                .collect(),
        )
    }

    pub(crate) fn everywhere(&self) -> bool {
        self.0.iter().all(|rule| rule.sites == ["*"])
    }

    pub(crate) fn text(&self, sites: bool) -> String {
        let mut text = String::from("version: 1\nrules:\n");
        self.0.iter().for_each(|rule| rule.write(sites, &mut text));
        text
    }

    pub(crate) fn decide(&self, request: &Request) -> Answer {
        let refused = |word: &str, rule: Option<&Rule>, shadow| Answer {
            word: word.to_owned(),
            rule: rule.map(|rule| rule.name.clone()),
            acts: BTreeSet::new(),
            shadow,
        };
        if request
            .caller
            .site
            .as_ref()
            .is_some_and(|site| *site != request.agent.site)
        {
            return refused("other-site", None, BTreeSet::new());
        }
        let rules: Vec<&Rule> = self.0.iter().filter(|rule| rule.is_about(request)).collect();
        let acts: Vec<Option<&str>> = match request.enforce {
            Enforcement::Tunnel => vec![None],
            Enforcement::Acts(acts) => {
                let asked = |act: &&&str| request.ssh.as_ref().is_none_or(|ssh| ssh.action == **act);
                acts.iter().filter(asked).map(|act| Some(*act)).collect()
            }
        };
        let mut shadow = BTreeSet::new();
        let mut verdicts = Vec::new();
        for act in acts {
            let scene = Scene { request, act };
            let (mut allowed, mut denied, mut hidden) = (None, None, None);
            for (place, rule) in rules.iter().enumerate() {
                if act.is_some_and(|act| !rule.actions.is_empty() && !rule.actions.contains(&act)) {
                    continue;
                }
                let value = rule.value(&scene);
                if !rule.enforce {
                    if value == Ok(true) || (rule.deny && value != Ok(false)) {
                        shadow.insert(rule.name.clone());
                    }
                    continue;
                }
                let blind = act.is_none() && rule.reads_acts();
                match (rule.deny, value) {
                    (_, Ok(false)) | (false, Err(Fault::Failed)) => {}
                    (false, _) if blind => hidden = hidden.or(Some(*rule)),
                    (false, Ok(true)) => allowed = allowed.or(Some((place, *rule))),
                    (false, Err(Fault::Unknown)) => {}
                    (true, Ok(true)) => denied = denied.or(Some((place, "deny-rule", *rule))),
                    (true, Err(Fault::Unknown)) if blind => denied = denied.or(Some((place, "deny-rule", *rule))),
                    (true, Err(_)) => denied = denied.or(Some((place, "evaluation-failed", *rule))),
                }
            }
            verdicts.push((act, allowed, denied, hidden));
        }
        let open: Vec<_> = verdicts
            .iter()
            .filter(|(_, allowed, denied, _)| allowed.is_some() && denied.is_none())
            .collect();
        if let Some((_, rule)) = open
            .iter()
            .filter_map(|(_, allowed, ..)| *allowed)
            .min_by_key(|(place, _)| *place)
        {
            return Answer {
                word: "allow".to_owned(),
                rule: Some(rule.name.clone()),
                acts: open.iter().filter_map(|(act, ..)| act.map(str::to_owned)).collect(),
                shadow,
            };
        }
        // A rule that took away what another had allowed is named before one that took nothing.
        let took = verdicts
            .iter()
            .filter_map(|(_, allowed, denied, _)| denied.map(|d| (allowed.is_none(), d)));
        if let Some((_, (_, word, rule))) = took.min_by_key(|(nothing, (place, ..))| (*nothing, *place)) {
            return refused(word, Some(rule), shadow);
        }
        match verdicts.iter().find_map(|(.., hidden)| *hidden) {
            Some(rule) => refused("needs-terminated", Some(rule), shadow),
            None => refused("no-rule", None, shadow),
        }
    }
}

impl Rule {
    fn random(random: &mut Random, number: usize, everywhere: bool) -> Self {
        let sites: &[&[&str]] = &[&["*"], &["s1"], &["s2"], &["s1", "s2"]];
        let actions: &[&[&str]] = &[&[], &[], &["shell"], &["shell", "sftp"]];
        Self {
            name: format!("r{number}"),
            sites: if everywhere { &["*"] } else { random.one(sites) },
            deny: random.often(3),
            enforce: !random.often(2),
            actions: random.one(actions),
            expressions: (0..random.below(3)).map(|_| random.condition(2, None)).collect(),
        }
    }

    fn write(&self, sites: bool, out: &mut String) {
        let effect = if self.deny { "deny" } else { "allow" };
        let _ = write!(
            out,
            "- name: {}\n  effect: {effect}\n  enforce: {}\n",
            self.name, self.enforce
        );
        if sites {
            let _ = writeln!(out, "  sites: {:?}", self.sites);
        }
        if !self.actions.is_empty() {
            let _ = writeln!(out, "  actions: {:?}", self.actions);
        }
        if !self.expressions.is_empty() {
            out.push_str("  expressions:\n");
            self.expressions.iter().for_each(|tree| {
                let _ = writeln!(out, "  - |\n    {}", tree.text());
            });
        }
    }

    fn is_about(&self, request: &Request) -> bool {
        let site = self.sites == ["*"] || self.sites.contains(&request.agent.site.as_str());
        site && (!self.reads_acts() || request.endpoint.protocol == Protocol::Ssh)
    }

    /// Names acts, or reads what only the protocol tells.
    fn reads_acts(&self) -> bool {
        !self.actions.is_empty() || self.expressions.iter().any(|tree| tree.text().contains("ssh."))
    }

    /// All expressions: one that is false decides; of two without a value, failing weighs more.
    fn value(&self, scene: &Scene<'_>) -> Result<bool, Fault> {
        let values: Vec<Result<bool, Fault>> = self.expressions.iter().map(|tree| scene.is_true(tree)).collect();
        if values.contains(&Ok(false)) {
            Ok(false)
        } else if values.contains(&Err(Fault::Failed)) {
            Err(Fault::Failed)
        } else if values.contains(&Err(Fault::Unknown)) {
            Err(Fault::Unknown)
        } else {
            Ok(true)
        }
    }
}
