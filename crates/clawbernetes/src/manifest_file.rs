//! Reads manifests: YAML or JSON, one or several documents, with errors that name field, line and nearest key.

use std::{fs, io::Read};

use api::{
    ApiError, ErrorCode,
    manifest::{Manifest, PATHS},
    nearest,
    op::Submission,
};
use serde::Deserialize;

/// Largest manifest that is read.
const MAX_BYTES: u64 = 4 << 20;

/// A workload of a manifest.
#[derive(Debug)]
pub(crate) struct Document {
    /// The workload.
    pub(crate) workload: Submission,
    /// It says itself that it has no timeout (`timeout: 0`).
    pub(crate) endless: bool,
}

/// Reads all documents of a file; `-` is standard input.
///
/// # Errors
/// `NOT_FOUND` or `INVALID_ARGUMENT`, with what is wrong and where.
pub(crate) fn read(file: &str) -> Result<Vec<Document>, ApiError> {
    let text = text_of("manifest", file)?;
    parse(if file == "-" { "standard input" } else { file }, &text)
}

/// The text of a file, which is called `what` where it can't be read; `-` is standard input.
///
/// # Errors
/// `NOT_FOUND` or `INVALID_ARGUMENT`.
pub(crate) fn text_of(what: &str, file: &str) -> Result<String, ApiError> {
    let refuse = |error: std::io::Error| {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorCode::NotFound,
            _ => ErrorCode::InvalidArgument,
        };
        ApiError::new(code, format!("the {what} {file} can't be read")).cause(error.to_string())
    };
    let mut text = String::new();
    if file == "-" {
        std::io::stdin().take(MAX_BYTES + 1).read_to_string(&mut text)
    } else {
        fs::File::open(file).and_then(|open| open.take(MAX_BYTES + 1).read_to_string(&mut text))
    }
    .map_err(refuse)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(ApiError::new(
            ErrorCode::InvalidArgument,
            format!("the {what} {file} is larger than {} MiB", MAX_BYTES >> 20),
        ));
    }
    Ok(text)
}

/// Reads all documents of a text that came from `file`.
fn parse(file: &str, text: &str) -> Result<Vec<Document>, ApiError> {
    let documents = documents(text);
    let count = documents.len();
    let mut submissions = Vec::with_capacity(count);
    for (i, document) in documents.iter().enumerate() {
        let place = if count > 1 {
            format!("{file}, document {}", i + 1)
        } else {
            file.to_owned()
        };
        let manifest = manifest(&place, document)?;
        let timeout = manifest
            .spec
            .constraints
            .as_ref()
            .and_then(|constraints| constraints.timeout);
        let workload = Submission::try_from(manifest).map_err(|error| ApiError {
            message: format!("{place}: {}", error.message),
            ..error
        })?;
        submissions.push(Document {
            workload,
            endless: timeout.is_some_and(api::Span::is_zero),
        });
    }
    if submissions.is_empty() {
        return Err(ApiError::new(
            ErrorCode::InvalidArgument,
            format!("{file} holds no manifest"),
        ));
    }
    Ok(submissions)
}

/// The documents of a text, each preceded by as many line breaks as stand before it, so that lines keep their numbers.
/// Documents without content are left out.
fn documents(text: &str) -> Vec<String> {
    let mut documents = Vec::new();
    let mut current = String::new();
    let mut filled = false;
    for (number, line) in text.lines().enumerate() {
        // Within no YAML value may a line begin like this.
        if line == "---" || line.starts_with("--- ") || line.starts_with("---\t") {
            if filled {
                documents.push(std::mem::take(&mut current));
            }
            current = "\n".repeat(number);
            filled = line.len() > 3 && !line[3..].trim_start().starts_with('#') && !line[3..].trim().is_empty();
        } else {
            let content = line.trim_start();
            filled |= !content.is_empty() && !content.starts_with(['#', '%']) && line != "...";
        }
        current.push_str(line);
        current.push('\n');
    }
    if filled {
        documents.push(current);
    }
    documents
}

fn manifest(place: &str, text: &str) -> Result<Manifest, ApiError> {
    let mut track = serde_path_to_error::Track::new();
    let options = serde_saphyr::options! { with_snippet: false };
    let read = serde_saphyr::with_deserializer_from_str_with_options(text, options, |deserializer| {
        Manifest::deserialize(serde_path_to_error::Deserializer::new(deserializer, &mut track))
    });
    read.map_err(|error| {
        let path = track.path().to_string();
        explain(place, &path, &error)
    })
}

