//! A job's secrets on their way to it: in memory only.

use std::collections::BTreeMap;

use api::{
    ApiError,
    secret::{SecretTarget, SecretUse, SecretValue},
};

/// Longest variable that the kernel hands to a program, with its name, the sign between and the zero byte at its end
/// (`MAX_ARG_STRLEN`: 32 pages of 4 KiB).
const VARIABLE_MAX_BYTES: usize = 128 << 10;

/// What a job gets of secrets, and what is made unreadable in its output.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Secrets {
    env: Vec<(String, SecretValue)>,
    files: Vec<(String, SecretValue)>,
    mask: Vec<SecretValue>,
}

impl Secrets {
    /// Brings a job's uses of secrets together with their values, one for each and in their order. Made unreadable is
    /// all of `mask`, the values, and each field of those that are JSON objects.
    ///
    /// # Errors
    /// A value isn't what its use needs: `INVALID_ARGUMENT` for a variable that can't hold it or a value without
    /// fields, `NOT_FOUND` for a missing field. `INTERNAL`: there isn't a value for each.
    pub fn resolve(uses: &[SecretUse], values: Vec<SecretValue>, mask: Vec<SecretValue>) -> Result<Self, ApiError> {
        if uses.len() != values.len() {
            return Err(ApiError::internal(format!(
                "the gateway gave {} values for {} secrets",
                values.len(),
                uses.len()
            )));
        }
        let mut secrets = Self::default();
        for (entry, value) in uses.iter().zip(&values) {
            let value = match &entry.key {
                Some(key) => field(&entry.secret, key, value)?,
                None => value.clone(),
            };
            match &entry.to {
                SecretTarget::Env(name) => {
                    check_text(&entry.secret, name, &value)?;
                    secrets.env.push((name.clone(), value));
                }
                SecretTarget::File(path) => secrets.files.push((path.clone(), value)),
            }
        }
        let given = secrets.env.iter().chain(&secrets.files).map(|(_, value)| value.clone());
        let given: Vec<SecretValue> = given.collect();
        for value in values.into_iter().chain(mask).chain(given) {
            for field in fields(&value).unwrap_or_default().into_values() {
                secrets.hide(field);
            }
            secrets.hide(value);
        }
        Ok(secrets)
    }

    fn hide(&mut self, value: SecretValue) {
        if !self.mask.contains(&value) {
            self.mask.push(value);
        }
    }

    /// Variables of its environment. Each value is text without a zero byte.
    #[must_use]
    pub fn env(&self) -> &[(String, SecretValue)] {
        &self.env
    }

    /// Files, by absolute path.
    #[must_use]
    pub fn files(&self) -> &[(String, SecretValue)] {
        &self.files
    }

    /// What must not be readable in its output.
    #[must_use]
    pub fn mask(&self) -> &[SecretValue] {
        &self.mask
    }

    /// Put together again from what [`Self::env`], [`Self::files`] and [`Self::mask`] gave.
    pub(crate) fn of_parts(
        env: Vec<(String, SecretValue)>,
        files: Vec<(String, SecretValue)>,
        mask: Vec<SecretValue>,
    ) -> Self {
        Self { env, files, mask }
    }
}

/// The fields of a JSON object: their text, or their JSON where they aren't text. `None`: it is none.
fn fields(value: &SecretValue) -> Option<BTreeMap<String, SecretValue>> {
    let object: BTreeMap<String, serde_json::Value> = serde_json::from_slice(value.expose()).ok()?;
    let text = |value| match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    let fields = object
        .into_iter()
        .map(|(key, value)| (key, SecretValue::from(text(value))));
    Some(fields.collect())
}

fn field(secret: &str, key: &str, value: &SecretValue) -> Result<SecretValue, ApiError> {
    let mut fields = fields(value).ok_or_else(|| {
        ApiError::invalid(
            "secrets",
            format!("the secret {secret} isn't a JSON object, so that it has no field '{key}'"),
        )
    })?;
    fields
        .remove(key)
        .ok_or_else(|| ApiError::not_found(format!("the secret {secret} has no field '{key}'")))
}

