//! The configuration file.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use toml::{Table, Value};

use crate::model::doctor::Setting;

/// What is read where nobody names another file, if it is there.
const USUAL: &str = "/etc/tcptrace/doctor.toml";

/// The thresholds that the file sets: the one that was named, or the usual one, if it is there and may be read.
///
/// A table for each rule, in it the thresholds: `[close-wait-leak]`, `age = "30s"`, `old = 20`.
pub fn settings(named: Option<&Path>) -> anyhow::Result<Vec<Setting>> {
    let path = named.map_or_else(|| PathBuf::from(USUAL), Path::to_path_buf);
    let text = match fs::read_to_string(&path) {
        Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        // Nobody asked for it, and the usual thresholds will do.
        Err(error) if named.is_none() && error.kind() == io::ErrorKind::PermissionDenied => {
            log::warn!("the thresholds in {} are not used: {error}", path.display());
            return Ok(Vec::new());
        }
        text => text.map_err(|error| {
            anyhow::anyhow!(
                "cannot read the configuration\nwhy: {}: {error}\nfix: name another file with --config",
                path.display()
            )
        })?,
    };
    parse(&text).map_err(|why| {
        anyhow::anyhow!("cannot use the configuration {}\nwhy: {why}\nfix: {FORM}", path.display())
    })
}

/// What a file looks like.
const FORM: &str = "a table for each rule, in it its thresholds: [close-wait-leak] and below it age = \"30s\"; \
    tcptrace doctor --rules has all of them";

/// Fails with what is wrong, on one line.
fn parse(text: &str) -> Result<Vec<Setting>, String> {
    let rules: Table = text.parse().map_err(|error| wrong_syntax(text, &error))?;
    let mut settings = Vec::new();
    for (rule, thresholds) in &rules {
        let Value::Table(thresholds) = thresholds else {
            return Err(format!("`{rule}` is no table"));
        };
        for (threshold, value) in thresholds {
            let value = match value {
                Value::String(text) => text.clone(),
                Value::Integer(number) => number.to_string(),
                Value::Float(number) => number.to_string(),
                other => {
                    let is = other.type_str();
                    return Err(format!("{rule}.{threshold} is a number or a text, and here of type {is}"));
                }
            };
            let setting = Setting::new(&format!("{rule}.{threshold}"), &value);
            settings.push(setting.map_err(|error| error.to_string())?);
        }
    }
    Ok(settings)
}

fn wrong_syntax(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    format!("line {line}: {}", error.message().replace('\n', ", "))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_table_for_each_rule() {
        let text = "[close-wait-leak]\nage = \"30s\"\nold = 20\n\n[closed-port]\ncount = 5\n";
        let wanted: Vec<Setting> =
            ["close-wait-leak.age=30s", "close-wait-leak.old=20", "closed-port.count=5"]
                .iter()
                .map(|text| text.parse().unwrap())
                .collect();
        assert_eq!(parse(text).unwrap(), wanted);
        assert_eq!(settings(None).unwrap(), []);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error = |text: &str| parse(text).unwrap_err();
        assert!(error("age = 3").contains("`age` is no table"));
        assert!(error("[no-such]\na = 1").contains("no rule `no-such`"));
        assert!(error("[closed-port]\ncount = \"many\"").contains("a number"));
        assert!(error("[closed-port\n").contains("line 1"), "{}", error("[closed-port\n"));
        let missing = settings(Some(Path::new("/nowhere/doctor.toml"))).unwrap_err().to_string();
        assert!(missing.contains("/nowhere/doctor.toml") && missing.contains("fix: "), "{missing}");
    }
}
