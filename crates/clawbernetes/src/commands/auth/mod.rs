//! `clawbernetes auth`

mod device;
mod join_token;
mod login;
mod status;
mod token;
mod whoami;

use crate::{cli::App, failure::Outcome};

/// What can be done with identities.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Login(login::Args),
    Status(status::Args),
    Whoami(whoami::Args),
    /// Tokens of people and programs
    #[command(subcommand)]
    Token(token::Command),
    JoinToken(join_token::Args),
}

impl Command {
    pub(crate) fn run(self, app: &App) -> Outcome {
        match self {
            Self::Login(args) => app.block_on(args.run(app)),
            Self::Status(args) => app.block_on(args.run(app)),
            Self::Whoami(args) => app.block_on(args.run(app)),
            Self::Token(command) => command.run(app),
            Self::JoinToken(args) => app.block_on(args.run(app)),
        }
    }
}

/// A duration, or `never`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Expiry(Option<api::Span>);

impl std::str::FromStr for Expiry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "never" {
            return Ok(Self(None));
        }
        match text.parse::<api::Span>() {
            Ok(span) if span.is_zero() => Err("it would have expired at once".to_owned()),
            Ok(span) => Ok(Self(Some(span))),
            Err(error) => Err(format!("{error}, or never")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_expire_after_a_span_or_never() {
        assert_eq!("90d".parse(), Ok(Expiry(Some(api::Span::secs(90 * 86_400)))));
        assert_eq!("never".parse(), Ok(Expiry(None)));
        assert!("0s".parse::<Expiry>().is_err());
        assert!("soon".parse::<Expiry>().is_err_and(|e| e.contains("accepted")));
    }
}
