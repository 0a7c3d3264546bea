//! A model that can be asked.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{self, HeaderName, HeaderValue};
use reqwest::{Client, redirect::Policy};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, sleep, timeout};
use zeroize::Zeroizing;

use crate::extras::Extras;
use crate::judge::{self, Heard, Next, So};
use crate::options::Endpoint;
use crate::wire::{self, Question, Said};
use crate::{LlmError, Options, OptionsError, Provider, prompt, sentence, text};

/// Most bytes of an answer that are read: a sentence has a few hundred.
pub const ANSWER_MAX_BYTES: usize = 64 << 10;

/// Most bytes of a question, system and prompt together: what may be sent out, and paid for, at once.
pub const PROMPT_MAX_BYTES: usize = 256 << 10;

/// Most characters of what a provider says against a question that are told.
const TOLD_MAX_CHARS: usize = 200;
/// Most characters of the word for why a model stopped.
const REASON_MAX_CHARS: usize = 40;

/// A model that can be asked. Shared: questions don't wait for one another.
#[derive(Debug)]
pub struct Model {
    client: Client,
    provider: Provider,
    name: String,
    endpoint: Endpoint,
    deadline: Duration,
    /// What the model turned out to take.
    extras: Mutex<Extras>,
}

/// A server's answer.
struct Answer {
    status: u16,
    retry_after: Option<Duration>,
    is_json: bool,
    /// At most [`ANSWER_MAX_BYTES`].
    body: Vec<u8>,
    /// There is no more of it.
    whole: bool,
}

impl Model {
    /// Ready to be asked; reads the system's certificates and the variables that name proxies (`HTTPS_PROXY`,
    /// `NO_PROXY`), and calls nobody.
    ///
    /// # Errors
    /// It can't be asked so.
    pub fn new(options: Options) -> Result<Self, OptionsError> {
        let endpoint = options.endpoint()?;
        // Whoever came first in this process has set the same one.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut client = Client::builder()
            // A redirected POST becomes a GET, or takes the key elsewhere.
            .redirect(Policy::none())
            // Questions are rare: an idle connection would be dead by the next one.
            .pool_max_idle_per_host(0)
            .user_agent(concat!("clawbernetes/", env!("CARGO_PKG_VERSION")));
        if endpoint.here {
            // What goes to this machine in the clear mustn't leave it.
            client = client.no_proxy();
        }
        let client = client.build().map_err(|error| OptionsError::Tls(chain(&error)))?;
        let name = options.model.trim().to_owned();
        Ok(Self {
            client,
            provider: options.provider,
            extras: Mutex::new(Extras::first(options.provider, &name)),
            name,
            endpoint,
            deadline: options.deadline,
        })
    }

    /// Whose interface it speaks.
    #[must_use]
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// What its provider calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Asks for a sentence of a grammar that says what these words do.
    ///
    /// `words`: what a person wrote, at most 4 KiB. `guide`: the grammar, for the model; trusted. `context`: what exists,
    /// such as names of services; data. Nothing but these three goes out. The sentence is one line without anything
    /// hidden in it, and may still be none of the grammar, or another one than was meant: parse it, and show it
    /// before it is applied. Dropping the future ends the exchange.
    ///
    /// # Errors
    /// There is no sentence; why, and what to do.
    pub async fn rewrite(
        &self,
        key: &SecretString,
        words: &str,
        guide: &str,
        context: &str,
    ) -> Result<String, LlmError> {
        let data = prompt::data(words, context)?;
        let system = prompt::system(guide);
        let answer = self.exchange(key, &system, &data, prompt::SENTENCE_MAX_TOKENS).await?;
        sentence::one(&answer, key.expose_secret().trim())
    }

    /// Asks anything. The answer is what the model says: visible characters and line breaks, neither true nor harmless
    /// for that.
    ///
    /// `system`: what it is to do. `prompt`: with what. `max_tokens`: most tokens of the answer; where a model can't be kept from
    /// thinking, 4,096 more are asked for. Dropping the future ends the exchange.
    ///
    /// # Errors
    /// There is no whole answer; why, and what to do.
    pub async fn ask(
        &self,
        key: &SecretString,
        system: &str,
        prompt: &str,
        max_tokens: u32,
    ) -> Result<String, LlmError> {
        let answer = self.exchange(key, system, prompt, max_tokens).await?;
        let answer = text::visible(&answer);
        if answer.is_empty() {
            return Err(LlmError::Empty);
        }
        Ok(answer)
    }

    /// One question and its answer, as it came, within the deadline.
    async fn exchange(
        &self,
        key: &SecretString,
        system: &str,
        prompt: &str,
        max_tokens: u32,
    ) -> Result<String, LlmError> {
        let bytes = system.len() + prompt.len();
        if bytes > PROMPT_MAX_BYTES {
            let what = "the question with its context";
            return Err(LlmError::TooLong {
                what,
                bytes,
                max_bytes: PROMPT_MAX_BYTES,
            });
        }
        let question = Question {
            model: &self.name,
            system,
            prompt,
            max_tokens,
        };
        let deadline = self.deadline;
        timeout(deadline, self.attempts(key, question))
            .await
            .unwrap_or(Err(LlmError::Deadline { deadline }))
    }

