//! Queries and what they come to, by hand. The same language is compared with a real Prometheus where the gateway is
//! tested.

use std::time::{Duration, Instant};

use crate::metrics::{Labels, Matcher, MetricError, NAME_LABEL, Series};

use super::{Answer, LabelSet, Limits, PromqlError, Query, Source};

/// Three counters of 10 min, a sample each 10 s, that grow by 1, 2 and 3 a sample; and two temperatures, of which one
/// ends after 5 min.
struct World(Vec<Series>);

fn world() -> World {
    let series = |name: &str, labels: &[(&str, &str)], samples: i64, value: &dyn Fn(i64) -> f64| Series {
        labels: Labels {
            name: name.to_owned(),
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        },
        points: (0..=samples).map(|n| (n * 10_000, value(n))).collect(),
    };
    World(vec![
        series("requests_total", &[("i", "0"), ("job", "a")], 60, &|n| n as f64),
        series("requests_total", &[("i", "1"), ("job", "a")], 60, &|n| n as f64 * 2.0),
        series("requests_total", &[("i", "0"), ("job", "b")], 60, &|n| n as f64 * 3.0),
        series("temp", &[("job", "a")], 60, &|_| 10.0),
        series("temp", &[("job", "b")], 30, &|_| 20.5),
    ])
}

impl Source for World {
    fn select(&self, matchers: &[Matcher], from_ms: i64, to_ms: i64) -> Result<Vec<Series>, MetricError> {
        let meant = self.0.iter().filter(|one| {
            let mut all = matchers.iter();
            all.all(|matcher| matcher.matches(one.labels.get(matcher.label()).unwrap_or_default()))
        });
        let cut = meant.map(|one| {
            let points = one.points.iter().copied();
            Series {
                labels: one.labels.clone(),
                points: points.filter(|(at, _)| (from_ms..=to_ms).contains(at)).collect(),
            }
        });
        Ok(cut.collect())
    }
}

fn limits() -> Limits {
    Limits {
        samples: 10_000,
        points: 10_000,
        deadline: Instant::now() + Duration::from_secs(60),
    }
}

fn shown(labels: &LabelSet) -> String {
    let name = labels.get(NAME_LABEL).map_or("", String::as_str);
    let others = labels.iter().filter(|(label, _)| *label != NAME_LABEL);
    let others: Vec<String> = others.map(|(label, value)| format!("{label}={value}")).collect();
    format!("{name}{{{}}}", others.join(","))
}

/// The answer at 10 min, in words; numbers to nine digits.
fn instant(query: &str) -> Result<String, PromqlError> {
    let number = |value: f64| format!("{}", (value * 1e9).round() / 1e9);
    Ok(match Query::parse(query)?.instant(&world(), 600_000, &limits())? {
        Answer::Scalar(value) => number(value),
        Answer::Text(text) => format!("{text:?}"),
        Answer::Vector(series) => {
            let lines = series
                .iter()
                .map(|(labels, value)| format!("{} {}", shown(labels), number(*value)));
            lines.collect::<Vec<_>>().join("; ")
        }
        Answer::Matrix(series) => {
            let lines = series
                .iter()
                .map(|(labels, points)| format!("{} {points:?}", shown(labels)));
            lines.collect::<Vec<_>>().join("; ")
        }
    })
}

