//! `clawbernetes node label`

use std::process::ExitCode;

use api::op::{LabelRequest, NodeLabel};

use crate::{cli::App, failure::Outcome};

/// Set and remove labels of a node
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes node label gpu-7 rack=r1 tier=fast\n  clawbernetes node label gpu-7 tier-"
)]
pub(crate) struct Args {
    /// Its name, or the beginning of it
    #[arg(value_name = "NODE", add = crate::complete::nodes())]
    id: String,
    /// KEY=VALUE sets a label, KEY- removes one
    #[arg(required = true, value_name = "KEY=VALUE|KEY-", value_parser = change)]
    labels: Vec<Change>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Change {
    Set(String, String),
    Remove(String),
}

fn change(text: &str) -> Result<Change, String> {
    match (text.split_once('='), text.strip_suffix('-')) {
        (Some((key, value)), _) if !key.is_empty() => Ok(Change::Set(key.to_owned(), value.to_owned())),
        (None, Some(key)) if !key.is_empty() => Ok(Change::Remove(key.to_owned())),
        _ => Err(format!("'{text}' isn't of the form KEY=VALUE or KEY-")),
    }
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let mut request = LabelRequest {
            id: self.id,
            set: [].into(),
            remove: Vec::new(),
        };
        for change in self.labels {
            match change {
                Change::Set(key, value) => {
                    request.set.insert(key, value);
                }
                Change::Remove(key) => request.remove.push(key),
            }
        }
        let node = app.client()?.call::<NodeLabel>(&request).await?;
        if app.out.for_programs() {
            app.out.show(&node)?;
        } else {
            let labels: Vec<String> = node
                .view
                .labels
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            let labels = if labels.is_empty() {
                "none".to_owned()
            } else {
                labels.join(",")
            };
            app.out.print(&format!("{} labels: {labels}\n", node.view.name))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_set_and_removed() {
        assert_eq!(change("a=b-"), Ok(Change::Set("a".to_owned(), "b-".to_owned())));
        assert_eq!(change("a="), Ok(Change::Set("a".to_owned(), String::new())));
        assert_eq!(change("a-"), Ok(Change::Remove("a".to_owned())));
        for bad in ["a", "=b", "-", ""] {
            assert!(change(bad).is_err(), "{bad}");
        }
    }
}
