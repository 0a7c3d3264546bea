//! The demonstration: one training job, from its submission to its end.

use api::{
    ApiError, Span,
    op::{LogsRequest, NodeFilter, NodeList, Submission, SubmitRequest, WorkloadLogs, WorkloadSubmit, WorkloadWatch},
    workload::{GpuRequest, HOST_IMAGE, Phase, WorkloadSpec},
};

use crate::{cli::App, client::Client};

/// Submits the sample training job and shows it through to its end.
pub(super) async fn run(app: &App, client: &Client) -> Result<(), ApiError> {
    let nodes = client.call::<NodeList>(&NodeFilter::default()).await?;
    let gpus = u32::from(nodes.iter().any(|n| n.gpus_free > 0));
    let program = std::env::current_exe()
        .map_err(|e| ApiError::internal("this program's own path is unknown").cause(e.to_string()))?;
    let command: Vec<String> = vec![program.to_string_lossy().into_owned(), "demo-train".to_owned()];
    let spec = WorkloadSpec {
        image: HOST_IMAGE.to_owned(),
        command,
        gpus: GpuRequest {
            count: gpus,
            ..GpuRequest::default()
        },
        timeout: Some(Span::secs(600)),
        ..WorkloadSpec::default()
    };
    let submission = Submission {
        spec,
        ..Submission::default()
    };
    let request = SubmitRequest {
        workloads: vec![submission],
        ..SubmitRequest::default()
    };
    let submitted = client.call::<WorkloadSubmit>(&request).await?;
    let Some(workload) = submitted.first().map(|s| &s.workload) else {
        return Err(ApiError::internal("nothing was submitted"));
    };
    let id = workload.id.to_string();
    app.out.note(&format!(
        "\ndemo     a training job asks for {gpus} GPUs: {} ({id})",
        workload.name
    ));
    let watch = async {
        let reference = api::op::WorkloadRef {
            id: id.clone(),
            namespace: None,
        };
        let mut states = client.stream::<WorkloadWatch>(reference).await?;
        let mut shown = 0;
        while let Some(state) = states.next().await? {
            let w = state.workload;
            for step in w.timeline.iter().skip(shown) {
                let why = step.message.as_deref().map(|m| format!(": {m}")).unwrap_or_default();
                app.out.note(&format!("demo     {}{why}", step.phase));
            }
            shown = w.timeline.len();
            if w.phase.ended() {
                return Ok(w);
            }
        }
        Err(ApiError::internal("the gateway lost sight of the job"))
    };
    let logs = async {
        let request = LogsRequest {
            id: id.clone(),
            follow: true,
            ..LogsRequest::default()
        };
        let mut lines = client.stream::<WorkloadLogs>(request).await?;
        while let Some(line) = lines.next().await? {
            app.out
                .print(&format!("{}\n", line.text))
                .map_err(|_| ApiError::internal("the output can't be written"))?;
        }
        Ok::<(), ApiError>(())
    };
    let (ended, _) = tokio::try_join!(watch, logs)?;
    if ended.phase != Phase::Succeeded {
        let why = ended.message.unwrap_or_default();
        return Err(ApiError::internal(format!("the demo job is {}: {why}", ended.phase)));
    }
    app.out.note("");
    Ok(())
}
