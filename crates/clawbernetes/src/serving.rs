//! What the commands that serve have in common: the runtime, traces, where things are kept, and when to end.

use std::{
    future::Future,
    io::{self, IsTerminal},
    path::PathBuf,
    process::ExitCode,
};

use api::{ApiError, ErrorCode};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::{failure::Outcome, local};

/// Names what is traced: `info`, `debug`, `gateway=debug,info`.
const LOG_VARIABLE: &str = "CLAWBERNETES_LOG";

/// Begins to trace on standard error, at this level where the environment names none.
pub(crate) fn trace(level: &str) {
    let filter = EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new(level));
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    // A second call in one process keeps the first one's settings.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && !no_color)
        .try_init();
}

/// Runs a server on all cores until it ends; the token is cancelled by Ctrl-C and SIGTERM.
pub(crate) fn run<F>(serve: impl FnOnce(CancellationToken) -> F) -> Outcome
where
    F: Future<Output = Result<ExitCode, ApiError>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| ApiError::internal("the runtime can't be made").cause(error.to_string()))?;
    let outcome = runtime.block_on(async {
        let stop = CancellationToken::new();
        tokio::spawn(cancel_on_signal(stop.clone()));
        serve(stop).await
    });
    runtime.shutdown_background();
    Ok(outcome?)
}

async fn cancel_on_signal(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut term) = signal(SignalKind::terminate()) else {
        return;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = term.recv() => {}
    }
    stop.cancel();
}

/// Where this user's data lies: `$XDG_DATA_HOME/clawbernetes`.
pub(crate) fn data_dir(part: &str) -> Result<PathBuf, ApiError> {
    local::xdg_dir("XDG_DATA_HOME", ".local/share")
        .map(|dir| dir.join("clawbernetes").join(part))
        .ok_or_else(|| {
            ApiError::new(ErrorCode::InvalidArgument, "there is no home folder to keep data in")
                .hint("name one with --data DIR")
        })
}

/// An error with its causes, as it leaves the system.
pub(crate) fn chain(code: ErrorCode, error: &dyn std::error::Error) -> ApiError {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    let told = ApiError::new(code, error.to_string());
    if causes.is_empty() {
        told
    } else {
        told.cause(causes.join(": "))
    }
}
