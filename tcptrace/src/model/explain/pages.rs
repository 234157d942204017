//! The pages of `tcptrace explain`.
//!
//! They are text, in the files beside this one: `= WORD` begins a page, `part: text` a paragraph of it, and a line that begins
//! with `|` belongs to a drawing.

use crate::model::{explain::sent_reset, state::State, tracker::Reasons};

const STATES: &str = include_str!("states.txt");
const CAUSES: &str = include_str!("causes.txt");
const TOPICS: &str = include_str!("topics.txt");
const FINDINGS: &str = include_str!("findings.txt");
const METRICS: &str = include_str!("metrics.txt");

/// What a page is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A TCP state.
    State,
    /// Why a connection ended.
    Cause,
    /// The kernel's reason for a RST.
    Reason,
    /// Something that `doctor` finds, by the name of its rule.
    Finding,
    /// What `serve` exposes.
    Metric,
    /// Anything else.
    Topic,
}

impl Kind {
    /// The name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Cause => "cause",
            Self::Reason => "reason",
            Self::Finding => "finding",
            Self::Metric => "metric",
            Self::Topic => "topic",
        }
    }
}

/// Which part of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What it means.
    Means,
    /// How a connection gets there.
    Comes,
    /// How it leaves.
    Goes,
    /// What is normal.
    Normal,
    /// What is not.
    Wrong,
    /// What to do.
    Do,
    /// The commands that show it.
    See,
}

impl Part {
    const ALL: [Self; 7] =
        [Self::Means, Self::Comes, Self::Goes, Self::Normal, Self::Wrong, Self::Do, Self::See];

    /// The name in the files and in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Means => "means",
            Self::Comes => "comes",
            Self::Goes => "goes",
            Self::Normal => "normal",
            Self::Wrong => "wrong",
            Self::Do => "do",
            Self::See => "see",
        }
    }

    /// The heading for people.
    #[must_use]
    pub fn heading(self) -> &'static str {
        match self {
            Self::Means => "What it is",
            Self::Comes => "Comes from",
            Self::Goes => "Goes to",
            Self::Normal => "Normal",
            Self::Wrong => "Wrong",
            Self::Do => "What to do",
            Self::See => "See it",
        }
    }
}

/// A piece of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Section {
    /// A paragraph.
    Text(Part, String),
    /// A drawing, as it stands.
    Drawing(Vec<String>),
}

/// What there is to say of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The word.
    pub word: String,
    /// What it is.
    pub kind: Kind,
    /// What is said.
    pub sections: Vec<Section>,
}

impl Page {
    /// The state that it is about, if it is about one that a diagram has.
    #[must_use]
    pub fn state(&self) -> Option<State> {
        let state = self.word.parse().ok().filter(|_| self.kind == Kind::State)?;
        Some(if state == State::NEW_SYN_RECV { State::SYN_RECV } else { state })
    }
}

/// What the page of a finding says in one of its parts; empty where it says nothing.
#[must_use]
pub fn finding(rule: &str, part: Part) -> &'static str {
    let page = FINDINGS.split("\n= ").find_map(|page| {
        let (word, rest) = page.split_once('\n')?;
        (word.trim_start_matches("= ") == rule).then_some(rest)
    });
    let of_part = |line: &'static str| line.strip_prefix(part.name())?.strip_prefix(": ");
    page.and_then(|page| page.lines().find_map(of_part)).unwrap_or_default()
}

/// Every page that is written down.
#[must_use]
pub fn index() -> Vec<Page> {
    [
        (STATES, Kind::State),
        (CAUSES, Kind::Cause),
        (FINDINGS, Kind::Finding),
        (METRICS, Kind::Metric),
        (TOPICS, Kind::Topic),
    ]
    .into_iter()
    .flat_map(|(text, kind)| parse(text, kind))
    .collect()
}

