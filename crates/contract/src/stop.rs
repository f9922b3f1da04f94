//! Stop rules: when a stage may end before all its units are done.
//!
//! A rule is a value among the arguments, so it is part of what a result is a function of. The platform reads it and
//! looks at prefixes of units alone; a kernel never sees more of it than the argument's text.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::envelope::suggestion;
use crate::failure::{Failure, FailureCode};

/// Largest budget, items: what canonical JSON carries exactly.
pub const BUDGET_MAX: u64 = (1 << 53) - 1;
/// Members of a rule.
const MEMBERS: [&str; 4] = ["half_width", "confidence", "variance_change", "budget"];

/// When a stage may end early: at the first checkpoint where `half_width` or `variance_change` holds, and at `budget`
/// items in any case.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopRule {
    /// Half the width of the mean's confidence interval, as a share of the mean: above 0, at most 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub half_width: Option<f64>,
    /// The confidence of that interval.
    #[serde(default)]
    pub confidence: Confidence,
    /// Change of the variance since the checkpoint before, as a share of it: above 0, at most 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variance_change: Option<f64>,
    /// Items at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<u64>,
}

/// Confidences an interval can have: a closed set, so that no quantile is ever computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub enum Confidence {
    /// 0.90
    P90,
    /// 0.95
    #[default]
    P95,
    /// 0.99
    P99,
    /// 0.999
    P999,
}

/// A number that is no confidence of the closed set.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{found} is none of 0.9, 0.95, 0.99, 0.999")]
pub struct UnknownConfidence {
    /// The number.
    pub found: f64,
}

impl Confidence {
    /// Every confidence, rising.
    pub const ALL: [Self; 4] = [Self::P90, Self::P95, Self::P99, Self::P999];

    /// The probability.
    #[must_use]
    pub const fn probability(self) -> f64 {
        match self {
            Self::P90 => 0.9,
            Self::P95 => 0.95,
            Self::P99 => 0.99,
            Self::P999 => 0.999,
        }
    }

    /// Half the width of the interval, in standard errors: the normal quantile of `(1 + probability) / 2`.
    #[must_use]
    pub const fn quantile(self) -> f64 {
        match self {
            Self::P90 => 1.644_853_626_951_472_7,
            Self::P95 => 1.959_963_984_540_054_2,
            Self::P99 => 2.575_829_303_548_901,
            Self::P999 => 3.290_526_731_491_895,
        }
    }
}

impl TryFrom<f64> for Confidence {
    type Error = UnknownConfidence;

    fn try_from(found: f64) -> Result<Self, UnknownConfidence> {
        Self::ALL.into_iter().find(|c| c.probability() == found).ok_or(UnknownConfidence { found })
    }
}

impl From<Confidence> for f64 {
    fn from(confidence: Confidence) -> Self {
        confidence.probability()
    }
}

impl StopRule {
    /// Reads the rule that the argument `argument` holds.
    ///
    /// # Errors
    /// `request.arguments` with a pointer below `/args/<argument>` at the first member that breaks a rule.
    pub fn parse(argument: &str, value: &Value) -> Result<Self, Failure> {
        let place = Place { argument };
        let Some(members) = value.as_object() else {
            return Err(place.refuse("", &format!("expected an object with {}, found {value}", MEMBERS.join(", "))));
        };
        if let Some(unknown) = members.keys().find(|name| !MEMBERS.contains(&name.as_str())) {
            let fix = suggestion(unknown, &MEMBERS);
            return Err(place.refuse(unknown, &format!("no such member; expected one of {}{fix}", MEMBERS.join(", "))));
        }
        let rule = Self {
            half_width: place.share(members, "half_width")?,
            confidence: place.confidence(members)?.unwrap_or_default(),
            variance_change: place.share(members, "variance_change")?,
            budget: place.budget(members)?,
        };
        if !rule.has_target() && rule.budget.is_none() {
            return Err(place.refuse("", "nothing to stop at; give half_width, variance_change or budget"));
        }
        if members.contains_key("confidence") && rule.half_width.is_none() {
            return Err(
                place.refuse("confidence", "it belongs to half_width, which is not given; add it or leave both out")
            );
        }
        Ok(rule)
    }

    /// Whether anything is to be looked at before the end.
    #[must_use]
    pub const fn has_target(&self) -> bool {
        self.half_width.is_some() || self.variance_change.is_some()
    }
}

/// Where the members of a rule stand.
struct Place<'a> {
    argument: &'a str,
}

