//! From the words of a command line to a command, and from its end to an exit status.

use std::{future::Future, io::Write, process::ExitCode};

use api::{
    ApiError, ErrorCode,
    op::{DeployRef, WorkloadRef},
};
use clap::{CommandFactory, Parser, error::ErrorKind};
use clap_complete::CompleteEnv;

use crate::{
    client::Client,
    commands::Command,
    config::Settings,
    failure::{Failure, Outcome},
    output::{Format, Output},
};

/// Exit status of a command that Ctrl-C interrupted.
pub(crate) const INTERRUPTED: u8 = 130;

/// One fleet out of your GPU machines: submit work, see it run, look after the nodes.
#[derive(Debug, Parser)]
#[command(
    name = "clawbernetes",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    max_term_width = 110,
    after_help = "Exit status: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 not allowed, 5 unreachable, \
                  6 no capacity, 7 timed out, 8 conflict.\n\
                  Settings come from flags, then the environment, then the current context (clawbernetes context list)."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// Flags that every command takes.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Globals {
    /// The gateway's address [env: CLAWBERNETES_GATEWAY_URL] [default: ws://localhost:9000]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) gateway: Option<String>,
    /// The token to show it [env: CLAWBERNETES_TOKEN]
    #[arg(long, global = true, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// The namespace of names [env: CLAWBERNETES_NAMESPACE] [default: default]
    #[arg(long, short = 'n', global = true, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// A file with the authority that the gateway's certificate is of [env: CLAWBERNETES_CA]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca: Option<std::path::PathBuf>,
    /// Speak unencrypted with others than this machine: tokens travel in the clear [env: CLAWBERNETES_INSECURE=1]
    #[arg(long, global = true)]
    pub(crate) insecure: bool,
    /// The context to use instead of the current one [env: CLAWBERNETES_CONTEXT]
    // Not `--context`: that is the lines around a match in `logs`.
    #[arg(long, global = true, value_name = "NAME", add = crate::complete::contexts())]
    pub(crate) use_context: Option<String>,
    /// Print one JSON document
    #[arg(long, global = true, conflicts_with = "output")]
    json: bool,
    /// Print in this form
    #[arg(long, short = 'o', global = true, value_enum, value_name = "FORM")]
    output: Option<Format>,
}

/// What a command has at hand.
pub(crate) struct App {
    /// The flags that every command takes.
    pub(crate) globals: Globals,
    /// Where results go.
    pub(crate) out: Output,
}

impl App {
    /// Gateway, token and namespace, and where each came from.
    pub(crate) fn settings(&self) -> Result<Settings, ApiError> {
        Settings::resolve(&self.globals)
    }

    /// A client of the gateway.
    pub(crate) fn client(&self) -> Result<Client, ApiError> {
        Ok(self.session()?.0)
    }

    /// A client of the gateway, and the settings that it was made from.
    pub(crate) fn session(&self) -> Result<(Client, Settings), ApiError> {
        let settings = self.settings()?;
        Ok((settings.client(), settings))
    }

    /// Runs a command that only calls the gateway.
    pub(crate) fn block_on(&self, command: impl Future<Output = Outcome>) -> Outcome {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| ApiError::internal("the runtime can't be made").cause(error.to_string()))?;
        let outcome = runtime.block_on(command);
        // A thread may still wait for standard input.
        runtime.shutdown_background();
        outcome
    }
}

impl Settings {
    /// Names a workload, in the namespace that was named.
    pub(crate) fn workload(&self, id: &str) -> WorkloadRef {
        WorkloadRef {
            id: id.to_owned(),
            namespace: self.named_namespace(),
        }
    }

    /// Names a deployment, or the latest of a service, in the namespace that was named.
    pub(crate) fn deployment(&self, id: &str) -> DeployRef {
        DeployRef {
            id: id.to_owned(),
            namespace: self.named_namespace(),
        }
    }
}

/// The whole of the program.
pub(crate) fn main() -> ExitCode {
    CompleteEnv::with_factory(Cli::command).complete();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let format = match (cli.globals.json, cli.globals.output) {
        (true, _) => Format::Json,
        (false, format) => format.unwrap_or_default(),
    };
    let app = App {
        globals: cli.globals,
        out: Output::new(format),
    };
    match cli.command.run(&app) {
        Ok(code) => code,
        Err(failure) => failure.report(app.out.for_programs()),
    }
}

/// Tells what is wrong with the words, or prints the help that was asked for.
fn usage(error: &clap::Error) -> ExitCode {
    let help = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    if help {
        // A closed pipe leaves nothing to say.
        let _ = error.print();
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
    }
    let plain = error.render().to_string();
    let text = plain.strip_prefix("error: ").unwrap_or(&plain);
    let json = std::env::args().any(|word| matches!(word.as_str(), "--json" | "-ojson" | "--output=json"));
    if json {
        let mut paragraphs = text.splitn(2, "\n\n");
        let message = paragraphs.next().unwrap_or_default().replace('\n', " ");
        let told = ApiError::new(ErrorCode::InvalidArgument, message.trim());
        let told = match paragraphs.next().map(str::trim).filter(|rest| !rest.is_empty()) {
            Some(rest) => told.hint(rest),
            None => told,
        };
        return Failure::from(told).report(true);
    }
    let _ = write!(std::io::stderr(), "error[{}]: {text}", ErrorCode::InvalidArgument);
    ExitCode::from(ErrorCode::InvalidArgument.exit_status())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_value_of_a_secret_is_in_what_is_said_of_a_command_line() {
        for line in [
            "secret set db --value canary",
            "secret set db --value canary --expires soon",
            "secret set db --value canary --expires 0s",
            "secret set db --value canary --file x",
            "secret set db --value canary --vlaue canary",
            "secret set db canary canary",
            "secret set db - canary",
            "secret rotate db --value canary --generate",
            "secret rotate db --value=canary --keep-versions many",
            "secret rotate db canary --ttl 1",
        ] {
            let said = match Cli::try_parse_from(std::iter::once("clawbernetes").chain(line.split(' '))) {
                Ok(cli) => format!("{cli:?}"),
                Err(error) => format!("{error} {error:?}"),
            };
            assert!(!said.contains("canary"), "{line}: {said}");
        }
    }

    #[test]
    fn the_form_of_a_secret_is_that_of_all_commands_and_one_more() {
        let form = |line: &str| {
            let cli = Cli::try_parse_from(line.split(' '))?;
            let Command::Secret(_) = &cli.command else {
                panic!("{line}");
            };
            Ok::<_, clap::Error>((cli.globals.json, cli.globals.output))
        };
        assert_eq!(
            form("c secret get a --output value").unwrap(),
            (false, Some(Format::Table))
        );
        assert_eq!(form("c secret get a -o yaml").unwrap(), (false, Some(Format::Yaml)));
        assert_eq!(form("c -o jsonl secret get a").unwrap(), (false, Some(Format::Jsonl)));
        assert_eq!(form("c secret get a --json").unwrap(), (true, None));
        assert!(form("c secret list -o value").is_err());
        assert!(form("c secret get a --json -o yaml").is_err());
    }

    #[test]
    fn every_command_and_flag_has_help() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(
                command.get_about().is_some() || command.is_hide_set(),
                "{path} has no help"
            );
            for arg in command.get_arguments() {
                assert!(arg.get_help().is_some(), "{path}: {} has no help", arg.get_id());
            }
            for inner in command.get_subcommands() {
                check(inner, &path);
            }
        }
        check(&Cli::command(), "");
    }
}
