//! Which gateway, which token, which namespace: flags, then the environment, then the current context, then defaults.
//! Each value remembers where it came from.

use std::{
    collections::BTreeMap,
    env, fmt, fs, io,
    path::{Path, PathBuf},
};

use api::{ApiError, ErrorCode, Reason};
use serde::{Deserialize, Serialize};

use vault::tls::Trust;

use crate::{
    cli::Globals,
    client::{Client, Endpoint},
    local,
};

/// The gateway where nothing names another.
pub(crate) const DEFAULT_GATEWAY: &str = "ws://localhost:9000";

/// The namespace where nothing names another.
pub(crate) const DEFAULT_NAMESPACE: &str = "default";

/// Path of the context file, in place of the usual one.
pub(crate) const CONFIG_VARIABLE: &str = "CLAWBERNETES_CONFIG";
/// The gateway's address.
pub(crate) const GATEWAY_VARIABLE: &str = "CLAWBERNETES_GATEWAY_URL";
/// The token.
pub(crate) const TOKEN_VARIABLE: &str = "CLAWBERNETES_TOKEN";
/// The namespace.
pub(crate) const NAMESPACE_VARIABLE: &str = "CLAWBERNETES_NAMESPACE";
/// A file with the authority that the gateway's certificate is of.
pub(crate) const CA_VARIABLE: &str = "CLAWBERNETES_CA";
/// `1`: speak unencrypted with others than this machine.
pub(crate) const INSECURE_VARIABLE: &str = "CLAWBERNETES_INSECURE";
/// The context to use instead of the current one.
pub(crate) const CONTEXT_VARIABLE: &str = "CLAWBERNETES_CONTEXT";

/// The name of the context that `auth login` makes where there is none.
pub(crate) const FIRST_CONTEXT: &str = "default";

/// The context file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Config {
    /// The context that commands use. `None`: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) current_context: Option<String>,
    /// The contexts, by name.
    pub(crate) contexts: BTreeMap<String, Context>,
}

/// A named gateway, with token and namespace.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Context {
    /// Its address. `None`: the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gateway: Option<String>,
    /// The token for it. `None`: none, or the local one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
    /// The namespace. `None`: the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<String>,
    /// The authority that its certificate is of, PEM. `None`: what the token says, or those that this machine trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) authority: Option<String>,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("gateway", &self.gateway)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("namespace", &self.namespace)
            .finish()
    }
}

impl Config {
    /// Where the context file lies.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` where this user has no home.
    pub(crate) fn path() -> Result<PathBuf, ApiError> {
        if let Some(path) = env::var_os(CONFIG_VARIABLE).filter(|path| !path.is_empty()) {
            return Ok(path.into());
        }
        let folder = local::xdg_dir("XDG_CONFIG_HOME", ".config").ok_or_else(|| {
            ApiError::new(ErrorCode::InvalidArgument, "there is no place for the context file")
                .cause("neither HOME nor XDG_CONFIG_HOME is set")
                .hint(format!("name one with {CONFIG_VARIABLE}=/path/to/config.yaml"))
        })?;
        Ok(folder.join("clawbernetes/config.yaml"))
    }

