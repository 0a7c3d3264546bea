//! Images: fetched where they are absent, with progress in bytes and growing pauses after failures.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use api::{ErrorCode, wire::PullProgress, workload::Outcome};
use bollard::{models::CreateImageInfo, query_parameters::CreateImageOptionsBuilder};
use futures_util::StreamExt;
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    config::with_tag,
    daemon::{Daemon, Kind, kind, words},
};

/// A pull without a word from the daemon for this long has failed.
const SILENCE_MAX: Duration = Duration::from_secs(300);

/// Least time between two reports of progress.
const REPORT_EVERY: Duration = Duration::from_millis(250);

const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Remembers failed pulls, so that nobody asks a registry for the same image again and again.
#[derive(Debug, Default)]
pub(super) struct Pulls {
    failed: Mutex<HashMap<String, Failed>>,
}

#[derive(Debug, Clone, Copy)]
struct Failed {
    pause: Duration,
    not_before: Instant,
}

impl Pulls {
    fn not_before(&self, image: &str) -> Option<Instant> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.get(image).map(|failed| failed.not_before)
    }

    fn note(&self, image: &str, worked: bool, now: Instant) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        // Images that nobody has asked for in a long while.
        failed.retain(|_, failed| now.saturating_duration_since(failed.not_before) < PAUSE_MAX * 10);
        if worked {
            failed.remove(image);
            return;
        }
        let pause = failed
            .get(image)
            .map_or(PAUSE_MIN, |failed| (failed.pause * 2).min(PAUSE_MAX));
        failed.insert(
            image.to_owned(),
            Failed {
                pause,
                not_before: now + pause,
            },
        );
    }

    /// Makes sure that an image is there. `report` is called at once when it has to be fetched, then at most four
    /// times a second. After failed pulls of the same image the next one waits, up to a minute.
    ///
    /// # Errors
    /// Always an [`Outcome::StartFailed`].
    pub(super) async fn ensure(
        &self,
        daemon: &Daemon,
        image: &str,
        mut report: impl FnMut(PullProgress),
    ) -> Result<(), Outcome> {
        let image = with_tag(image);
        match daemon.call(daemon.api().inspect_image(&image)).await {
            Ok(_) => return Ok(()),
            Err(error) => match kind(&error) {
                Kind::Missing => {}
                Kind::Refused => return Err(refused(&image, &words(&error))),
                _ => return Err(trouble(&image, &words(&error))),
            },
        }
        report(PullProgress::default());
        if let Some(not_before) = self.not_before(&image) {
            sleep_until(not_before).await;
        }
        let pulled = pull(daemon, &image, report).await;
        self.note(&image, pulled.is_ok(), Instant::now());
        pulled
    }
}

async fn pull(daemon: &Daemon, image: &str, mut report: impl FnMut(PullProgress)) -> Result<(), Outcome> {
    let options = CreateImageOptionsBuilder::new().from_image(image).build();
    let mut answers = Box::pin(daemon.open().create_image(Some(options), None, None));
    let mut layers = Layers::default();
    let mut last = Instant::now();
    loop {
        match timeout(SILENCE_MAX, answers.next()).await {
            Ok(Some(Ok(info))) => {
                if layers.take(&info) && last.elapsed() >= REPORT_EVERY {
                    last = Instant::now();
                    report(layers.progress());
                }
            }
            Ok(Some(Err(error))) => return Err(failure(image, kind(&error), &words(&error))),
            Ok(None) => break,
            Err(_) => return Err(trouble(image, "nothing was heard of the pull for five minutes")),
        }
    }
    report(layers.progress());
    match daemon.call(daemon.api().inspect_image(image)).await {
        Ok(_) => Ok(()),
        Err(error) => Err(trouble(image, &words(&error))),
    }
}

/// Bytes of an image's layers.
#[derive(Debug, Default)]
struct Layers(HashMap<String, (u64, u64)>);

impl Layers {
    /// Whether the message says something new of the bytes that have arrived.
    fn take(&mut self, info: &CreateImageInfo) -> bool {
        let Some(id) = info.id.clone() else { return false };
        let size = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0);
        let layer = self.0.entry(id).or_default();
        let before = *layer;
        match (info.status.as_deref(), &info.progress_detail) {
            (Some("Downloading"), Some(detail)) => {
                if let Some(total) = size(detail.total) {
                    layer.1 = total;
                }
                if let Some(current) = size(detail.current) {
                    layer.0 = current;
                    layer.1 = layer.1.max(current);
                }
            }
            (Some("Download complete" | "Pull complete" | "Verifying Checksum"), _) => layer.0 = layer.1,
            _ => {}
        }
        *layer != before
    }

    fn progress(&self) -> PullProgress {
        let (done_bytes, total_bytes) = self
            .0
            .values()
            .fold((0, 0), |(done, total), layer| (done + layer.0, total + layer.1));
        PullProgress {
            done_bytes,
            total_bytes,
        }
    }
}

/// What a registry says of an image that isn't there, or isn't for us; many don't tell the two apart.
const NOT_FOUND: [&str; 8] = [
    "manifest unknown",
    "not found",
    "does not exist",
    "no such image",
    "no matching manifest",
    "access denied",
    "denied:",
    "unauthorized",
];

