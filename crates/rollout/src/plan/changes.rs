//! What a plan changes, field by field.

use std::collections::{BTreeMap, BTreeSet};

use api::{
    Cpu, Size, Span,
    deploy::{Autoscale, Change},
    workload::WorkloadSpec,
};
use serde_json::Value;

use super::steps;

/// What a change of the number of replicas is called.
pub const REPLICAS: &str = "replicas";

/// What a change of the bounds of that number is called.
pub const AUTOSCALE: &str = "autoscale";

/// The differences between two specifications, and what they are called. `from`: `None` where there is none yet, which
/// lists what is set.
pub(super) fn of_spec(
    from: Option<(&WorkloadSpec, Option<&str>)>,
    to: &WorkloadSpec,
    version: Option<&str>,
) -> Vec<Change> {
    let mut changes = Vec::new();
    if let Some(version) = version
        && from.and_then(|(_, version)| version) != Some(version)
    {
        changes.push(Change {
            field: "version".to_owned(),
            from: from.and_then(|(_, version)| version).map(str::to_owned),
            to: version.to_owned(),
        });
    }
    let old = fields(from.map_or(&WorkloadSpec::default(), |(spec, _)| spec));
    let new = fields(to);
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    changes.extend(
        names
            .into_iter()
            .filter(|name| old.get(*name) != new.get(*name))
            .map(|name| Change {
                field: name.clone(),
                from: from.and_then(|_| old.get(name).cloned()),
                to: new.get(name).map_or_else(|| "none".to_owned(), Clone::clone),
            }),
    );
    changes
}

/// A specification as names and texts: what a manifest holds, with `env` and `gpus` taken apart.
fn fields(spec: &WorkloadSpec) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    let Ok(Value::Object(json)) = serde_json::to_value(spec) else {
        return fields;
    };
    for (name, value) in json {
        let text = match (name.as_str(), &value) {
            ("env", _) => {
                fields.extend(
                    spec.env
                        .iter()
                        .map(|var| (format!("env.{}", var.name), var.value.clone())),
                );
                continue;
            }
            ("gpus", _) => {
                fields.insert("gpus".to_owned(), spec.gpus.count.to_string());
                fields.extend(spec.gpus.model.clone().map(|model| ("gpuType".to_owned(), model)));
                fields.extend(
                    spec.gpus
                        .memory
                        .map(|memory| ("gpuMemory".to_owned(), memory.to_string())),
                );
                continue;
            }
            ("command", _) => spec.command.join(" "),
            ("memory", _) => spec.memory.map_or_else(String::new, |memory: Size| memory.to_string()),
            ("cpu", _) => spec.cpu.map_or_else(String::new, |cpu: Cpu| cpu.to_string()),
            ("timeout", _) => spec.timeout.map_or_else(String::new, |span: Span| span.to_string()),
            ("ports", _) => {
                let ports: Vec<String> = spec.ports.iter().map(|port| port.port.to_string()).collect();
                ports.join(", ")
            }
            (_, Value::String(text)) => text.clone(),
            (_, other) => other.to_string(),
        };
        fields.insert(name, text);
    }
    fields
}

/// The difference between two numbers of replicas. `from`: `None` where there are none yet.
pub(super) fn of_replicas(from: Option<u32>, to: u32) -> Option<Change> {
    (from != Some(to)).then(|| Change {
        field: REPLICAS.to_owned(),
        from: from.map(|n| n.to_string()),
        to: to.to_string(),
    })
}

/// The difference between two pairs of bounds.
pub(super) fn of_bounds(from: Option<&Autoscale>, to: Option<&Autoscale>) -> Option<Change> {
    (from != to).then(|| Change {
        field: AUTOSCALE.to_owned(),
        from: from.map(steps::bounds),
        to: to.map_or_else(|| "none".to_owned(), steps::bounds),
    })
}
