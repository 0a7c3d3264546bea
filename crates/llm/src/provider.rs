//! Whose models can be asked.

use std::{fmt, str::FromStr};

/// A company's interface. Other servers that speak the same can stand in for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Provider {
    /// Anthropic's Messages: `claude`, or `anthropic`.
    Anthropic,
    /// OpenAI's Chat Completions, which many other servers speak: `openai`.
    OpenAi,
    /// Z.ai's Chat Completions: `zai`.
    Zai,
}

impl Provider {
    /// All of them, as they are listed to people.
    pub const ALL: [Self; 3] = [Self::Anthropic, Self::OpenAi, Self::Zai];

    /// The environment variable in which its key is looked for by custom.
    #[must_use]
    pub const fn key_env(self) -> &'static str {
        match self {
            Self::Anthropic => "ANTHROPIC_API_KEY",
            Self::OpenAi => "OPENAI_API_KEY",
            Self::Zai => "ZAI_API_KEY",
        }
    }

    /// What it calls itself.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Anthropic => "Anthropic",
            Self::OpenAi => "OpenAI",
            Self::Zai => "Z.ai",
        }
    }

    /// The model that is asked unless another is named: a current one (November 2026) that takes the request not to think
    /// first, which a sentence doesn't need.
    #[must_use]
    pub const fn default_model(self) -> &'static str {
        match self {
            Self::Anthropic => "claude-haiku-5-5",
            Self::OpenAi => "gpt-6-luna",
            Self::Zai => "glm-4.7",
        }
    }

    /// Where it is.
    pub(crate) const fn address(self) -> &'static str {
        match self {
            Self::Anthropic => "https://api.anthropic.com",
            Self::OpenAi => "https://api.openai.com",
            Self::Zai => "https://api.z.ai",
        }
    }

    /// What comes before the method in its paths: the interface's version.
    pub(crate) const fn version_path(self) -> &'static str {
        match self {
            Self::Anthropic | Self::OpenAi => "/v1",
            Self::Zai => "/api/paas/v4",
        }
    }

    /// The method that is called.
    pub(crate) const fn method_path(self) -> &'static str {
        match self {
            Self::Anthropic => "/messages",
            Self::OpenAi | Self::Zai => "/chat/completions",
        }
    }
}

/// The word that flags take.
impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Anthropic => "claude",
            Self::OpenAi => "openai",
            Self::Zai => "zai",
        })
    }
}

/// There is no such provider.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no provider of language models: claude, openai or zai")]
pub struct UnknownProvider(pub String);

impl FromStr for Provider {
    type Err = UnknownProvider;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "claude" | "anthropic" => Ok(Self::Anthropic),
            "openai" => Ok(Self::OpenAi),
            "zai" => Ok(Self::Zai),
            _ => Err(UnknownProvider(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_flags_read_back() {
        for provider in Provider::ALL {
            assert_eq!(provider.to_string().parse(), Ok(provider));
        }
        assert_eq!("Anthropic".parse(), Ok(Provider::Anthropic));
        let error = "bard".parse::<Provider>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "'bard' is no provider of language models: claude, openai or zai"
        );
    }
}
