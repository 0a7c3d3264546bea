//! Asks a language model to say in the grammar's words what the grammar couldn't read. Whatever it answers is read by the
//! grammar like any other sentence, and does nothing else.

use api::{ApiError, ErrorCode, deploy::Service};
use llm::{LlmError, Model, SecretString};
use rollout::intent::GUIDE;
use serde_json::json;

use crate::{
    decide::submit::DEFAULT_NAMESPACE,
    hub::now,
    secrets::{Place, Secrets},
    serve::App,
};

/// Most names of services that a model is told.
const NAMES_MAX: usize = 500;

/// Which model, and where its key is.
#[derive(Debug, Clone)]
pub struct ReaderOptions {
    /// Which, and where it is asked.
    pub model: llm::Options,
    /// Its key.
    pub key: ModelKey,
}

/// A model's key.
#[derive(Debug, Clone)]
pub enum ModelKey {
    /// This one.
    Given(SecretString),
    /// The fleet's secret of this name, in the namespace `default`; read at each use, so that it can be rotated.
    Secret(String),
}

/// A model that is asked.
#[derive(Debug)]
pub struct Reader {
    model: Model,
    key: ModelKey,
}

impl Reader {
    /// A model that is asked when it is needed, not before.
    ///
    /// # Errors
    /// It can't be asked so; in words.
    pub fn new(options: ReaderOptions) -> Result<Self, String> {
        let model = Model::new(options.model).map_err(|error| error.to_string())?;
        Ok(Self {
            model,
            key: options.key,
        })
    }

    /// The model's name, for the record.
    #[must_use]
    pub fn name(&self) -> &str {
        self.model.name()
    }

    /// A sentence of the grammar, or what might be one, in place of these words.
    ///
    /// # Errors
    /// There is none, or the model doesn't answer; with what to do.
    pub async fn rewrite(&self, app: &App, words: &str, namespace: &str) -> Result<String, ApiError> {
        let key = self.key(app).await?;
        let context = {
            let view = app.hub.view();
            let here = view.services().filter(|s| s.namespace == namespace);
            let names: Vec<&str> = here
                .map(|s| -> &Service { s })
                .map(|s| s.name.as_str())
                .take(NAMES_MAX)
                .collect();
            json!({ "namespace": namespace, "services": names }).to_string()
        };
        let rewritten = self.model.rewrite(&key, words, GUIDE, &context).await;
        rewritten.map_err(|error| self.told(&error))
    }

    async fn key(&self, app: &App) -> Result<SecretString, ApiError> {
        match &self.key {
            ModelKey::Given(key) => Ok(key.clone()),
            ModelKey::Secret(name) => {
                let secrets = Secrets {
                    store: app.hub.store(),
                    trust: &app.trust,
                };
                let place = Place::new(DEFAULT_NAMESPACE, name)?;
                let opened = secrets.open(&place, None, now()).await?;
                let text = std::str::from_utf8(opened.value.expose());
                text.map(|text| SecretString::from(text.trim()))
                    .map_err(|_| ApiError::invalid("llm-key-secret", format!("the secret '{name}' is no text")))
            }
        }
    }

    fn told(&self, error: &LlmError) -> ApiError {
        let code = match error {
            LlmError::Deadline { .. } => ErrorCode::TimedOut,
            _ => ErrorCode::InvalidArgument,
        };
        ApiError::new(code, format!("{} gave no reading: {error}", self.name()))
    }
}