    /// Reads the context file; where there is none, an empty one.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with the place where it can't be understood, `PERMISSION_DENIED` where it holds a token and
    /// others can read it.
    pub(crate) fn load(path: &Path) -> Result<Self, ApiError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => {
                return Err(ApiError::new(
                    ErrorCode::InvalidArgument,
                    format!("the context file {} can't be read", path.display()),
                )
                .cause(error.to_string()));
            }
        };
        let config: Self = if text.trim().is_empty() {
            Self::default()
        } else {
            let options = serde_saphyr::options! { with_snippet: false };
            serde_saphyr::from_str_with_options(&text, options).map_err(|error| {
                ApiError::new(
                    ErrorCode::InvalidArgument,
                    format!("the context file {} can't be understood", path.display()),
                )
                .cause(error.to_string())
                .hint("mend it, or write it anew with: clawbernetes context set NAME --gateway URL")
            })?
        };
        if config.contexts.values().any(|context| context.token.is_some()) {
            local::check_private(path)?;
        }
        Ok(config)
    }

    /// Writes the context file, for its owner alone.
    ///
    /// # Errors
    /// `INTERNAL` where it can't be written.
    pub(crate) fn save(&self, path: &Path) -> Result<(), ApiError> {
        let refuse = |cause: String| {
            ApiError::internal(format!("the context file {} can't be written", path.display())).cause(cause)
        };
        let text = serde_saphyr::to_string(self).map_err(|error| refuse(error.to_string()))?;
        gateway::private::write(path, &text).map_err(|error| refuse(error.to_string()))
    }

    /// The context of this name.
    ///
    /// # Errors
    /// `NOT_FOUND`, with the nearest name or all names.
    pub(crate) fn context(&self, name: &str) -> Result<&Context, ApiError> {
        self.contexts.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
            let error = ApiError::not_found(format!("there is no context '{name}'"));
            match api::nearest(name, names.iter().copied()) {
                Some(near) => error.hint(format!("did you mean '{near}'?")),
                None if names.is_empty() => {
                    error.hint(format!("make it with: clawbernetes context set {name} --gateway URL"))
                }
                None => error.hint(format!("there are: {}", names.join(", "))),
            }
        })
    }
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// A flag of the command.
    Flag(&'static str),
    /// An environment variable.
    Variable(&'static str),
    /// A context of the context file.
    Context(String),
    /// The file that a gateway of this user on this machine left.
    Local(PathBuf),
    /// Nothing named another.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => f.write_str(flag),
            Self::Variable(name) => write!(f, "environment {name}"),
            Self::Context(name) => write!(f, "context {name}"),
            Self::Local(path) => write!(f, "{}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A value and where it came from.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Sourced<T> {
    /// The value.
    pub(crate) value: T,
    /// Where it came from.
    pub(crate) source: Source,
}

/// What a command needs to know to call the gateway.
pub(crate) struct Settings {
    /// The gateway's address.
    pub(crate) gateway: Sourced<String>,
    /// The same, taken apart.
    pub(crate) endpoint: Endpoint,
    /// The token. `None`: none was found.
    pub(crate) token: Option<Sourced<String>>,
    /// Whom to trust, if the gateway speaks TLS.
    pub(crate) trust: Trust,
    /// The namespace.
    pub(crate) namespace: Sourced<String>,
    /// The context in use. `None`: none.
    pub(crate) context: Option<String>,
}

/// A value from the environment; empty counts as unset.
fn variable(name: &'static str) -> Option<Sourced<String>> {
    let value = env::var(name).ok().filter(|value| !value.is_empty())?;
    Some(Sourced {
        value,
        source: Source::Variable(name),
    })
}

impl Settings {
    /// Resolves flags, environment, context and defaults.
    ///
    /// # Errors
    /// What is wrong with the context file, the address or the token's file.
    pub(crate) fn resolve(globals: &Globals) -> Result<Self, ApiError> {
        let config = Config::load(&Config::path()?)?;
        Self::of(globals, &config, variable)
    }

    fn of(
        globals: &Globals,
        config: &Config,
        variable: impl Fn(&'static str) -> Option<Sourced<String>>,
    ) -> Result<Self, ApiError> {
        let flag = |value: &Option<String>, flag| {
            value.clone().map(|value| Sourced {
                value,
                source: Source::Flag(flag),
            })
        };
        let context_name = flag(&globals.use_context, "--use-context")
            .or_else(|| variable(CONTEXT_VARIABLE))
            .map(|context| context.value)
            .or_else(|| config.current_context.clone());
        let context = match &context_name {
            Some(name) => Some(config.context(name)?),
            None => None,
        };
        let of_context = |value: Option<&String>| {
            value.map(|value| Sourced {
                value: value.clone(),
                source: Source::Context(context_name.clone().unwrap_or_default()),
            })
        };
        let gateway = flag(&globals.gateway, "--gateway")
            .or_else(|| variable(GATEWAY_VARIABLE))
            .or_else(|| of_context(context.and_then(|c| c.gateway.as_ref())))
            .unwrap_or_else(|| Sourced {
                value: DEFAULT_GATEWAY.to_owned(),
                source: Source::Default,
            });
        let endpoint = Endpoint::parse(&gateway.value).map_err(|error| match &gateway.source {
            Source::Default => error,
            source => error.cause(format!("the address came from: {source}")),
        })?;
        let mut token = flag(&globals.token, "--token")
            .or_else(|| variable(TOKEN_VARIABLE))
            .or_else(|| of_context(context.and_then(|c| c.token.as_ref())));
        if token.is_none() && endpoint.loopback() {
            token = local::read_token(endpoint.port)?.map(|(value, path)| Sourced {
                value,
                source: Source::Local(path),
            });
        }
        let insecure = globals.insecure || variable(INSECURE_VARIABLE).is_some_and(|v| v.value == "1");
        if !endpoint.tls && !endpoint.loopback() && !insecure {
            return Err(ApiError::invalid(
                "gateway",
                format!("{endpoint} would be called unencrypted: the token could be read on the way"),
            )
            .because(Reason::TlsRequired)
            .hint(format!("call it by wss://{}, or say --insecure", endpoint.authority())));
        }
        let file = globals
            .ca
            .clone()
            .or_else(|| variable(CA_VARIABLE).map(|v| v.value.into()));
        let kept = context.filter(|_| matches!(gateway.source, Source::Context(_)));
        let trust = match (file, kept.and_then(|context| context.authority.as_ref())) {
            (Some(file), _) => trust_file(&file)?,
            (None, Some(pem)) => trust_pem(pem).map_err(|cause| {
                ApiError::invalid("authority", "the context's authority can't be read").cause(cause)
            })?,
            (None, None) => match token.as_ref().and_then(|token| fingerprint(&token.value)) {
                Some(fingerprint) => Trust::Fingerprint(fingerprint.to_owned()),
                None => Trust::System,
            },
        };
        let namespace = flag(&globals.namespace, "--namespace")
            .or_else(|| variable(NAMESPACE_VARIABLE))
            .or_else(|| of_context(context.and_then(|c| c.namespace.as_ref())))
            .unwrap_or_else(|| Sourced {
                value: DEFAULT_NAMESPACE.to_owned(),
                source: Source::Default,
            });
        Ok(Self {
            gateway,
            endpoint,
            token,
            trust,
            namespace,
            context: context_name,
        })
    }

    /// A client of the gateway.
    pub(crate) fn client(&self) -> Client {
        let token = self.token.as_ref().map(|token| token.value.clone());
        Client::new(self.endpoint.clone(), token, self.trust.clone())
    }

    /// The namespace, where somebody named one.
    pub(crate) fn named_namespace(&self) -> Option<String> {
        (self.namespace.source != Source::Default).then(|| self.namespace.value.clone())
    }
}

/// The fingerprint of the fleet's root at the end of a token. `None`: it has none.
pub(crate) fn fingerprint(token: &str) -> Option<&str> {
    let (_, fingerprint) = token.trim().rsplit_once('.')?;
    (fingerprint.len() == 64 && fingerprint.bytes().all(|b| b.is_ascii_hexdigit())).then_some(fingerprint)
}

fn trust_file(file: &Path) -> Result<Trust, ApiError> {
    let text = fs::read_to_string(file).map_err(|error| error.to_string());
    text.and_then(|text| trust_pem(&text)).map_err(|cause| {
        ApiError::invalid("ca", format!("{} holds no authority's certificate", file.display())).cause(cause)
    })
}

fn trust_pem(text: &str) -> Result<Trust, String> {
    let all = vault::pki::certificates(text).map_err(|error| error.to_string())?;
    // Where there are several, the root is the last.
    all.into_iter()
        .next_back()
        .map(Trust::Root)
        .ok_or_else(|| "it is empty".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config {
            current_context: Some("lab".to_owned()),
            contexts: BTreeMap::from([
                (
                    "lab".to_owned(),
                    Context {
                        gateway: Some("wss://lab:9100".to_owned()),
                        token: Some("lab-token".to_owned()),
                        namespace: None,
                        authority: None,
                    },
                ),
                (
                    "prod".to_owned(),
                    Context {
                        gateway: Some("wss://prod".to_owned()),
                        token: None,
                        namespace: Some("train".to_owned()),
                        authority: None,
                    },
                ),
            ]),
        }
    }

    fn nothing(_: &'static str) -> Option<Sourced<String>> {
        None
    }

    #[test]
    fn flags_come_before_variables_before_the_context_before_defaults() {
        let of_env = |name: &'static str| {
            (name == GATEWAY_VARIABLE).then(|| Sourced {
                value: "https://env:1".to_owned(),
                source: Source::Variable(name),
            })
        };
        let mut globals = Globals::default();
        let settings = Settings::of(&globals, &config(), of_env).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(settings.gateway.value, "https://env:1");
        assert_eq!(
            settings.token.map(|t| t.source),
            Some(Source::Context("lab".to_owned()))
        );
        assert_eq!(settings.namespace.source, Source::Default);

        globals.gateway = Some("wss://flag:2".to_owned());
        let settings = Settings::of(&globals, &config(), of_env).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(
            (settings.gateway.value.as_str(), settings.endpoint.port),
            ("wss://flag:2", 2)
        );

        globals.gateway = None;
        globals.use_context = Some("prod".to_owned());
        let settings = Settings::of(&globals, &config(), nothing).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(settings.gateway.source, Source::Context("prod".to_owned()));
        assert_eq!(settings.named_namespace().as_deref(), Some("train"));
        assert!(settings.token.is_none());
    }

    #[test]
    fn an_unknown_context_names_the_nearest() {
        let error = config().context("pord").unwrap_err();
        assert_eq!(error.code, ErrorCode::NotFound);
        assert_eq!(error.hint.as_deref(), Some("did you mean 'prod'?"));
    }

    #[test]
    fn the_file_survives_a_round_trip_and_is_private() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("clawbernetes/config.yaml");
        config().save(&path).unwrap();
        assert_eq!(Config::load(&path).unwrap(), config());
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        assert_eq!(Config::load(&path).unwrap_err().code, ErrorCode::PermissionDenied);
        fs::write(&path, "contexts: {a: {gatway: x}}").unwrap();
        let error = Config::load(&path).unwrap_err();
        assert!(error.cause.unwrap_or_default().contains("gatway"));
    }

    #[test]
    fn tokens_are_not_in_debug_output() {
        assert!(!format!("{:?}", config()).contains("lab-token"));
    }
}
