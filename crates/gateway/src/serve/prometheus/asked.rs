//! What a caller of Prometheus' API asks: parameters of the URL, or of a form.

use std::time::Duration;

use api::{ApiError, Timestamp};
use axum::{
    body::{Body, to_bytes},
    http::{Method, request::Parts},
};
use telemetry::{metrics::Matcher, promql};

use super::envelope::Refusal;

/// Longest that a query may take, and takes where the caller names no time.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Parameters of a call.
pub(super) struct Asked {
    pairs: Vec<(String, String)>,
    now_ms: i64,
}

impl Asked {
    /// Reads them.
    pub(super) async fn read(parts: &Parts, body: Body, limit: usize, now: Timestamp) -> Result<Self, Refusal> {
        let unreadable =
            |error: &dyn std::fmt::Display| Refusal::BadData(format!("the parameters can't be read: {error}"));
        let query = parts.uri.query().unwrap_or_default();
        let mut pairs: Vec<(String, String)> = serde_urlencoded::from_str(query).map_err(|e| unreadable(&e))?;
        if parts.method == Method::POST {
            let form = to_bytes(body, limit).await.map_err(|e| unreadable(&e))?;
            let form: Vec<(String, String)> = serde_urlencoded::from_bytes(&form).map_err(|e| unreadable(&e))?;
            pairs.extend(form);
        }
        Ok(Self {
            pairs,
            now_ms: now.as_millisecond(),
        })
    }

    fn get(&self, name: &str) -> Option<&str> {
        let mut all = self
            .pairs
            .iter()
            .filter(|(key, value)| key == name && !value.is_empty());
        all.next().map(|(_, value)| value.as_str())
    }

    fn needed(&self, name: &'static str) -> Result<&str, Refusal> {
        self.get(name).ok_or_else(|| invalid(name, "it is missing"))
    }

    /// The query.
    pub(super) fn query(&self) -> Result<promql::Query, Refusal> {
        Ok(promql::Query::parse(self.needed("query")?)?)
    }

    /// The moment that is asked for: now, where none is named.
    pub(super) fn time(&self) -> Result<i64, Refusal> {
        self.moment("time").map(|time| time.unwrap_or(self.now_ms))
    }

    /// Start and end that must be named.
    pub(super) fn range(&self) -> Result<(i64, i64), Refusal> {
        let bound = |name| self.moment(name)?.ok_or_else(|| invalid(name, "it is missing"));
        Ok((bound("start")?, bound("end")?))
    }

    /// Start and end that may be named: the last hour otherwise.
    pub(super) fn recent(&self) -> Result<(i64, i64), Refusal> {
        let end = self.moment("end")?.unwrap_or(self.now_ms);
        let start = self.moment("start")?.unwrap_or(end.saturating_sub(3_600_000));
        if end < start {
            return Err(invalid("end", "it lies before the start"));
        }
        Ok((start, end))
    }

    /// The step, in milliseconds.
    pub(super) fn step(&self) -> Result<i64, Refusal> {
        let text = self.needed("step")?;
        let step = span(text).ok_or_else(|| invalid("step", "seconds such as 15, or a duration such as 5m"))?;
        Ok(i64::try_from(step.as_millis()).unwrap_or(i64::MAX))
    }

    /// How long the answer may take.
    pub(super) fn timeout(&self) -> Result<Duration, Refusal> {
        match self.get("timeout") {
            None => Ok(TIMEOUT),
            Some(text) => span(text)
                .map(|asked| asked.min(TIMEOUT))
                .ok_or_else(|| invalid("timeout", "seconds such as 15, or a duration such as 5m")),
        }
    }

    /// How many results are wanted. `None`: all.
    pub(super) fn limit(&self) -> Result<Option<usize>, Refusal> {
        let number = |text: &str| text.parse().map_err(|_| invalid("limit", "it isn't a number"));
        // 0 is none, by Prometheus' documentation.
        Ok(self.get("limit").map(number).transpose()?.filter(|limit| *limit > 0))
    }

    /// Of which metric. `None`: of all.
    pub(super) fn metric(&self) -> Option<&str> {
        self.get("metric")
    }

    /// The selectors whose union is asked for.
    pub(super) fn selectors(&self) -> Result<Vec<Vec<Matcher>>, Refusal> {
        let selectors = self.pairs.iter().filter(|(name, _)| name == "match[]");
        selectors.map(|(_, text)| Ok(promql::selector(text)?)).collect()
    }

    fn moment(&self, name: &'static str) -> Result<Option<i64>, Refusal> {
        let moment = |text| moment(text).ok_or_else(|| invalid(name, "seconds since 1970, or RFC 3339"));
        self.get(name).map(moment).transpose()
    }
}

fn invalid(name: &str, why: &str) -> Refusal {
    Refusal::BadData(format!("invalid parameter \"{name}\": {why}"))
}

/// Milliseconds since 1970, of seconds or of RFC 3339.
fn moment(text: &str) -> Option<i64> {
    /// Timestamps beyond aren't in any calendar that we print; Prometheus' own bounds are farther out.
    const FAR_S: f64 = 1e11;
    match text.parse::<f64>() {
        Ok(seconds) => (seconds.abs() <= FAR_S).then(|| (seconds * 1000.0).round() as i64),
        Err(_) => text.parse::<Timestamp>().ok().map(|at| at.as_millisecond()),
    }
}

/// A span above 0, of seconds or as PromQL writes it.
fn span(text: &str) -> Option<Duration> {
    let parsed = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => promql::duration(text),
    };
    parsed.filter(|span| span.as_millis() > 0)
}

/// What access control says, in Prometheus' words.
impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_spans() {
        assert_eq!(moment("1700000000.1234"), Some(1_700_000_000_123));
        assert_eq!(moment("2023-11-14T22:13:20.5Z"), Some(1_700_000_000_500));
        assert_eq!((moment("NaN"), moment("1e300"), moment("soon")), (None, None, None));
        assert_eq!(span("15"), Some(Duration::from_secs(15)));
        assert_eq!(span("1m30s"), Some(Duration::from_secs(90)));
        for bad in ["0", "-1", "1e300", "NaN", "", "5 m", "0.0001"] {
            assert_eq!(span(bad), None, "{bad}");
        }
    }
}