    async fn attempts(&self, key: &SecretString, question: Question<'_>) -> Result<String, LlmError> {
        let begun = Instant::now();
        // Copied secrets end with a line break.
        let key = key.expose_secret().trim();
        let credential = self.credential(key)?;
        let mut extras = *self.extras.lock().unwrap_or_else(PoisonError::into_inner);
        let mut retried = false;
        loop {
            let body = wire::question(self.provider, question, extras);
            let answer = self.post(&credential, body).await?;
            let complaint = wire::complaint(&answer.body);
            let told = text::told(&complaint, TOLD_MAX_CHARS, key);
            let so = So {
                provider: self.provider,
                host: &self.endpoint.host,
                model: &self.name,
                extras,
                retried,
                left: self.deadline.saturating_sub(begun.elapsed()),
            };
            let heard = Heard {
                status: answer.status,
                retry_after: answer.retry_after,
                complaint,
                told,
            };
            match judge::next(&so, heard) {
                Next::Read => return self.read(answer, extras.tokens(question.max_tokens), key),
                Next::Tell(error) => return Err(error),
                Next::Wait(wait) => {
                    retried = true;
                    sleep(wait).await;
                }
                Next::With(less) => {
                    extras = less;
                    *self.extras.lock().unwrap_or_else(PoisonError::into_inner) = less;
                }
            }
        }
    }

    /// The header that shows the key.
    fn credential(&self, key: &str) -> Result<(HeaderName, HeaderValue), LlmError> {
        let unusable = LlmError::Key {
            provider: self.provider,
        };
        if key.is_empty() {
            return Err(unusable);
        }
        let (name, value) = match self.provider {
            Provider::Anthropic => (HeaderName::from_static("x-api-key"), Zeroizing::new(key.to_owned())),
            Provider::OpenAi | Provider::Zai => (header::AUTHORIZATION, Zeroizing::new(format!("Bearer {key}"))),
        };
        let mut value = HeaderValue::from_str(&value).map_err(|_| unusable)?;
        value.set_sensitive(true);
        Ok((name, value))
    }

    async fn post(&self, (name, value): &(HeaderName, HeaderValue), body: Vec<u8>) -> Result<Answer, LlmError> {
        let mut request = self
            .client
            .post(self.endpoint.url.clone())
            .header(name, value)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json");
        if self.provider == Provider::Anthropic {
            request = request.header("anthropic-version", "2023-06-01");
        }
        let mut response = request.body(body).send().await.map_err(|error| self.fault(error))?;
        let header = |name: HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok());
        let content_type = header(header::CONTENT_TYPE).unwrap_or_default();
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        let mut answer = Answer {
            status: response.status().as_u16(),
            retry_after: judge::retry_after(header(header::RETRY_AFTER)),
            is_json: essence.eq_ignore_ascii_case("application/json"),
            body: Vec::new(),
            whole: true,
        };
        while let Some(chunk) = response.chunk().await.map_err(|error| self.fault(error))? {
            let room = ANSWER_MAX_BYTES - answer.body.len();
            if chunk.len() > room {
                answer.whole = false;
                break;
            }
            answer.body.extend_from_slice(&chunk);
        }
        Ok(answer)
    }

    /// What the model said, of an answer that is one.
    fn read(&self, answer: Answer, max_tokens: u32, key: &str) -> Result<String, LlmError> {
        let host = || self.endpoint.host.clone();
        if !answer.whole {
            let max_bytes = ANSWER_MAX_BYTES;
            return Err(LlmError::TooLarge {
                host: host(),
                max_bytes,
            });
        }
        let provider = self.provider;
        let unreadable = |why| LlmError::Unreadable {
            host: host(),
            provider,
            why,
        };
        if !answer.is_json {
            return Err(unreadable("isn't said to be JSON"));
        }
        match wire::answer(provider, &answer.body).map_err(unreadable)? {
            Said::All(text) => Ok(text),
            Said::CutOff => Err(LlmError::CutOff { max_tokens }),
            Said::Refused => Err(LlmError::Refused),
            Said::Stopped(reason) => {
                let reason = text::told(&reason, REASON_MAX_CHARS, key).unwrap_or_else(|| "unknown".to_owned());
                Err(LlmError::Stopped { reason })
            }
        }
    }

    /// Why there is no answer at all.
    fn fault(&self, error: reqwest::Error) -> LlmError {
        let connect = error.is_connect();
        let cause = chain(&error.without_url());
        let host = self.endpoint.host.clone();
        if connect {
            LlmError::Unreachable { host, cause }
        } else {
            LlmError::Broken { host, cause }
        }
    }
}

/// An error with its causes.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