/// An error of reading, in the words of a manifest.
fn explain(place: &str, path: &str, error: &serde_saphyr::Error) -> ApiError {
    let line = error
        .location()
        .map(|location| location.line())
        .filter(|line| *line > 0);
    let at = line.map_or_else(|| place.to_owned(), |line| format!("{place}:{line}"));
    let field = Some(path.trim_end_matches(".?")).filter(|path| !path.is_empty() && !matches!(*path, "." | "?"));
    let field = field.map(str::to_owned);
    let mut told = ApiError {
        field: field.clone(),
        ..ApiError::new(ErrorCode::InvalidArgument, String::new())
    };
    match error.without_snippet() {
        serde_saphyr::Error::SerdeUnknownField {
            field: key, expected, ..
        } => {
            let parent = parent_of(path, key);
            let within = if parent.is_empty() {
                String::new()
            } else {
                format!(" in {parent}")
            };
            told.message = format!("{at}: unknown key '{key}'{within}");
            let elsewhere = PATHS
                .iter()
                .find(|known| known.rsplit('.').next() == Some(key.as_str()));
            told.hint = Some(match (nearest(key, expected.iter().copied()), elsewhere) {
                (Some(near), _) => format!("did you mean '{near}'?"),
                (None, Some(known)) => format!("'{key}' belongs at {known}"),
                (None, None) => format!("the keys here are: {}", expected.join(", ")),
            });
        }
        serde_saphyr::Error::SerdeUnknownVariant { variant, expected, .. } => {
            let expected = spellings(expected);
            told.message = format!("{at}: '{variant}' isn't known{}", of(field.as_deref()));
            told.hint = Some(match nearest(variant, expected.iter().copied()) {
                Some(near) => format!("did you mean '{near}'? (accepted: {})", expected.join(", ")),
                None => format!("accepted: {}", expected.join(", ")),
            });
        }
        serde_saphyr::Error::SerdeMissingField { field: key, .. } => {
            let within = field.as_deref().map(|field| format!(" in {field}")).unwrap_or_default();
            told.message = format!("{at}: '{key}' is missing{within}");
            told.field = Some(match field {
                Some(field) => format!("{field}.{key}"),
                None => (*key).to_owned(),
            });
            told.hint = match *key {
                "apiVersion" => Some(format!("begin with: apiVersion: {}", api::manifest::API_VERSION)),
                "kind" => Some(format!("write: kind: {}", api::manifest::KIND)),
                _ => None,
            };
        }
        serde_saphyr::Error::SerdeInvalidType {
            unexpected, expected, ..
        }
        | serde_saphyr::Error::SerdeInvalidValue {
            unexpected, expected, ..
        } => {
            told.message = format!(
                "{at}: {} must be {expected}, not {unexpected}",
                subject(field.as_deref())
            );
        }
        serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => {
            told.message = format!("{at}: '{key}' is there twice");
        }
        serde_saphyr::Error::Unexpected { expected, .. } => {
            let expected = match *expected {
                "mapping start" => "a mapping",
                "sequence start" => "a list",
                "string scalar" => "text or a number",
                other => other,
            };
            told.message = format!("{at}: {} must be {expected}", subject(field.as_deref()));
        }
        serde_saphyr::Error::InvalidScalar { ty, .. } => {
            let expected = match ty.trim_start_matches("invalid ") {
                "u16" => "a whole number from 0 to 65535",
                "u32" => "a whole number from 0 to 4294967295",
                "bool" | "boolean" => "true or false",
                other => other,
            };
            told.message = format!("{at}: {} must be {expected}", subject(field.as_deref()));
        }
        other => {
            let what = what(other);
            let field = field.as_deref().map(|field| format!("{field}: ")).unwrap_or_default();
            told.message = format!("{at}: {field}{what}");
        }
    }
    told
}

/// The path of the mapping that holds `key`, given the path of the error.
fn parent_of<'a>(path: &'a str, key: &str) -> &'a str {
    let parent = path.strip_suffix(key).map_or(path, |rest| rest.trim_end_matches('.'));
    if parent == "." { "" } else { parent }
}

fn of(field: Option<&str>) -> String {
    field.map(|field| format!(" for {field}")).unwrap_or_default()
}

fn subject(field: Option<&str>) -> String {
    field.unwrap_or("a manifest").to_owned()
}

