//! Thresholds: from where on something is worth a finding. Each has a reason, and can be set.

use super::{RULES, Rule};

/// From where on something counts.
#[derive(Debug, PartialEq)]
pub struct Threshold {
    /// Its name: `count` in `--set closed-port.count=50`.
    pub name: &'static str,
    /// What it is if nobody says otherwise, in [`unit`](Self::unit).
    pub default: f64,
    /// What it counts.
    pub unit: Unit,
    /// Why it is that.
    pub why: &'static str,
}

/// What a threshold counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A number.
    Count,
    /// Of something in a second.
    PerSecond,
    /// A part of a whole.
    Percent,
    /// A time, in seconds.
    Seconds,
}

impl Unit {
    /// A value as it is written.
    #[must_use]
    pub fn text(self, value: f64) -> String {
        match self {
            Self::Count => format!("{value}"),
            Self::PerSecond => format!("{value}/s"),
            Self::Percent => format!("{value}%"),
            Self::Seconds => format!("{value}s"),
        }
    }

    fn parse(self, text: &str) -> Option<f64> {
        let text = text.trim();
        let (number, factor) = match self {
            Self::Count => (text, 1.0),
            Self::PerSecond => (text.strip_suffix("/s").unwrap_or(text), 1.0),
            Self::Percent => (text.strip_suffix('%').unwrap_or(text), 1.0),
            Self::Seconds => match text.strip_suffix("ms") {
                Some(number) => (number, 0.001),
                None => match text.strip_suffix(['s', 'm', 'h']) {
                    Some(number) if text.ends_with('m') => (number, 60.0),
                    Some(number) if text.ends_with('h') => (number, 3600.0),
                    Some(number) => (number, 1.0),
                    None => (text, 1.0),
                },
            },
        };
        let value: f64 = number.trim().parse().ok()?;
        (value.is_finite() && value >= 0.0).then_some(value * factor)
    }

    fn example(self) -> &'static str {
        match self {
            Self::Count => "a number, such as 20",
            Self::PerSecond => "a rate, such as 5/s",
            Self::Percent => "a part of a hundred, such as 80%",
            Self::Seconds => "a time, such as 30s or 5m",
        }
    }
}

/// Why a setting cannot be taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WrongSetting {
    /// It has not the form.
    #[error("`{0}` is no setting: write rule.threshold=value, such as close-wait-leak.age=30s")]
    Form(String),
    /// There is no such rule.
    #[error("there is no rule `{0}`; `tcptrace doctor --rules` lists them")]
    Rule(String),
    /// The rule has no such threshold.
    #[error("{rule} has no threshold `{name}`; it has {known}")]
    Threshold {
        /// The rule.
        rule: &'static str,
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The value is none of these.
    #[error("{rule}.{name} is {wanted}, not `{value}`")]
    Value {
        /// The rule.
        rule: &'static str,
        /// The threshold.
        name: &'static str,
        /// What it takes.
        wanted: &'static str,
        /// What was given.
        value: String,
    },
}

/// One threshold, set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setting {
    rule: &'static str,
    threshold: &'static str,
    value: f64,
}

impl Setting {
    /// From `rule.threshold` and its value.
    pub fn new(name: &str, value: &str) -> Result<Self, WrongSetting> {
        let Some((rule, threshold)) = name.trim().split_once('.') else {
            return Err(WrongSetting::Form(format!("{name}={value}")));
        };
        let spelled = rule.to_ascii_lowercase().replace('_', "-");
        let known = RULES.iter().find(|known| known.name == spelled);
        let rule = known.ok_or_else(|| WrongSetting::Rule(rule.to_owned()))?;
        let spelled = threshold.to_ascii_lowercase().replace('_', "-");
        let Some(threshold) = rule.thresholds.iter().find(|known| known.name == spelled) else {
            let known: Vec<&str> = rule.thresholds.iter().map(|known| known.name).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(WrongSetting::Threshold { rule: rule.name, name: threshold.to_owned(), known });
        };
        let wrong = || WrongSetting::Value {
            rule: rule.name,
            name: threshold.name,
            wanted: threshold.unit.example(),
            value: value.to_owned(),
        };
        let value = threshold.unit.parse(value).ok_or_else(wrong)?;
        Ok(Self { rule: rule.name, threshold: threshold.name, value })
    }
}

impl std::str::FromStr for Setting {
    type Err = WrongSetting;

    /// `rule.threshold=value`
    fn from_str(text: &str) -> Result<Self, WrongSetting> {
        let (name, value) = text.split_once('=').ok_or_else(|| WrongSetting::Form(text.to_owned()))?;
        Self::new(name, value)
    }
}

/// The thresholds that hold: the defaults, but for those that were set. Of several the last counts.
#[derive(Clone, Debug, Default)]
pub struct Limits(pub Vec<Setting>);

impl Limits {
    /// A rule's threshold, in its unit.
    #[must_use]
    pub fn of(&self, rule: &Rule, threshold: &Threshold) -> f64 {
        let is_it = |set: &&Setting| set.rule == rule.name && set.threshold == threshold.name;
        self.0.iter().rev().find(is_it).map_or(threshold.default, |set| set.value)
    }

    /// The same as a whole number.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "none is negative, and the cast saturates"
    )]
    pub fn count(&self, rule: &Rule, threshold: &Threshold) -> u64 {
        self.of(rule, threshold) as u64
    }

    /// A time in ns.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "none is negative, and the cast saturates"
    )]
    pub fn ns(&self, rule: &Rule, threshold: &Threshold) -> u64 {
        (self.of(rule, threshold) * 1e9) as u64
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn settings_are_read_in_their_units() {
        assert_eq!(Unit::Seconds.parse("2m"), Some(120.0));
        assert_eq!(Unit::Seconds.parse("500ms"), Some(0.5));
        assert_eq!(Unit::Seconds.parse("7"), Some(7.0));
        assert_eq!(Unit::Percent.parse("80%"), Some(80.0));
        assert_eq!(Unit::PerSecond.parse("5/s"), Some(5.0));
        for (unit, text) in
            [(Unit::Count, "-1"), (Unit::Count, "NaN"), (Unit::Seconds, "2d"), (Unit::Percent, "")]
        {
            assert_eq!(unit.parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_set_is_named() {
        let error = |text: &str| text.parse::<Setting>().unwrap_err().to_string();
        assert!(error("nonsense").contains("rule.threshold=value"));
        assert!(error("no-such.count=1").contains("no rule `no-such`"));
        assert!(error("closed-port.no=1").contains("closed-port has no threshold `no`; it has count"));
        assert!(error("closed-port.count=x").contains("a number, such as 20, not `x`"));
    }

    #[test]
    fn the_last_setting_holds() {
        let rule = RULES.iter().find(|rule| rule.name == "closed-port").unwrap();
        let count = rule.thresholds.iter().find(|threshold| threshold.name == "count").unwrap();
        let set = |text: &str| text.parse().unwrap();
        let limits = Limits(vec![set("closed-port.count=7"), set("closed_port.count=9")]);
        assert_eq!(limits.count(rule, count), 9);
        assert!((Limits::default().of(rule, count) - count.default).abs() < 1e-9);
    }
}
