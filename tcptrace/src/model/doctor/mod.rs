//! What is wrong with a host: [`facts`] are gathered by a [`Watch`], and each [`Rule`] reads them and finds, or does not.
//!
//! A rule is a file in `rules/`, an entry of [`RULES`], and a page in `explain/findings.txt`, which says why it happens and
//! what to do.

use super::event::Owner;

pub mod facts;
pub mod group;
pub mod limits;
mod rules;
mod strays;
mod watch;
mod words;

pub use facts::Facts;
pub use group::Group;
pub use limits::{Limits, Setting, Threshold, Unit, WrongSetting};
pub use rules::RULES;
pub use watch::Watch;

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It costs something, or will.
    Warning,
    /// Connections fail now, or will within minutes.
    Critical,
}

impl Severity {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Warning, Self::Critical];

    /// The name in JSON and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// One thing that can be wrong.
#[derive(Debug)]
pub struct Rule {
    /// Its name, everywhere.
    pub name: &'static str,
    /// From where on it finds.
    pub thresholds: &'static [&'static Threshold],
    /// Finds it.
    pub judge: fn(&Facts, &Limits) -> Vec<Finding>,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The rule's name.
    pub rule: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// It in a sentence.
    pub title: String,
    /// Where it is.
    pub group: Group,
    /// Whose it is, when known.
    pub owner: Option<Owner>,
    /// How many sockets, connections, segments or ports it is about.
    pub count: u64,
    /// The numbers that it rests on, each line one.
    pub evidence: Vec<String>,
    /// What helps here, beside what the rule's page says.
    pub remedy: Vec<String>,
    /// Commands that show more.
    pub more: Vec<String>,
}

impl Finding {
    fn new(rule: &Rule, severity: Severity, title: String) -> Self {
        Self {
            rule: rule.name,
            severity,
            title,
            group: Group::default(),
            owner: None,
            count: 0,
            evidence: Vec::new(),
            remedy: Vec::new(),
            more: Vec::new(),
        }
    }

    fn about(self, group: Group, owner: Option<Owner>, count: u64) -> Self {
        Self { group, owner, count, ..self }
    }

    fn evidence(mut self, line: impl Into<String>) -> Self {
        self.evidence.push(line.into());
        self
    }

    fn evidence_if(self, holds: bool, line: impl FnOnce() -> String) -> Self {
        if holds { self.evidence(line()) } else { self }
    }

    fn remedy(mut self, line: impl Into<String>) -> Self {
        self.remedy.push(line.into());
        self
    }

    fn more(mut self, command: impl Into<String>) -> Self {
        self.more.push(command.into());
        self
    }
}

/// Findings of a rule that are told one by one at most.
const EACH: usize = 5;

/// Judges, worst first.
#[must_use]
pub fn judge(facts: &Facts, limits: &Limits) -> Vec<Finding> {
    let mut findings = Vec::new();
    for rule in RULES {
        let mut found = (rule.judge)(facts, limits);
        found.sort_by_key(|finding| std::cmp::Reverse((finding.severity, finding.count)));
        let left_out = found.split_off(found.len().min(EACH));
        if let Some(last) = found.last_mut()
            && !left_out.is_empty()
        {
            last.evidence.push(format!("and {} more like this, which are left out here", left_out.len()));
        }
        findings.extend(found);
    }
    // Stable: the order of the rules holds among those that are alike.
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

/// Counts what each rule finds, by how bad it is; none of it is left out, and 0 is told, too.
#[must_use]
pub fn count(facts: &Facts, limits: &Limits) -> Vec<(&'static str, Severity, u64)> {
    let of_rule = |rule: &&'static Rule| {
        let found = (rule.judge)(facts, limits);
        Severity::ALL.map(|severity| {
            let count = found.iter().filter(|finding| finding.severity == severity).count();
            (rule.name, severity, count as u64)
        })
    };
    RULES.iter().flat_map(of_rule).collect()
}

#[cfg(test)]
mod tests;