fn parse(text: &str, kind: Kind) -> Vec<Page> {
    let mut pages: Vec<Page> = Vec::new();
    for line in text.lines() {
        if let Some(word) = line.strip_prefix("= ") {
            pages.push(Page { word: word.to_owned(), kind, sections: Vec::new() });
            continue;
        }
        let Some(sections) = pages.last_mut().map(|page| &mut page.sections) else { continue };
        if let Some(drawn) = line.strip_prefix('|') {
            match sections.last_mut() {
                Some(Section::Drawing(lines)) => lines.push(drawn.to_owned()),
                _ => sections.push(Section::Drawing(vec![drawn.to_owned()])),
            }
        } else if let Some((name, text)) = line.split_once(": ")
            && let Some(part) = Part::ALL.into_iter().find(|part| part.name() == name)
        {
            sections.push(Section::Text(part, text.to_owned()));
        }
    }
    pages
}

/// The page of a word, in any common spelling: any case, with `-`, `_` or blanks, with the kernel's prefix or without.
/// `reasons`: those of the running kernel.
#[must_use]
pub fn find(word: &str, pages: &[Page], reasons: &Reasons) -> Option<Page> {
    let wanted = plain(word);
    if let Some(page) = pages.iter().find(|page| plain(&page.word) == wanted) {
        return Some(page.clone());
    }
    // As Prometheus calls parts of a histogram, or as it would be called without the prefix.
    let metric =
        ["_BUCKET", "_SUM", "_COUNT"].iter().find_map(|end| wanted.strip_suffix(end)).unwrap_or(&wanted);
    let metric = pages.iter().find(|page| {
        let name = plain(&page.word);
        page.kind == Kind::Metric && (name == metric || name.strip_prefix("TCPTRACE_") == Some(metric))
    });
    if let Some(page) = metric {
        return Some(page.clone());
    }
    let bare = wanted.strip_prefix("SK_RST_REASON_").unwrap_or(&wanted);
    let mut known = reasons.values().map(|reason| &**reason);
    let name = known.find(|reason| *reason == bare || reason.strip_prefix("TCP_") == Some(bare));
    if let Some(name) = name.or_else(|| sent_reset(bare).map(|_| bare)) {
        return Some(reason(name));
    }
    let state: State = word.strip_prefix("TCP_").unwrap_or(word).parse().ok()?;
    pages.iter().find(|page| page.word == state.name()).cloned()
}

/// The page of a RST reason; of one that is not known here it says what can be said.
#[must_use]
pub fn reason(name: &str) -> Page {
    let means = sent_reset(name).map_or_else(
        || {
            "The running kernel has this reason, and nothing is written down here about it; its name is all that is known. See \
             include/net/rstreason.h of the kernel's sources."
                .to_owned()
        },
        str::to_owned,
    );
    let sections = vec![
        Section::Text(Part::Means, means),
        Section::Text(
            Part::Comes,
            "It is the kernel's reason for a RST that this host sends (enum sk_rst_reason, 6.10 on)."
                .to_owned(),
        ),
        Section::Text(Part::See, format!("tcptrace rst 5 (reason {name}), tcptrace explain reset")),
    ];
    Page { word: name.to_owned(), kind: Kind::Reason, sections }
}

fn plain(word: &str) -> String {
    word.trim().to_ascii_uppercase().replace(['-', ' '], "_")
}

/// The words most like one that there is no page for.
#[must_use]
pub fn similar(word: &str, pages: &[Page], reasons: &Reasons) -> Vec<String> {
    let wanted = plain(word);
    let names = pages.iter().map(|page| page.word.clone()).chain(reasons.values().map(ToString::to_string));
    let mut near: Vec<(usize, String)> = names
        .map(|name| {
            let other = plain(&name);
            let inside = other.contains(&wanted) || wanted.contains(&other);
            (if inside { 1 } else { distance(&wanted, &other) }, name)
        })
        .filter(|(distance, name)| *distance <= name.len().max(wanted.len()) / 2)
        .collect();
    near.sort_by_key(|(distance, _)| *distance);
    near.into_iter().map(|(_, name)| name).take(4).collect()
}

