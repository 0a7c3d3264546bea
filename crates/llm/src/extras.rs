//! What a question has beyond the words: not every model takes all of it, and no list of models stays true.

use crate::Provider;

/// Tokens that a model may think with, in addition, if it can't be kept from it: they count towards the same limit.
const THINKING_TOKENS: u32 = 4096;

/// What a question has beyond the words. A server that refuses one by name (HTTP 400 or 422) is asked again without it,
/// at once, and from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extras {
    /// `temperature: 0`: the same words give the same sentence.
    pub temperature: bool,
    /// No thinking before the answer.
    pub no_thinking: bool,
    /// `store: false`: OpenAI isn't to keep the exchange.
    pub no_storing: bool,
    /// The limit is called `max_completion_tokens`, as OpenAI's newer models demand, and not `max_tokens`.
    pub new_limit: bool,
}

impl Extras {
    /// What is tried first.
    pub fn first(provider: Provider, model: &str) -> Self {
        let openai = provider == Provider::OpenAi;
        Self {
            // Claude's models since Opus 4.7 refuse it: the default needn't be asked twice.
            temperature: !(provider == Provider::Anthropic && model == provider.default_model()),
            no_thinking: true,
            no_storing: openai,
            new_limit: openai,
        }
    }

    /// What remains when a server says this against a question. `None`: it names none of them.
    pub fn after(self, provider: Provider, told: &str) -> Option<Self> {
        let thinking = match provider {
            Provider::OpenAi => "reasoning",
            Provider::Anthropic | Provider::Zai => "thinking",
        };
        let mut left = self;
        left.temperature &= !told.contains("temperature");
        left.no_thinking &= !told.contains(thinking);
        left.no_storing &= !told.contains("store");
        left.new_limit &= !told.contains("max_completion_tokens");
        (left != self).then_some(left)
    }

    /// The limit to ask for, if the answer may have this many tokens.
    pub fn tokens(self, answer: u32) -> u32 {
        answer.saturating_add(if self.no_thinking { 0 } else { THINKING_TOKENS })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_refused_goes_and_the_rest_stays() {
        let first = Extras::first(Provider::OpenAi, "gpt-9");
        let told = "Unsupported value: 'temperature' does not support 0 with this model.";
        let left = first.after(Provider::OpenAi, told).unwrap();
        assert_eq!(
            left,
            Extras {
                temperature: false,
                ..first
            }
        );
        assert_eq!(left.after(Provider::OpenAi, told), None, "it can't go twice");
        assert_eq!(left.after(Provider::OpenAi, "insufficient credit"), None);
        let told = "Unsupported value: 'reasoning_effort' does not support 'none' with this model.";
        let left = left.after(Provider::OpenAi, told).unwrap();
        assert_eq!((first.tokens(100), left.tokens(100)), (100, 4196));
    }

    #[test]
    fn only_claudes_default_is_known_to_take_no_temperature() {
        for provider in Provider::ALL {
            let first = Extras::first(provider, provider.default_model());
            assert_eq!(first.temperature, provider != Provider::Anthropic);
            assert!(Extras::first(provider, "another").temperature);
        }
    }
}
