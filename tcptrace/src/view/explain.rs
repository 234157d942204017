//! The pages of `tcptrace explain`, for people and as JSON. No line is longer than 80 columns.

use std::fmt::Write as _;

use anstyle::Style;
use serde_json::{Map, Value, json};

use super::diagram;
use crate::model::{
    explain::{self, Kind, Page, Part, Section},
    state::State,
    tracker::Reasons,
};

/// Columns of a line at most.
const COLUMNS: usize = 80;
/// Columns before the text of a paragraph.
const INDENT: usize = 13;

/// A page for people.
#[must_use]
pub fn text(page: &Page, colored: bool) -> String {
    let mut out = String::new();
    let bold = if colored { Style::new().bold() } else { Style::new() };
    let what = match page.kind {
        Kind::State => "a state",
        Kind::Cause => "a cause",
        Kind::Reason => "a reason for a RST",
        Kind::Finding => "a finding of doctor",
        Kind::Metric => "a metric of serve",
        Kind::Topic => "",
    };
    let _ = writeln!(out, "{bold}{}{bold:#}{}{what}", page.word, if what.is_empty() { "" } else { ": " });
    for section in &page.sections {
        out.push('\n');
        match section {
            Section::Text(part, text) => {
                let _ = write!(out, "{bold}{:<INDENT$}{bold:#}", part.heading());
                if *part == Part::See {
                    // A command that is to be copied stays on one line.
                    let between = format!("\n{:INDENT$}", "");
                    out.push_str(&text.split(", ").collect::<Vec<_>>().join(&between));
                    out.push('\n');
                } else {
                    out.push_str(&wrapped(text, INDENT, INDENT, COLUMNS));
                }
            }
            Section::Drawing(lines) => lines.iter().for_each(|line| {
                out.push_str(line.trim_end());
                out.push('\n');
            }),
        }
    }
    if let Some(state) = page.state() {
        out.push('\n');
        draw(&mut out, Some(state));
    }
    out
}

fn draw(out: &mut String, state: Option<State>) {
    for (line, _) in diagram::lines(state, &[]) {
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

/// Text in lines of so many columns at most. The first begins at the column `first`, the others at `indent`.
pub(super) fn wrapped(text: &str, first: usize, indent: usize, columns: usize) -> String {
    let mut out = String::new();
    let (mut column, mut empty) = (first, true);
    for word in text.split_whitespace() {
        let width = word.chars().count();
        if !empty && column + 1 + width > columns {
            let _ = write!(out, "\n{:indent$}", "");
            column = indent;
        } else if !empty {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += width;
        empty = false;
    }
    out.push('\n');
    out
}

/// The state machine and all words.
#[must_use]
pub fn index(pages: &[Page], reasons: &Reasons, colored: bool) -> String {
    let bold = if colored { Style::new().bold() } else { Style::new() };
    let mut out = String::new();
    let _ = writeln!(out, "{bold}The states of a connection{bold:#}, as Linux has them\n");
    draw(&mut out, None);
    out.push_str("\nA RST, or an answer that does not come, leads from any state to CLOSED.\n");
    let groups = [
        (Kind::Topic, "Words"),
        (Kind::State, "States"),
        (Kind::Cause, "Causes"),
        (Kind::Finding, "Findings"),
        (Kind::Metric, "Metrics"),
        (Kind::Reason, "Reasons"),
    ];
    for (kind, title) in groups {
        let words: Vec<&str> = match kind {
            Kind::Reason => reasons.values().map(|reason| &**reason).collect(),
            kind => pages.iter().filter(|page| page.kind == kind).map(|page| &*page.word).collect(),
        };
        if !words.is_empty() {
            let _ = write!(out, "\n{bold}{title:<INDENT$}{bold:#}");
            out.push_str(&wrapped(&words.join(" "), INDENT, INDENT, COLUMNS));
        }
    }
    out.push_str("\n`tcptrace explain WORD` says what it means and what to do.\n");
    out
}

/// A page as a JSON object on a line.
#[must_use]
pub fn json(page: &Page) -> String {
    let mut object = Map::new();
    object.insert("kind".to_owned(), json!("explanation"));
    object.insert("word".to_owned(), json!(page.word));
    object.insert("of".to_owned(), json!(page.kind.name()));
    for section in &page.sections {
        let (name, text) = match section {
            Section::Text(part, text) => (part.name(), text.clone()),
            Section::Drawing(lines) => ("drawing", lines.join("\n")),
        };
        object.insert(name.to_owned(), json!(text));
    }
    Value::Object(object).to_string() + "\n"
}

/// All words as JSON, an object on a line for each.
#[must_use]
pub fn index_json(pages: &[Page], reasons: &Reasons) -> String {
    let reasons = reasons.values().map(|reason| explain::reason(reason));
    pages.iter().cloned().chain(reasons).map(|page| json(&page)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::explain::{find, index as pages};

    fn shown(word: &str) -> String {
        find(word, &pages(), &Reasons::new()).map(|page| text(&page, false)).unwrap_or_default()
    }

    #[test]
    fn pages_for_people() {
        insta::assert_snapshot!("close_wait", shown("CLOSE_WAIT"));
        insta::assert_snapshot!("teardown", shown("teardown"));
        insta::assert_snapshot!("handshake", shown("handshake"));
        insta::assert_snapshot!("no_socket", shown("NO_SOCKET"));
        let reasons: Reasons = [(1, "NOT_SPECIFIED".into()), (2, "NO_SOCKET".into())].into();
        insta::assert_snapshot!("index", index(&pages(), &reasons, false));
    }

    #[test]
    fn nothing_is_wider_than_a_terminal() {
        let all = pages().iter().map(|page| text(page, false)).collect::<String>();
        for line in all.lines().chain(index(&pages(), &Reasons::new(), false).lines()) {
            assert!(line.chars().count() <= COLUMNS && line == line.trim_end(), "{line:?}");
        }
    }

    #[test]
    fn json_is_an_object_on_a_line() {
        for line in index_json(&pages(), &Reasons::new()).lines() {
            let object: Value = serde_json::from_str(line).unwrap_or_default();
            assert!(object["word"].is_string() && object["means"].is_string(), "{line}");
        }
    }
}