fn check_text(secret: &str, name: &str, value: &SecretValue) -> Result<(), ApiError> {
    let why = match value.expose_text() {
        None => "isn't text (UTF-8)",
        Some(text) if text.contains('\0') => "holds a zero byte",
        Some(text) if name.len() + text.len() + 2 > VARIABLE_MAX_BYTES => "is longer than 128 KiB",
        Some(_) => return Ok(()),
    };
    let message = format!("the secret {secret} can't be in the variable {name}: its value {why}; let it be a file");
    Err(ApiError::invalid("secrets", message))
}

#[cfg(test)]
mod tests {
    use api::ErrorCode;

    use super::*;

    fn env(name: &str, key: Option<&str>) -> SecretUse {
        SecretUse {
            secret: "db".to_owned(),
            key: key.map(str::to_owned),
            to: SecretTarget::Env(name.to_owned()),
        }
    }

    fn file(path: &str) -> SecretUse {
        SecretUse {
            to: SecretTarget::File(path.to_owned()),
            ..env("", None)
        }
    }

    fn value(bytes: &[u8]) -> SecretValue {
        SecretValue::from(bytes.to_vec())
    }

    #[test]
    fn values_and_fields_go_where_they_are_wanted() {
        let object = value(br#"{"user":"admin","port":5432,"deep":{"a":[1]}}"#);
        let uses = [
            env("A", None),
            env("B", Some("user")),
            env("C", Some("deep")),
            file("/run/x"),
        ];
        let values = vec![value(b"one"), object.clone(), object.clone(), value(b"\0\xff")];
        let secrets = Secrets::resolve(&uses, values, vec![value(b"older")]).unwrap();
        let env = |name: &str, text: &[u8]| (name.to_owned(), value(text));
        assert_eq!(
            secrets.env(),
            [env("A", b"one"), env("B", b"admin"), env("C", br#"{"a":[1]}"#)]
        );
        assert_eq!(secrets.files(), [env("/run/x", b"\0\xff")]);
        for hidden in [&b"one"[..], b"admin", b"5432", b"older", b"\0\xff", object.expose()] {
            assert!(secrets.mask().contains(&value(hidden)), "{hidden:?}");
        }
    }

    #[test]
    fn what_cant_be_is_named_without_the_value() {
        let object = br#"{"user":"hunter2"}"#;
        let cases: [(SecretUse, &[u8], ErrorCode, &[&str]); 4] = [
            (
                env("TOKEN", None),
                b"hunter2\0",
                ErrorCode::InvalidArgument,
                &["TOKEN", "db", "zero"],
            ),
            (
                env("TOKEN", None),
                b"hunter2\xff",
                ErrorCode::InvalidArgument,
                &["TOKEN", "db", "UTF-8"],
            ),
            (env("TOKEN", Some("pass")), object, ErrorCode::NotFound, &["pass", "db"]),
            (
                env("TOKEN", Some("pass")),
                b"hunter2",
                ErrorCode::InvalidArgument,
                &["pass", "db"],
            ),
        ];
        for (entry, bytes, code, words) in cases {
            let error = Secrets::resolve(&[entry], vec![value(bytes)], Vec::new()).unwrap_err();
            assert_eq!(error.code, code, "{error:?}");
            assert!(words.iter().all(|word| error.message.contains(word)), "{error:?}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
        // As long as it may be, and longer by one.
        let longest = VARIABLE_MAX_BYTES - "A=".len() - 1;
        let long = |length: usize| Secrets::resolve(&[env("A", None)], vec![value(&vec![b'x'; length])], Vec::new());
        assert!(long(longest).is_ok());
        assert!(long(longest + 1).unwrap_err().message.contains("128 KiB"));
        let error = Secrets::resolve(&[env("A", None)], Vec::new(), Vec::new()).unwrap_err();
        assert_eq!(error.code, ErrorCode::Internal);
    }
}