/// How many letters have to be changed, put in or taken out (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, to) in row.iter_mut().skip(1).zip(b.bytes()) {
            let change = diagonal + usize::from(from != to);
            diagonal = *cell;
            left = change.min(left + 1).min(*cell + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cause::Cause;

    fn page(word: &str) -> String {
        find(word, &index(), &Reasons::new()).map(|page| page.word).unwrap_or_default()
    }

    #[test]
    fn every_state_and_every_cause_has_a_page() {
        for state in State::all() {
            let page = find(state.name(), &index(), &Reasons::new());
            for part in Part::ALL {
                let has = |section: &Section| matches!(section, Section::Text(of, _) if *of == part);
                assert!(
                    page.as_ref().is_some_and(|page| page.sections.iter().any(has)),
                    "{state} lacks {part:?}"
                );
            }
        }
        for cause in Cause::ALL {
            assert_eq!(page(cause.name()), cause.name());
        }
    }

    #[test]
    fn every_rule_has_a_page() {
        for rule in crate::model::doctor::RULES {
            for part in [Part::Means, Part::Comes, Part::Normal, Part::Do, Part::See] {
                assert!(!finding(rule.name, part).is_empty(), "{} lacks {part:?}", rule.name);
            }
            assert_eq!(page(rule.name), rule.name);
        }
        let pages = index().into_iter().filter(|page| page.kind == Kind::Finding);
        for page in pages {
            let is_it = |rule: &&crate::model::doctor::Rule| rule.name == page.word;
            assert!(
                crate::model::doctor::RULES.iter().copied().any(|rule| is_it(&rule)),
                "no rule {}",
                page.word
            );
        }
    }

    #[test]
    fn every_line_belongs_to_a_page() {
        for text in [STATES, CAUSES, TOPICS, FINDINGS, METRICS] {
            for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('|')) {
                let part = line.split_once(": ").is_some_and(|(name, text)| {
                    Part::ALL.iter().any(|part| part.name() == name)
                        && (name == "see" || text.ends_with(['.', ')']))
                });
                assert!(part || line.starts_with("= "), "{line}");
            }
            assert!(text.lines().filter(|line| line.starts_with('|')).all(|line| line.chars().count() <= 80));
        }
    }

    #[test]
    fn words_are_found_in_any_spelling() {
        for word in ["close-wait", "CLOSE WAIT", "closewait", "TCP_CLOSE_WAIT", "Close_Wait"] {
            assert_eq!(page(word), "CLOSE_WAIT", "{word}");
        }
        assert_eq!(page("sk_rst_reason_no_socket"), "NO_SOCKET");
        assert_eq!(page("Peer-Rst"), "peer_rst");
        assert_eq!(page("handshake"), "handshake");
        assert_eq!(page("tcptrace_handshake_seconds_bucket"), "tcptrace_handshake_seconds");
        assert_eq!(page("resets_total"), "tcptrace_resets_total");
        assert_eq!(page("nonsense"), "");
    }

    #[test]
    fn a_new_reason_is_explained_as_far_as_it_can_be() {
        let reasons: Reasons = [(99, "BRAND_NEW".into()), (4, "TCP_OLD_ACK".into())].into();
        assert_eq!(find("brand-new", &index(), &reasons).map(|page| page.kind), Some(Kind::Reason));
        assert_eq!(find("old_ack", &index(), &reasons).map(|page| page.word), Some("TCP_OLD_ACK".to_owned()));
    }

    #[test]
    fn near_words_are_offered() {
        assert_eq!(
            similar("time_wiat", &index(), &Reasons::new()).first().map(String::as_str),
            Some("TIME_WAIT")
        );
        assert!(similar("fin_wait", &index(), &Reasons::new()).contains(&"FIN_WAIT1".to_owned()));
        assert!(similar("zzzzzzzzzzzz", &index(), &Reasons::new()).is_empty());
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
