//! Which model is asked, where, and for how long.

use std::{net::IpAddr, time::Duration};

use reqwest::Url;

use crate::{OptionsError, Provider};

/// How long a whole exchange may take unless said otherwise: people wait for it.
const DEADLINE: Duration = Duration::from_secs(30);

/// Most characters of a model's name; the longest known have about 60.
const MODEL_MAX_CHARS: usize = 128;

/// Which model is asked, where, and for how long. The key isn't here: it is given with each question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Whose interface is spoken.
    pub provider: Provider,
    /// The model, as its provider calls it.
    pub model: String,
    /// Another server that speaks the same: `https://HOST`, or up to and with the interface's version, as in
    /// `http://127.0.0.1:11434/v1`. Plain HTTP goes to this machine alone, and by no proxy. `None`: the provider's own.
    pub base_url: Option<Url>,
    /// The whole exchange, with connecting and anything that is tried again. More than zero.
    pub deadline: Duration,
}

impl Options {
    /// The provider's own server, its default model, 30 seconds.
    #[must_use]
    pub fn of(provider: Provider) -> Self {
        Self {
            provider,
            model: provider.default_model().to_owned(),
            base_url: None,
            deadline: DEADLINE,
        }
    }

    /// Checks all, and tells where questions go.
    pub(crate) fn endpoint(&self) -> Result<Endpoint, OptionsError> {
        let model = self.model.trim();
        if model.is_empty() || model.chars().count() > MODEL_MAX_CHARS || model.chars().any(char::is_control) {
            return Err(OptionsError::ModelName { max: MODEL_MAX_CHARS });
        }
        if self.deadline.is_zero() {
            return Err(OptionsError::NoTime);
        }
        let own = || Url::parse(self.provider.address()).map_err(|_| OptionsError::Address("it is no URL"));
        let mut url = self.base_url.clone().map_or_else(own, Ok)?;
        // It stands in errors and on the command line.
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            return Err(OptionsError::Address("it holds more than a host and a path"));
        }
        let host = url.host_str().unwrap_or_default().to_owned();
        let here = host == "localhost"
            || host
                .trim_matches(['[', ']'])
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback());
        match url.scheme() {
            "https" => {}
            "http" if here => {}
            _ => return Err(OptionsError::Address("it isn't https (http is for this machine alone)")),
        }
        let path = url.path().trim_end_matches('/');
        let version = if ends_with_version(path) {
            ""
        } else {
            self.provider.version_path()
        };
        let path = format!("{path}{version}{}", self.provider.method_path());
        url.set_path(&path);
        Ok(Endpoint { url, host, here })
    }
}

/// Where questions go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// The method's address.
    pub url: Url,
    /// Its host, for messages.
    pub host: String,
    /// It is this machine.
    pub here: bool,
}

/// Whether a path ends in `/v1`, `/v4` or the like.
fn ends_with_version(path: &str) -> bool {
    let last = path.rsplit('/').next().unwrap_or_default();
    last.strip_prefix('v')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(provider: Provider, base: &str) -> Result<String, OptionsError> {
        let base_url = Some(Url::parse(base).unwrap());
        let options = Options {
            base_url,
            ..Options::of(provider)
        };
        options.endpoint().map(|endpoint| endpoint.url.to_string())
    }

    #[test]
    fn paths_are_the_documented_ones() {
        use Provider::{Anthropic, OpenAi, Zai};
        for (provider, url) in [
            (Anthropic, "https://api.anthropic.com/v1/messages"),
            (OpenAi, "https://api.openai.com/v1/chat/completions"),
            (Zai, "https://api.z.ai/api/paas/v4/chat/completions"),
        ] {
            assert_eq!(Options::of(provider).endpoint().unwrap().url.as_str(), url);
        }
        for (provider, base, url) in [
            (
                OpenAi,
                "http://127.0.0.1:11434/v1",
                "http://127.0.0.1:11434/v1/chat/completions",
            ),
            (OpenAi, "http://[::1]:8000/", "http://[::1]:8000/v1/chat/completions"),
            (
                Anthropic,
                "https://proxy.example/claude/",
                "https://proxy.example/claude/v1/messages",
            ),
            (
                Zai,
                "https://api.z.ai/api/coding/paas/v4",
                "https://api.z.ai/api/coding/paas/v4/chat/completions",
            ),
        ] {
            assert_eq!(at(provider, base).unwrap(), url);
        }
    }

    #[test]
    fn what_would_tell_the_key_to_others_is_refused() {
        for bad in [
            "http://10.0.0.5:8000/v1",
            "http://localhost.example/",
            "ftp://127.0.0.1/",
            "https://me:hunter2@api.example/",
            "https://api.example/?key=hunter2",
            "https://api.example/#hunter2",
        ] {
            let error = at(Provider::OpenAi, bad).unwrap_err();
            assert!(matches!(error, OptionsError::Address(_)), "{bad}: {error}");
            assert!(!error.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn a_model_has_a_name_and_time() {
        for model in ["", "  ", "a\nb", &"m".repeat(129)] {
            let model = model.to_owned();
            let options = Options {
                model,
                ..Options::of(Provider::Zai)
            };
            assert!(matches!(options.endpoint(), Err(OptionsError::ModelName { .. })));
        }
        let deadline = Duration::ZERO;
        let options = Options {
            deadline,
            ..Options::of(Provider::Zai)
        };
        assert_eq!(options.endpoint(), Err(OptionsError::NoTime));
    }
}
