//! What a deployment's `options` say about its run: how long it may take, and which lane it is in.
//!
//! Heat passes `options` on as they are: a map or null, for the hook. Two keys of it are read here, for all
//! hooks alike; the others are the hook's own business.

use std::time::Duration;

use serde_json::Value;

use crate::document::plain_text;

/// Longest time that `timeout` may name.
pub const TIMEOUT_S_MAX: u64 = 366 * 86_400;

/// The options of one deployment that are about its run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// `timeout`: how long it may run, in seconds in the document; zero: for ever. `None`: not given.
    pub timeout: Option<Duration>,
    /// `lane`: entries of one lane run one after the other, those of different lanes may run side by side.
    pub lane: Option<String>,
}

impl RunOptions {
    /// Reads them from an entry's `options`; null, absent and what is no map has none.
    ///
    /// # Errors
    /// What is wrong, with the value and what it should be.
    pub fn read(options: Option<&Value>) -> Result<Self, String> {
        let option =
            |name: &str| options.and_then(|o| o.get(name)).filter(|value| !is_unset(value));
        Ok(Self {
            timeout: option("timeout").map(timeout).transpose()?,
            lane: option("lane").map(lane).transpose()?,
        })
    }

    /// How long the run may take, where `otherwise` holds for those that do not say; `None`: for ever.
    pub fn timeout_or(&self, otherwise: Duration) -> Option<Duration> {
        Some(self.timeout.unwrap_or(otherwise)).filter(|timeout| !timeout.is_zero())
    }
}

fn is_unset(value: &Value) -> bool {
    value.is_null() || value.as_str().is_some_and(|text| text.trim().is_empty())
}

fn timeout(value: &Value) -> Result<Duration, String> {
    let seconds = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    // A fraction is fine, "inf" and "nan" are numbers for the parser only.
    seconds
        .filter(|seconds: &f64| (0.0..=TIMEOUT_S_MAX as f64).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| {
            let shown = plain_text(value);
            format!(
                "options.timeout is {shown:?}, it must be a number of seconds from 0 (no limit) to {TIMEOUT_S_MAX}"
            )
        })
}

fn lane(value: &Value) -> Result<String, String> {
    match value {
        Value::String(_) | Value::Number(_) => Ok(plain_text(value)),
        _ => Err("options.lane must be a text, the lane's name".into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(options: Value) -> Result<RunOptions, String> {
        RunOptions::read(Some(&options))
    }

    #[test]
    fn a_timeout_is_a_number_of_seconds_or_its_text() {
        for (value, ms) in [
            (json!(90), 90_000),
            (json!("90"), 90_000),
            (json!(" 1.5 "), 1_500),
            (json!(0.25), 250),
            (json!(0), 0),
        ] {
            let timeout = read(json!({ "timeout": value })).unwrap().timeout;
            assert_eq!(timeout, Some(Duration::from_millis(ms)), "{value}");
        }
    }

    #[test]
    fn options_that_say_nothing_about_the_run_are_fine() {
        assert_eq!(RunOptions::read(None).unwrap(), RunOptions::default());
        for options in [
            json!(null),
            json!({}),
            json!("text"),
            json!({"timeout": null, "lane": ""}),
            json!({"tags": "a"}),
        ] {
            assert_eq!(read(options.clone()).unwrap(), RunOptions::default(), "{options}");
        }
    }

    #[test]
    fn a_timeout_that_is_no_time_is_named_with_what_it_should_be() {
        for value in [
            json!("soon"),
            json!(-1),
            json!("inf"),
            json!("NaN"),
            json!([5]),
            json!(true),
            json!(1e12),
        ] {
            let error = read(json!({ "timeout": value })).unwrap_err();
            assert!(error.starts_with("options.timeout is \""), "{error}");
            assert!(error.contains("must be a number of seconds from 0 (no limit) to"), "{error}");
        }
    }

    #[test]
    fn zero_means_no_limit_wherever_it_is_said() {
        let (hour, none) = (Duration::from_secs(3600), Duration::ZERO);
        let said = |timeout| RunOptions { timeout, lane: None };
        assert_eq!(said(None).timeout_or(hour), Some(hour));
        assert_eq!(said(None).timeout_or(none), None);
        assert_eq!(said(Some(none)).timeout_or(hour), None);
        assert_eq!(said(Some(hour)).timeout_or(none), Some(hour));
    }

    #[test]
    fn a_lane_is_a_text() {
        assert_eq!(read(json!({"lane": "db"})).unwrap().lane.as_deref(), Some("db"));
        assert_eq!(read(json!({"lane": 2})).unwrap().lane.as_deref(), Some("2"));
        assert!(read(json!({"lane": ["db"]})).is_err());
    }
}
