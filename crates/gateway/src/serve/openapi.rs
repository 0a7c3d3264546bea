//! The OpenAPI document, made from the operation table.

use api::{
    auth::Scope,
    error::ErrorBody,
    op::{Effect, OPERATIONS},
};
use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

/// The whole document (OpenAPI 3.1).
pub fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| s.definitions_path = "/components/schemas".into());
    let mut schemas = SchemaGenerator::new(settings);
    let error = schemas.subschema_for::<ErrorBody>();
    let mut paths = Map::new();
    for op in OPERATIONS {
        let request = (op.request)(&mut schemas);
        let response = (op.response)(&mut schemas);
        let (kind, note) = if op.streaming {
            (
                "application/x-ndjson",
                "One item a line; over WebSocket one frame each.",
            )
        } else {
            ("application/json", "The answer.")
        };
        let mut post = json!({
            "operationId": op.name,
            "summary": op.help.trim(),
            "tags": [op.name.split('.').next().unwrap_or_default()],
            "x-scope": op.scope,
            "requestBody": {"content": {"application/json": {"schema": request}}},
            "responses": {
                "200": {"description": note, "content": {kind: {"schema": response}}},
                "default": {"description": "What went wrong.", "content": {"application/json": {"schema": error}}},
            },
        });
        if op.scope == Scope::NoToken {
            post["security"] = json!([]);
        }
        if op.effect == Effect::Creates {
            post["parameters"] = json!([{
                "name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "maxLength": 128},
                "description": "A repetition with the same key answers what the first call answered, for a day.",
            }]);
        }
        paths.insert(op.path(), json!({ "post": post }));
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Clawbernetes", "version": env!("CARGO_PKG_VERSION"), "license": {"name": "Apache-2.0"}},
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": schemas.take_definitions(true),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_there_and_every_reference_resolves() {
        let document = document();
        assert_eq!(document["paths"].as_object().unwrap().len(), OPERATIONS.len());
        let text = document.to_string();
        for part in text.split("\"#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(document["components"]["schemas"].get(name).is_some(), "{name}");
        }
    }
}
