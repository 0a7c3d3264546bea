//! `clawbernetes alerts silence`

use std::process::ExitCode;

use api::{
    ApiError, Span,
    op::{AlertSilence, SilenceRequest},
};

use crate::{cli::App, failure::Outcome};

/// Hold alerts back for a while: nobody is told of them, they are listed all the same
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  clawbernetes alerts silence dc0a5722 --for 2h\n  \
    clawbernetes alerts silence node=gpu-7 --for 4h --comment \"new fans\"\n  \
    clawbernetes alerts silence 'rule=~gpu-.*' 'severity!=critical' --for 30m")]
pub(crate) struct Args {
    /// An alert's id or the beginning of it, or matchers that must all match an alert's labels: node=gpu-7
    /// rule=~gpu-.* severity!=critical team!~a|b
    #[arg(required = true, value_name = "ALERT|MATCHER", add = crate::complete::alerts())]
    what: Vec<String>,
    /// For how long
    #[arg(long = "for", value_name = "DURATION")]
    duration: Span,
    /// Why
    #[arg(long, short = 'm', value_name = "TEXT", default_value = "")]
    comment: String,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let is_id = |text: &String| !text.contains(['=', '~', '!']);
        let (alert, matchers) = match self.what.as_slice() {
            [one] if is_id(one) => (Some(one.clone()), Vec::new()),
            many => match many.iter().find(|text| is_id(text)) {
                Some(id) => {
                    let message = format!("'{id}' is no matcher, and only one alert can be named");
                    return Err(ApiError::invalid("what", message)
                        .hint("one alert's id, or matchers: node=gpu-7 severity!=critical")
                        .into());
                }
                None => (None, many.to_vec()),
            },
        };
        let request = SilenceRequest {
            alert,
            matchers,
            duration: self.duration,
            comment: self.comment,
        };
        let silence = app.client()?.call::<AlertSilence>(&request).await?;
        app.out.show(&silence)?;
        Ok(ExitCode::SUCCESS)
    }
}