#[test]
fn values_of_a_moment() {
    let cases = [
        ("1 + 2 * 3 ^ 2 - -1", "20"),
        ("\"text\"", "\"text\""),
        ("time()", "600"),
        (
            "requests_total{i=\"0\"}",
            "requests_total{i=0,job=a} 60; requests_total{i=0,job=b} 180",
        ),
        ("requests_total{job!~\"a|c\"} offset 5m", "requests_total{i=0,job=b} 90"),
        ("temp @ 60", "temp{job=a} 10; temp{job=b} 20.5"),
        ("{__name__=~\"te.*\"}", "temp{job=a} 10"),
        ("-temp", "{job=a} -10"),
        ("temp[15s]", "temp{job=a} [(590000, 10.0), (600000, 10.0)]"),
        (
            "temp[15s] offset 5m",
            "temp{job=a} [(290000, 10.0), (300000, 10.0)]; \
            temp{job=b} [(290000, 20.5), (300000, 20.5)]",
        ),
        // Aggregations.
        ("sum by (job) (rate(requests_total[1m]))", "{job=a} 0.3; {job=b} 0.3"),
        ("sum without (i) (requests_total)", "{job=a} 180; {job=b} 180"),
        ("sum(requests_total) / count(requests_total)", "{} 120"),
        ("avg(requests_total)", "{} 120"),
        ("min(requests_total)", "{} 60"),
        ("max by (i) (requests_total)", "{i=0} 180; {i=1} 120"),
        ("quantile by (i) (0.5, requests_total)", "{i=0} 120; {i=1} 120"),
        ("stddev(requests_total)", "{} 48.989794856"),
        (
            "topk(2, requests_total)",
            "requests_total{i=0,job=b} 180; requests_total{i=1,job=a} 120",
        ),
        ("bottomk(1, requests_total)", "requests_total{i=0,job=a} 60"),
        ("count_values(\"v\", requests_total > 100)", "{v=120} 1; {v=180} 1"),
        ("group(temp)", "{} 1"),
        // Over time.
        ("increase(requests_total{i=\"1\"}[1m])", "{i=1,job=a} 12"),
        ("irate(requests_total{i=\"1\"}[1m])", "{i=1,job=a} 0.2"),
        ("avg_over_time(requests_total{job=\"b\"}[1m])", "{i=0,job=b} 172.5"),
        (
            "quantile_over_time(0.5, requests_total{job=\"b\"}[1m])",
            "{i=0,job=b} 172.5",
        ),
        ("last_over_time(temp{job=\"b\"}[10m])", "temp{job=b} 20.5"),
        ("count_over_time(temp[1m])", "{job=a} 6"),
        ("sum(sum_over_time(temp[1m]))", "{} 60"),
        ("predict_linear(requests_total{job=\"b\"}[5m], 100)", "{i=0,job=b} 210"),
        ("avg_over_time(sum(requests_total)[1m:30s])", "{} 351"),
        (
            "max_over_time(rate(requests_total{job=\"b\"}[1m])[5m:])",
            "{i=0,job=b} 0.3",
        ),
        ("absent_over_time(temp{job=\"c\"}[5m])", "{job=c} 1"),
        // Operators.
        (
            "requests_total > 100",
            "requests_total{i=0,job=b} 180; requests_total{i=1,job=a} 120",
        ),
        (
            "requests_total > bool 100",
            "{i=0,job=a} 0; {i=0,job=b} 1; {i=1,job=a} 1",
        ),
        (
            "100 < requests_total",
            "requests_total{i=0,job=b} 180; requests_total{i=1,job=a} 120",
        ),
        (
            "temp * on (job) group_right requests_total",
            "{i=0,job=a} 600; {i=1,job=a} 1200",
        ),
        (
            "requests_total / ignoring (i) group_left temp",
            "{i=0,job=a} 6; {i=1,job=a} 12",
        ),
        (
            "requests_total{i=\"0\"} - on (job) requests_total{i=\"1\"}",
            "{job=a} -60",
        ),
        (
            "requests_total and on (job) temp",
            "requests_total{i=0,job=a} 60; requests_total{i=1,job=a} 120",
        ),
        ("requests_total unless on (job) temp", "requests_total{i=0,job=b} 180"),
        ("temp or vector(0)", "{} 0; temp{job=a} 10"),
        ("temp == temp", "temp{job=a} 10"),
        // Functions.
        ("absent(temp{job=\"b\"})", "{job=b} 1"),
        ("absent(temp)", ""),
        ("scalar(temp) + 1", "11"),
        (
            "clamp_max(requests_total, 100)",
            "{i=0,job=a} 60; {i=0,job=b} 100; {i=1,job=a} 100",
        ),
        ("round(temp / 3, 0.1)", "{job=a} 3.3"),
        ("timestamp(temp)", "{job=a} 600"),
        (
            "sort_desc(requests_total{i=\"0\"})",
            "requests_total{i=0,job=b} 180; requests_total{i=0,job=a} 60",
        ),
        (
            "label_replace(temp, \"x\", \"$1!\", \"job\", \"(.*)\")",
            "temp{job=a,x=a!} 10",
        ),
        (
            "label_join(temp, \"x\", \"-\", \"job\", \"job\")",
            "temp{job=a,x=a-a} 10",
        ),
    ];
    for (query, expected) in cases {
        assert_eq!(instant(query).as_deref(), Ok(expected), "{query}");
    }
}

#[test]
fn values_over_time() {
    let range = |query: &str| {
        let query = Query::parse(query).unwrap();
        query.range(&world(), (0, 600_000), 150_000, &limits()).unwrap()
    };
    let Answer::Matrix(series) = range("temp") else {
        panic!()
    };
    assert_eq!(series.len(), 2);
    // It ended at 300 s, and holds for 300 s less a moment.
    let of_b = vec![(0, 20.5), (150_000, 20.5), (300_000, 20.5), (450_000, 20.5)];
    assert_eq!(series[1].1, of_b);
    let Answer::Matrix(series) = range("topk(1, temp)") else {
        panic!()
    };
    let lengths: Vec<usize> = series.iter().map(|(_, points)| points.len()).collect();
    assert_eq!(lengths, [1, 4], "who leads changes");
    assert_eq!(range("7"), range("vector(7)"));
    assert_eq!(range("temp @ end()"), range("temp{job=\"a\"}"));
}

#[test]
fn what_does_not_match_is_refused() {
    for query in [
        "temp + on (job) requests_total",
        "requests_total * on () group_left temp @ 0",
        "label_replace(temp @ 0, \"job\", \"x\", \"job\", \".*\")",
    ] {
        assert!(
            matches!(instant(query), Err(PromqlError::Matching(_))),
            "{query}: {:?}",
            instant(query)
        );
    }
    assert!(matches!(
        instant("histogram_quantile(0.9, temp)"),
        Err(PromqlError::Function { .. })
    ));
    assert!(matches!(instant("limitk(1, temp)"), Err(PromqlError::Unsupported(_))));
}

#[test]
fn bounds_hold() {
    let query = Query::parse("requests_total").unwrap();
    let run = |limits: Limits| query.range(&world(), (0, 600_000), 10_000, &limits).map(drop);
    assert_eq!(run(limits()), Ok(()));
    let few = |samples, points| Limits {
        samples,
        points,
        ..limits()
    };
    assert_eq!(run(few(100, 1_000)), Err(PromqlError::TooManySamples { limit: 100 }));
    assert_eq!(run(few(1_000, 100)), Err(PromqlError::TooManyPoints { limit: 100 }));
    let over = Limits {
        deadline: Instant::now(),
        ..limits()
    };
    assert_eq!(run(over), Err(PromqlError::TimedOut));
    let wide = Query::parse("1").unwrap().range(&world(), (0, i64::MAX), 1, &limits());
    assert_eq!(wide, Err(PromqlError::TooManyPoints { limit: 10_000 }));
    let inner = Query::parse("avg_over_time(temp[10y:1ms])")
        .unwrap()
        .instant(&world(), 0, &limits());
    assert_eq!(inner, Err(PromqlError::TooManyPoints { limit: 10_000 }));
}
