//! Which keys there are where a request has one that doesn't exist: read off its schema.

use std::collections::BTreeSet;

use schemars::{JsonSchema, SchemaGenerator};
use serde_json::Value;

/// How deep schemas stand for others, at most.
const DEPTH_MAX: usize = 16;

/// The keys of a request's object at a path such as `workloads.0.spec`. Empty: the schema doesn't say.
pub fn keys_at<T: JsonSchema>(path: &str) -> Vec<String> {
    let root = SchemaGenerator::default().into_root_schema_for::<T>().to_value();
    let mut here = vec![&root];
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let mut below = Vec::new();
        for schema in whole(&root, &here) {
            below.extend(schema["properties"].get(part));
            below.extend(schema.get("items").filter(|_| part.parse::<usize>().is_ok()));
            below.extend(schema.get("additionalProperties").filter(|schema| schema.is_object()));
        }
        here = below;
    }
    let keys: BTreeSet<&String> = whole(&root, &here)
        .into_iter()
        .filter_map(|schema| schema["properties"].as_object())
        .flat_map(|properties| properties.keys())
        .collect();
    keys.into_iter().cloned().collect()
}

/// Schemas with all that they are made of: what they refer to, and their parts and alternatives.
fn whole<'a>(root: &'a Value, schemas: &[&'a Value]) -> Vec<&'a Value> {
    let (mut all, mut open) = (Vec::new(), schemas.to_vec());
    for _ in 0..DEPTH_MAX {
        let mut more = Vec::new();
        for schema in &open {
            let of = schema["$ref"].as_str().and_then(|of| of.strip_prefix('#'));
            more.extend(of.and_then(|of| root.pointer(of)));
            for parts in ["allOf", "anyOf", "oneOf"] {
                more.extend(schema[parts].as_array().into_iter().flatten());
            }
        }
        all.append(&mut open);
        open = more;
    }
    all
}
