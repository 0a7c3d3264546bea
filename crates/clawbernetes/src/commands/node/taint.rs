//! `clawbernetes node taint`

use std::process::ExitCode;

use api::{
    nearest,
    node::{Taint, TaintEffect},
    op::{NodeTaint, TaintRequest},
};

use crate::{cli::App, failure::Outcome};

/// Set and remove taints of a node: they keep workloads off that don't tolerate them
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes node taint gpu-7 reserved=nlp:NoSchedule\n  clawbernetes node taint gpu-7 reserved-"
)]
pub(crate) struct Args {
    /// Its name, or the beginning of it
    #[arg(value_name = "NODE", add = crate::complete::nodes())]
    id: String,
    /// KEY[=VALUE]:EFFECT sets a taint (effects: NoSchedule, PreferNoSchedule), KEY- removes those of a key
    #[arg(required = true, value_name = "KEY[=VALUE]:EFFECT|KEY-", value_parser = change)]
    taints: Vec<Change>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Change {
    Set(Taint),
    Remove(String),
}

fn change(text: &str) -> Result<Change, String> {
    let refuse = || format!("'{text}' isn't of the form KEY[=VALUE]:EFFECT or KEY-");
    let Some((pair, effect)) = text.rsplit_once(':') else {
        return match text.strip_suffix('-') {
            Some(key) if !key.is_empty() && !key.contains('=') => Ok(Change::Remove(key.to_owned())),
            _ => Err(refuse()),
        };
    };
    let effect = match effect {
        "NoSchedule" => TaintEffect::NoSchedule,
        "PreferNoSchedule" => TaintEffect::PreferNoSchedule,
        other => {
            return Err(match nearest(other, ["NoSchedule", "PreferNoSchedule"]) {
                Some(near) => format!("'{other}' is no effect: did you mean '{near}'?"),
                None => format!("'{other}' is no effect (accepted: NoSchedule, PreferNoSchedule)"),
            });
        }
    };
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    if key.is_empty() {
        return Err(refuse());
    }
    Ok(Change::Set(Taint {
        key: key.to_owned(),
        value: value.to_owned(),
        effect,
    }))
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let mut request = TaintRequest {
            id: self.id,
            set: Vec::new(),
            remove: Vec::new(),
        };
        for change in self.taints {
            match change {
                Change::Set(taint) => request.set.push(taint),
                Change::Remove(key) => request.remove.push(key),
            }
        }
        let node = app.client()?.call::<NodeTaint>(&request).await?;
        if app.out.for_programs() {
            app.out.show(&node)?;
        } else {
            let taints: Vec<String> = node
                .view
                .taints
                .iter()
                .map(|taint| format!("{}={}:{:?}", taint.key, taint.value, taint.effect))
                .collect();
            let taints = if taints.is_empty() {
                "none".to_owned()
            } else {
                taints.join(",")
            };
            app.out.print(&format!("{} taints: {taints}\n", node.view.name))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_are_set_and_removed() {
        let taint = |value: &str, effect| {
            Ok(Change::Set(Taint {
                key: "k".to_owned(),
                value: value.to_owned(),
                effect,
            }))
        };
        assert_eq!(change("k=v:NoSchedule"), taint("v", TaintEffect::NoSchedule));
        assert_eq!(change("k:PreferNoSchedule"), taint("", TaintEffect::PreferNoSchedule));
        assert_eq!(change("k-"), Ok(Change::Remove("k".to_owned())));
        assert!(change("k=v:NoSchedul").is_err_and(|e| e.contains("'NoSchedule'")));
        for bad in ["k", "k=v", ":NoSchedule", "=v:NoSchedule", "k=v-"] {
            assert!(change(bad).is_err(), "{bad}");
        }
    }
}
