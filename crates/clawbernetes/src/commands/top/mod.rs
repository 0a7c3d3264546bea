//! `clawbernetes top`
//!
//! Three parts that share nothing: keys and drawing on this thread, questions to the gateway on another, and between
//! them a state that is neither. However slow the gateway is, keys work.

mod detail;
mod fetch;
mod order;
mod state;
#[cfg(test)]
mod tests;
mod view;

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
    sync::mpsc::{self, TryRecvError},
    time::Duration,
};

use api::{ApiError, ErrorCode, Span, Timestamp};
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyEventKind},
};
use tokio::sync::watch;

use self::{
    fetch::Message,
    state::{Flow, State, Tab, Want},
};
use crate::{
    cli::App,
    client::Client,
    failure::{Failure, Outcome},
    output::Format,
};

/// How long keys are waited for before answers are looked at.
const TICK: Duration = Duration::from_millis(50);
/// Bounds of `--interval`: what a gateway bears, and what may still be called live.
const INTERVAL: (Span, Span) = (Span(500), Span::secs(3600));
/// Columns and lines of a frame where there is no terminal.
const PAPER: (u16, u16) = (120, 40);
/// Columns and lines below which nothing can be told.
const LEAST: (u16, u16) = (40, 10);

/// Watch nodes, GPUs and workloads live in the terminal
///
/// Rows begin with what needs a look: what is wrong, then what is hottest and busiest. Press ? for the keys.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes top\n  clawbernetes top --tab gpus --interval 5s\n  \
    clawbernetes top --once --tab workloads\n\n\
    Keys: 1 2 3 tabs, arrows move, Enter detail, / filter, s sort, r reverse, p pause, ? help, q quit."
)]
pub(crate) struct Args {
    /// Ask the gateway at most this often: 500ms to 1h
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = interval)]
    interval: Span,
    /// What to show first
    #[arg(long, value_enum, default_value_t)]
    tab: Tab,
    /// Print one frame as text, and end
    #[arg(long)]
    once: bool,
}

/// The flag's value.
fn interval(text: &str) -> Result<Span, String> {
    match text.parse::<Span>() {
        Ok(span) if (INTERVAL.0..=INTERVAL.1).contains(&span) => Ok(span),
        Ok(_) => Err("it is less than 500ms or more than 1h".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

impl Args {
    pub(crate) fn run(self, app: &App) -> Outcome {
        if app.out.format != Format::Table {
            return Err(refuse(
                "a live view has no form for programs",
                "clawbernetes status --json",
            ));
        }
        let terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
        if !self.once && !terminal {
            let hint = "clawbernetes status, or one frame as text: clawbernetes top --once";
            return Err(refuse("a live view needs a terminal", hint));
        }
        let (client, _) = app.session()?;
        let now = Timestamp::now();
        let color = app.out.view().color;
        let mut state = State::new(client.endpoint().to_string(), self.interval, color, self.tab, now);
        if self.once {
            return app.block_on(async {
                state.apply(Ok(fetch::fetch(&client, state.want().need).await?));
                state.now = Timestamp::now();
                let (width, height) = paper();
                state.resize(width, height);
                app.out.print(&view::text(&state, width, height))?;
                Ok(ExitCode::SUCCESS)
            });
        }
        live(client, state)
    }
}

fn refuse(message: &str, hint: &str) -> Failure {
    ApiError::new(ErrorCode::InvalidArgument, message).hint(hint).into()
}

/// Size of a frame as text: the terminal's, where there is one.
fn paper() -> (u16, u16) {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
    let size = size.map(|size| (size.ws_col, size.ws_row));
    size.filter(|(width, height)| *width >= LEAST.0 && *height >= LEAST.1)
        .unwrap_or(PAPER)
}

/// The terminal while it shows the live view. However that ends, the terminal is as before; after a panic too.
struct Screen(DefaultTerminal);

impl Screen {
    fn open() -> io::Result<Self> {
        ratatui::try_init().map(Self)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Where the terminal has gone there is nothing to put right.
        let _ = ratatui::try_restore();
    }
}

/// Runs the live view until someone has seen enough.
fn live(client: Client, mut state: State) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| ApiError::internal("the runtime can't be made").cause(error.to_string()))?;
    let (tell, told) = mpsc::channel();
    let (want, wanted) = watch::channel(state.want());
    runtime.spawn(fetch::signals(tell.clone()));
    let interval = Duration::from_millis(state.interval.millis());
    let asking = runtime.spawn(fetch::keep(client, wanted, tell, interval));
    let mut screen = Screen::open().map_err(unusable)?;
    let outcome = show(&mut screen.0, &mut state, &told, &want, || asking.is_finished());
    drop(screen);
    runtime.shutdown_background();
    outcome
}

fn unusable(error: io::Error) -> Failure {
    ApiError::internal("the terminal can't be used")
        .cause(error.to_string())
        .into()
}

fn show(
    terminal: &mut DefaultTerminal,
    state: &mut State,
    told: &mpsc::Receiver<Message>,
    want: &watch::Sender<Want>,
    deaf: impl Fn() -> bool,
) -> Outcome {
    let mut drawn = None;
    loop {
        state.now = Timestamp::now();
        // Ages are told in seconds.
        if drawn != Some(state.now.as_second()) {
            drawn = Some(state.now.as_second());
            let size = terminal.size().map_err(unusable)?;
            state.resize(size.width, size.height);
            terminal
                .draw(|frame| view::draw(state, frame.area(), frame.buffer_mut()))
                .map_err(unusable)?;
        }
        let mut wait = TICK;
        while event::poll(wait).map_err(unusable)? {
            wait = Duration::ZERO;
            drawn = None;
            if let Event::Key(key) = event::read().map_err(unusable)?
                && key.kind != KeyEventKind::Release
                && state.key(key) == Flow::Quit
            {
                return Ok(ExitCode::SUCCESS);
            }
        }
        loop {
            match told.try_recv() {
                Ok(Message::Asking) => state.asking = Some(Timestamp::now()),
                Ok(Message::Answered(answer)) => state.apply(*answer),
                Ok(Message::Quit) => return Ok(ExitCode::SUCCESS),
                Err(TryRecvError::Empty) if !deaf() => break,
                Err(_) => return Err(ApiError::internal("what asks the gateway has ended").into()),
            }
            drawn = None;
        }
        let now = state.want();
        want.send_if_modified(|before| std::mem::replace(before, now) != now);
    }
}