impl Place<'_> {
    fn refuse(&self, member: &str, rule: &str) -> Failure {
        let escaped = |name: &str| name.replace('~', "~0").replace('/', "~1");
        let (mut pointer, mut path) = (format!("/args/{}", escaped(self.argument)), format!("args.{}", self.argument));
        if !member.is_empty() {
            pointer.push_str(&format!("/{}", escaped(member)));
            path.push_str(&format!(".{member}"));
        }
        Failure::new(FailureCode::RequestArguments, format!("{path}: {rule}")).at(pointer)
    }

    fn share(&self, members: &Map<String, Value>, name: &str) -> Result<Option<f64>, Failure> {
        let Some(value) = members.get(name) else { return Ok(None) };
        match value.as_f64().filter(|share| *share > 0.0 && *share <= 1.0) {
            Some(share) => Ok(Some(share)),
            None => Err(self
                .refuse(name, &format!("expected a number above 0 and at most 1, found {value}; 0.01 is one percent"))),
        }
    }

    fn confidence(&self, members: &Map<String, Value>) -> Result<Option<Confidence>, Failure> {
        let Some(value) = members.get("confidence") else { return Ok(None) };
        match value.as_f64().and_then(|found| Confidence::try_from(found).ok()) {
            Some(confidence) => Ok(Some(confidence)),
            None => Err(self.refuse("confidence", &format!("expected one of 0.9, 0.95, 0.99, 0.999, found {value}"))),
        }
    }

    fn budget(&self, members: &Map<String, Value>) -> Result<Option<u64>, Failure> {
        let Some(value) = members.get("budget") else { return Ok(None) };
        match value.as_u64().or_else(|| whole(value.as_f64()?)).filter(|items| (1..=BUDGET_MAX).contains(items)) {
            Some(items) => Ok(Some(items)),
            None => {
                let rule = format!("expected a whole number of items from 1 to {BUDGET_MAX}, found {value}");
                Err(self.refuse("budget", &rule))
            }
        }
    }
}

/// A double that is a whole number JSON carries exactly.
fn whole(number: f64) -> Option<u64> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and within 0 to 2^53")]
    ((0.0..9_007_199_254_740_992.0).contains(&number) && number.fract() == 0.0).then_some(number as u64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use super::*;
    use serde_json::json;

    #[test]
    fn a_rule_reads_and_comes_back_as_it_was() {
        let rule = StopRule::parse("stop", &json!({"half_width": 0.01})).unwrap();
        assert_eq!((rule.half_width, rule.confidence, rule.budget), (Some(0.01), Confidence::P95, None));
        assert!(rule.has_target());
        let all = json!({"half_width": 0.5, "confidence": 0.999, "variance_change": 1, "budget": 1e6});
        let rule = StopRule::parse("stop", &all).unwrap();
        assert_eq!(
            (rule.confidence, rule.variance_change, rule.budget),
            (Confidence::P999, Some(1.0), Some(1_000_000))
        );
        let text = crate::canon::json(&rule).unwrap();
        assert_eq!(text, r#"{"budget":1000000,"confidence":0.999,"half_width":0.5,"variance_change":1}"#);
        assert_eq!(serde_json::from_str::<StopRule>(&text).unwrap(), rule);
        assert!(!StopRule::parse("stop", &json!({"budget": 1})).unwrap().has_target());
    }

    #[test]
    fn each_mistake_names_its_place_and_its_rule() {
        for (value, pointer, rule) in [
            (json!(0.01), "/args/stop", "expected an object"),
            (json!({}), "/args/stop", "nothing to stop at"),
            (json!({"confidence": 0.95}), "/args/stop", "nothing to stop at"),
            (json!({"budget": 5, "confidence": 0.95}), "/args/stop/confidence", "belongs to half_width"),
            (json!({"half_widht": 0.1}), "/args/stop/half_widht", "did you mean \"half_width\""),
            (json!({"half_width": 0}), "/args/stop/half_width", "above 0 and at most 1, found 0"),
            (json!({"half_width": 1.01}), "/args/stop/half_width", "at most 1"),
            (json!({"half_width": null}), "/args/stop/half_width", "found null"),
            (json!({"half_width": 0.1, "confidence": 0.9500001}), "/args/stop/confidence", "one of 0.9, 0.95"),
            (json!({"half_width": 0.1, "confidence": "95%"}), "/args/stop/confidence", "found \"95%\""),
            (json!({"variance_change": -0.1}), "/args/stop/variance_change", "above 0"),
            (json!({"budget": 0}), "/args/stop/budget", "from 1 to"),
            (json!({"budget": 1.5}), "/args/stop/budget", "whole number"),
            (json!({"budget": 1e300}), "/args/stop/budget", "whole number"),
        ] {
            let failure = StopRule::parse("stop", &value).unwrap_err();
            assert_eq!(failure.pointer.as_deref(), Some(pointer), "{failure}");
            assert!(failure.detail.contains(rule), "{failure}");
        }
        let odd = StopRule::parse("a/b", &json!(1)).unwrap_err();
        assert_eq!(odd.pointer.as_deref(), Some("/args/a~1b"));
    }

    /// The quantiles against the distribution they belong to: a series for the normal integral, in no hurry.
    #[test]
    fn quantiles_are_those_of_the_normal_distribution() {
        for confidence in Confidence::ALL {
            let z = confidence.quantile();
            let (mut term, mut sum) = (z, z);
            for k in 1..400 {
                term *= z * z / f64::from(2 * k + 1);
                sum += term;
            }
            let inside = 2.0 * sum * (-z * z / 2.0).exp() / (2.0 * core::f64::consts::PI).sqrt();
            assert!((inside - confidence.probability()).abs() < 1e-14, "{inside}");
        }
    }
}