/// The words that are accepted, each in the first of its spellings (`Never` for `never`).
fn spellings(words: &[&'static str]) -> Vec<&'static str> {
    let plain = |word: &str| word.to_lowercase().replace('-', "");
    let mut kept: Vec<&'static str> = Vec::new();
    for word in words {
        if !kept.iter().any(|other| plain(other) == plain(word)) {
            kept.push(word);
        }
    }
    kept
}

/// The sentence of an error, without the place that is told already.
fn what(error: &serde_saphyr::Error) -> String {
    let text = match error {
        serde_saphyr::Error::Message { msg, .. } => msg.clone(),
        other => other.to_string(),
    };
    let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
    let end = line.rfind(" at line ").unwrap_or(line.len());
    line[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A manifest that uses every key.
    const EVERYTHING: &str = include_str!("../tests/it/manifests/everything.yaml");

    fn error(text: &str) -> String {
        let error = parse("w.yaml", text).unwrap_err();
        crate::failure::render(&error, false)
    }

    fn of_spec(spec: &str) -> String {
        error(&format!(
            "apiVersion: clawbernetes/v1\nkind: Workload\nspec:\n  image: host\n{spec}"
        ))
    }

    #[test]
    fn the_documentations_sample_is_read() {
        let text = include_str!("../../../docs/reference/workload.yaml");
        let read = parse("workload.yaml", text).unwrap();
        assert_eq!(read.len(), 1);
        let spec = &read[0].workload.spec;
        assert_eq!(spec.node_count(), 2);
        assert_eq!(spec.hooks.as_ref().unwrap().pre_start, ["sh", "-c", "echo starting"]);
    }

    #[test]
    fn every_key_of_the_template_is_accepted() {
        let all = parse("w.yaml", EVERYTHING).unwrap();
        insta::assert_json_snapshot!(all[0].workload);
    }

    #[test]
    fn json_is_read_too() {
        let read = parse(
            "w.json",
            r#"{"apiVersion": "clawbernetes/v1", "kind": "Workload", "spec": {"image": "host", "gpus": 2}}"#,
        );
        assert_eq!(read.unwrap()[0].workload.spec.gpus.count, 2);
    }

    #[test]
    fn a_file_holds_several_documents() {
        let one = "apiVersion: clawbernetes/v1\nkind: Workload\nspec: {image: host}\n";
        let text = format!("# first\n---\n{one}---\n# nothing here\n---\n{one}...\n");
        assert_eq!(parse("w.yaml", &text).unwrap().len(), 2);
        insta::assert_snapshot!(error(&format!("{one}---\n{}", one.replace("image", "imgae"))));
    }

    #[test]
    fn scalars_of_the_environment_keep_their_spelling() {
        let read = parse(
            "w.yaml",
            "apiVersion: clawbernetes/v1\nkind: Workload\nspec:\n  image: host\n  command: [sleep, 5]\n  env: {A: 1.10, B: true, C: 007, D: }\n",
        )
        .unwrap();
        let env: Vec<_> = read[0]
            .workload
            .spec
            .env
            .iter()
            .map(|e| format!("{}={}", e.name, e.value))
            .collect();
        assert_eq!(env, ["A=1.10", "B=true", "C=007", "D="]);
        assert_eq!(read[0].workload.spec.command, ["sleep", "5"]);
    }

    #[test]
    fn mistakes_name_field_line_and_nearest_key() {
        let all = [
            "  gpu: 4\n",
            "  timeout: 4h\n",
            "  frobnicate: 1\n",
            "  gpus: many\n",
            "  gpus: -1\n",
            "  gpus: {count: 2, typ: H100}\n",
            "  gpus: {type: H100}\n",
            "  resources: {memory: 32Qi}\n",
            "  resources: {cpu: lots}\n",
            "  constraints: {timeout: 5}\n",
            "  constraints: {restartPolicy: Sometimes}\n",
            "  scheduling: {priority: hihg}\n",
            "  scheduling: {nodes: [1]}\n",
            "  env: [A, B]\n",
            "  env: [{name: A, valueFrom: {secretRef: Wandb}}]\n",
            "  volumes: [{name: data, source: s3://bucket/data, mountPath: /data}]\n",
            "  volumes: [{name: data, source: /data}]\n",
            "  networking: {ports: [{port: 99999}]}\n",
            "  metricsPort: http\n",
            "  command: 'python -c \"'\n",
            "  healthCheck: {tcp: 80, http: /}\n",
            "  image: again\n",
            "  command: [a\n",
            "\tcommand: a\n",
        ]
        .map(of_spec)
        .join("\n");
        insta::assert_snapshot!(all);
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        let all = [
            "",
            "# nothing\n",
            "just text",
            "[]",
            "kind: Workload\nspec: {}\n",
            "apiVersion: v1\nkind: Workload\nspec: {}\n",
            "apiVersion: clawbernetes/v1\nkind: Pod\nspec: {}\n",
            "apiVersion: clawbernetes/v1\nkind: Workload\nmetadata: {name: Bad Name}\nspec: {}\n",
            "apiVersion: clawbernetes/v1\nkind: Workload\nmetadata: {labels: [a]}\nspec: {}\n",
        ]
        .map(error)
        .join("\n");
        insta::assert_snapshot!(all);
    }
}