fn failure(image: &str, kind: Kind, words: &str) -> Outcome {
    let lower = words.to_lowercase();
    // "server gave HTTP response", "no such host", "connection refused" come as 404 or 500 alike: words first.
    let network = [
        "no such host",
        "dial tcp",
        "i/o timeout",
        "connection re",
        "tls",
        "eof",
        "http response",
        "http status",
        "deadline exceeded",
    ]
    .iter()
    .any(|sign| lower.contains(sign));
    if lower.contains("no space left") {
        Outcome::StartFailed {
            code: ErrorCode::StorageFull,
            message: format!("no room for image {image}: {words}"),
            retryable: true,
        }
    } else if network {
        Outcome::StartFailed {
            code: ErrorCode::ImageNotFound,
            message: format!("image {image} can't be fetched from its registry: {words}"),
            retryable: true,
        }
    } else if kind == Kind::Missing || NOT_FOUND.iter().any(|sign| lower.contains(sign)) {
        Outcome::StartFailed {
            code: ErrorCode::ImageNotFound,
            message: format!("image {image} can't be found: {words}"),
            retryable: false,
        }
    } else if kind == Kind::Refused {
        refused(image, words)
    } else {
        trouble(image, words)
    }
}

fn refused(image: &str, words: &str) -> Outcome {
    Outcome::StartFailed {
        code: ErrorCode::InvalidArgument,
        message: format!("'{image}' is no image: {words}"),
        retryable: false,
    }
}

fn trouble(image: &str, words: &str) -> Outcome {
    Outcome::StartFailed {
        code: ErrorCode::Internal,
        message: format!("image {image} couldn't be fetched: {words}"),
        retryable: true,
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::ProgressDetail;

    use super::*;

    fn said(id: &str, status: &str, current: i64, total: i64) -> CreateImageInfo {
        CreateImageInfo {
            id: Some(id.to_owned()),
            status: Some(status.to_owned()),
            progress_detail: Some(ProgressDetail {
                current: Some(current),
                total: Some(total),
            }),
            ..Default::default()
        }
    }

    #[test]
    fn bytes_are_summed_over_layers() {
        let mut layers = Layers::default();
        assert!(!layers.take(&said("1", "Pulling from library/x", 0, 0)));
        assert!(layers.take(&said("a", "Downloading", 10, 100)));
        assert!(layers.take(&said("b", "Downloading", 5, 50)));
        assert!(layers.take(&said("a", "Download complete", 0, 0)));
        assert!(!layers.take(&said("a", "Extracting", 3, 100)));
        assert_eq!(
            layers.progress(),
            PullProgress {
                done_bytes: 105,
                total_bytes: 150
            }
        );
    }

    #[test]
    fn what_registries_say_is_understood() {
        let code = |kind, words| match failure("x:1", kind, words) {
            Outcome::StartFailed { code, retryable, .. } => (code, retryable),
            other => panic!("{other:?}"),
        };
        for words in [
            "manifest for x:1 not found: manifest unknown: manifest unknown",
            "pull access denied for x, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
            "no matching manifest for linux/arm64/v8 in the manifest list entries",
            "Head \"https://registry/v2/x/manifests/1\": unauthorized: authentication required",
        ] {
            assert_eq!(code(Kind::Failed, words), (ErrorCode::ImageNotFound, false), "{words}");
        }
        for words in [
            "Get \"http://127.0.0.1:5000/v2/\": dial tcp 127.0.0.1:5000: connect: connection refused",
            "Get \"https://registry-1.docker.io/v2/\": dial tcp: lookup registry-1.docker.io: no such host",
            "net/http: TLS handshake timeout",
            "received unexpected HTTP status: 503 Service Unavailable",
            "Get \"http://127.0.0.1:5000/v2/\": context deadline exceeded",
        ] {
            assert_eq!(code(Kind::Failed, words), (ErrorCode::ImageNotFound, true), "{words}");
            assert_eq!(code(Kind::Away, words), (ErrorCode::ImageNotFound, true), "{words}");
        }
        assert_eq!(
            code(Kind::Failed, "layer does match nothing"),
            (ErrorCode::Internal, true)
        );
        assert_eq!(
            code(Kind::Failed, "write /var/lib/docker/tmp/x: no space left on device"),
            (ErrorCode::StorageFull, true)
        );
        assert_eq!(
            code(Kind::Refused, "invalid reference format"),
            (ErrorCode::InvalidArgument, false)
        );
    }

    #[test]
    fn pauses_after_failures_grow_and_are_forgotten() {
        let pulls = Pulls::default();
        let now = Instant::now();
        assert_eq!(pulls.not_before("x"), None);
        pulls.note("x", false, now);
        assert_eq!(pulls.not_before("x"), Some(now + PAUSE_MIN));
        pulls.note("x", false, now);
        assert_eq!(pulls.not_before("x"), Some(now + PAUSE_MIN * 2));
        for _ in 0..10 {
            pulls.note("x", false, now);
        }
        assert_eq!(pulls.not_before("x"), Some(now + PAUSE_MAX));
        pulls.note("x", true, now);
        assert_eq!(pulls.not_before("x"), None);
    }
}
