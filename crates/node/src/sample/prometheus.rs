//! Prometheus' text format, version 0.0.4, as workloads serve it. What can't be read is passed over line by line.

use std::collections::HashMap;

use api::metric::Kind;

/// A sample.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) kind: Kind,
    pub(crate) value: f64,
}

/// The samples of a page that are numbers. Their own timestamps, if any, aren't used: the page is read as it is.
pub(crate) fn samples(page: &str) -> Vec<Sample> {
    let mut types: HashMap<&str, &str> = HashMap::new();
    let mut samples = Vec::new();
    for line in page.lines().map(str::trim) {
        if let Some(comment) = line.strip_prefix('#') {
            let mut words = comment.split_whitespace();
            if let (Some("TYPE"), Some(name), Some(kind)) = (words.next(), words.next(), words.next()) {
                types.insert(name, kind);
            }
        } else if let Some((name, labels, value)) = sample(line) {
            samples.push(Sample {
                name: name.to_owned(),
                labels,
                kind: kind(&types, name),
                value,
            });
        }
    }
    samples
}

fn kind(types: &HashMap<&str, &str>, name: &str) -> Kind {
    let counts = |family: &str| match types.get(family) {
        Some(&"counter") => Some(true),
        Some(&("histogram" | "summary")) => Some(family != name),
        Some(_) => Some(false),
        None => None,
    };
    let family = ["_bucket", "_sum", "_count", "_total"]
        .iter()
        .find_map(|end| name.strip_suffix(end));
    match counts(name).or_else(|| counts(family?)) {
        Some(true) => Kind::Counter,
        _ => Kind::Gauge,
    }
}

/// Names with their values.
type Labels = Vec<(String, String)>;

fn sample(line: &str) -> Option<(&str, Labels, f64)> {
    let end = line.find(|c: char| c == '{' || c.is_whitespace())?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    let value = rest.split_whitespace().next()?.parse::<f64>().ok()?;
    (!name.is_empty() && value.is_finite()).then_some((name, labels, value))
}

/// What stands between braces, and the rest of the line.
fn labels(mut rest: &str) -> Option<(Labels, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, after) = rest.split_once('=')?;
        let after = after.trim_start().strip_prefix('"')?;
        let mut value = String::new();
        let mut escaped = false;
        let mut end = None;
        for (at, c) in after.char_indices() {
            match c {
                'n' if escaped => value.push('\n'),
                '"' if !escaped => {
                    end = Some(at + 1);
                    break;
                }
                '\\' if !escaped => {
                    escaped = true;
                    continue;
                }
                c => value.push(c),
            }
            escaped = false;
        }
        labels.push((name.trim().to_owned(), value));
        rest = &after[end?..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As vLLM and the Python client print it.
    const PAGE: &str = r#"# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="meta-llama/Llama-3.1-8B"} 3.0
# HELP vllm:prompt_tokens_total Number of prefill tokens processed.
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",path="C:\\x",say="\"hi\"\n"} 1.027e+03 1395066363000
# TYPE request_seconds histogram
request_seconds_bucket{le="+Inf",} 5
request_seconds_sum 1.5
process_start 1.7e9
broken{le="
broken2{le=5} 1
not_a_number NaN
forever +Inf
{} 5
"#;

    #[test]
    fn a_page_is_read() {
        let samples = samples(PAGE);
        let shown: Vec<String> = samples
            .iter()
            .map(|s| format!("{} {:?} {:?} {}", s.name, s.labels, s.kind, s.value))
            .collect();
        assert_eq!(
            shown,
            [
                r#"vllm:num_requests_running [("engine", "0"), ("model_name", "meta-llama/Llama-3.1-8B")] Gauge 3"#,
                r#"vllm:prompt_tokens_total [("engine", "0"), ("path", "C:\\x"), ("say", "\"hi\"\n")] Counter 1027"#,
                r#"request_seconds_bucket [("le", "+Inf")] Counter 5"#,
                r#"request_seconds_sum [] Counter 1.5"#,
                r#"process_start [] Gauge 1700000000"#,
            ]
        );
    }

    #[test]
    fn nothing_panics() {
        for page in [
            "",
            "{",
            "a{",
            "a{b",
            "a{b=",
            "a{b=\"\\",
            "a{b=\"é\"",
            "a{}",
            "a{} x",
            "# TYPE",
            "é{é=\"\\é\"} 1",
        ] {
            samples(page);
        }
    }
}
