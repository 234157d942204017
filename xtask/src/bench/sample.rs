//! Numbers measured several times.

use std::fmt;

/// What was measured, once per round.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample(pub(super) Vec<f64>);

impl Sample {
    pub(super) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// The value in the middle; NaN of nothing.
    pub(super) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            count if count % 2 == 1 => sorted[middle],
            _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
        }
    }

    fn least(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    fn most(&self) -> f64 {
        self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::json!({ "median": self.median(), "min": self.least(), "max": self.most(), "values": self.0 })
    }
}

/// `median (least to most)`, with as many decimals as are asked for.
impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = f.precision().unwrap_or(2);
        if self.0.is_empty() {
            return f.write_str("-");
        }
        write!(f, "{:.decimals$}", self.median())?;
        if self.0.len() > 1 {
            write!(f, " ({:.decimals$} to {:.decimals$})", self.least(), self.most())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Sample;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(Sample(vec![3.0, 1.0, 2.0]).median().to_string(), "2");
        assert_eq!(Sample(vec![4.0, 1.0, 2.0, 3.0]).median().to_string(), "2.5");
        assert_eq!(format!("{:.1}", Sample(vec![3.0, 1.0, 2.0])), "2.0 (1.0 to 3.0)");
        assert_eq!(format!("{:.1}", Sample(vec![3.0])), "3.0");
        assert_eq!(Sample::default().to_string(), "-");
    }
}
