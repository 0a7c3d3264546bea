//! A container's output on its way into the job's sink.
//!
//! While a container runs its log is followed; a broken stream is begun anew from the log's beginning, and
//! [`Lines`] leaves out what is kept already. Docker's follower sometimes ends before a log's last frames, so after
//! the container's end the tail is looked at once more.

use std::{
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use api::{
    Timestamp,
    workload::{JobKey, LogSource},
};
use bollard::{
    container::LogOutput,
    errors::Error,
    query_parameters::{LogsOptions, LogsOptionsBuilder},
};
use futures_util::{Stream, StreamExt};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    daemon::{BackOff, Daemon, Kind, kind},
    lines::{Line, Lines},
};
use crate::{
    mask::Mask,
    spool::{Sink, Sinks},
};

/// How long a line that can't be kept (a full disk) holds a job's output up before it is given up.
const STUCK_MAX: Duration = Duration::from_secs(30);

/// After a container's end its output must have come within this long, or what is missing is asked for.
const TAIL: Duration = Duration::from_millis(500);

/// A log that is read without waiting for more must give a sign of life this often.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Tries to read an ended container's log before its end is reported without.
const TRIES: u32 = 5;

/// Frames at a log's end among which the last known one is looked for before the whole log is read again.
const TAIL_FRAMES: usize = 1000;

/// What must not be readable in a job's output.
#[derive(Debug, Clone)]
pub(super) enum Masking {
    /// There is nothing that mustn't.
    Nothing,
    /// This.
    Hide(Arc<Mask>),
    /// Nobody can know any more, for this reason: nothing of it is kept.
    Unknown(String),
}

/// What the node has to say in a job's log.
pub(super) type Remarks = Arc<Mutex<Vec<String>>>;

/// The sink of a job, opened when it is first needed.
pub(super) struct Output {
    job: JobKey,
    sinks: Arc<dyn Sinks>,
    sink: Option<Box<dyn Sink>>,
    /// The time of the last line, kept or given up.
    last_ns: Option<i64>,
    /// Lines that couldn't be kept since one could.
    lost: u64,
    /// It was said that nothing more is kept.
    withheld: bool,
    remarks: Remarks,
}

impl Output {
    /// The output of a job, going on where an earlier life of the agent ended.
    pub(super) fn new(job: JobKey, sinks: Arc<dyn Sinks>) -> Self {
        let mut output = Self {
            job,
            sinks,
            sink: None,
            last_ns: None,
            lost: 0,
            withheld: false,
            remarks: Remarks::default(),
        };
        if let Err(error) = output.open() {
            tracing::warn!(job = %output.job, %error, "the job's log can't be opened");
        }
        output
    }

    /// With what the node has to say: each before the next line.
    pub(super) fn with(self, remarks: Remarks) -> Self {
        Self { remarks, ..self }
    }

    /// Keeps the node's own words. Their time is that of the line before: the engine's clock decides what was read.
    fn say(&mut self, next_ns: i64) {
        let remarks = std::mem::take(&mut *self.remarks.lock().unwrap_or_else(PoisonError::into_inner));
        for remark in remarks {
            let line = Line {
                source: LogSource::System,
                at_ns: self.last_ns.unwrap_or(next_ns - 1),
                text: remark.into_bytes(),
                partial: false,
            };
            if let Err(error) = self.append(&line) {
                tracing::warn!(job = %self.job, %error, "a remark can't be added to a job's log");
            }
        }
    }

    /// Says that nothing more of the output is kept, once.
    fn withhold(&mut self, why: &str) {
        if std::mem::replace(&mut self.withheld, true) {
            return;
        }
        let text = format!(
            "what it wrote since the node's agent was restarted isn't kept: its secrets couldn't be made unreadable in it ({why})"
        );
        self.remarks.lock().unwrap_or_else(PoisonError::into_inner).push(text);
        let now_ns = i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
        self.say(now_ns);
    }

    fn open(&mut self) -> std::io::Result<&mut Box<dyn Sink>> {
        match &mut self.sink {
            Some(sink) => Ok(sink),
            empty => {
                let sink = self.sinks.open(&self.job)?;
                self.last_ns = self.last_ns.max(sink.last().map(|(_, at_ns)| at_ns));
                Ok(empty.insert(sink))
            }
        }
    }

    fn append(&mut self, line: &Line) -> std::io::Result<u64> {
        self.open()?.append(line.source, line.at_ns, &line.text, line.partial)
    }

    /// Keeps a line; waits for a disk that is full, but not for ever.
    async fn keep(&mut self, line: Line) {
        let since = Instant::now();
        let mut back_off = BackOff::new();
        loop {
            // Opening late may show that an earlier life has kept it.
            if self.open().is_ok() && self.last_ns.is_some_and(|last| line.at_ns <= last) {
                return;
            }
            self.say(line.at_ns);
            match self.append(&line) {
                Ok(_) => {
                    if self.lost > 0 {
                        tracing::warn!(job = %self.job, lines = self.lost, "output was lost: it couldn't be written");
                        self.lost = 0;
                    }
                    break;
                }
                Err(error) if self.lost > 0 || since.elapsed() > STUCK_MAX => {
                    if self.lost == 0 {
                        tracing::warn!(job = %self.job, %error, "output can't be written and is given up");
                    }
                    self.lost += 1;
                    break;
                }
                Err(_) => back_off.wait().await,
            }
        }
        self.last_ns = Some(line.at_ns);
    }
}

/// What tells one frame of a log from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FrameId {
    source: LogSource,
    at_ns: i64,
    hash: u64,
}

/// A piece of a log: its identity and its bytes.
struct Frame {
    id: FrameId,
    bytes: Vec<u8>,
}

impl Frame {
    /// `None`: it isn't what Docker documents, and can't be placed in time.
    fn read(output: &LogOutput) -> Option<Self> {
        let (source, message) = match output {
            LogOutput::StdOut { message } | LogOutput::Console { message } => (LogSource::Stdout, message),
            LogOutput::StdErr { message } => (LogSource::Stderr, message),
            LogOutput::StdIn { .. } => return None,
        };
        let space = message.iter().position(|byte| *byte == b' ')?;
        let at: Timestamp = std::str::from_utf8(&message[..space]).ok()?.parse().ok()?;
        let bytes = &message[space + 1..];
        Some(Self {
            id: FrameId {
                source,
                at_ns: i64::try_from(at.as_nanosecond()).ok()?,
                hash: BuildHasherDefault::<DefaultHasher>::default().hash_one(bytes),
            },
            bytes: bytes.to_vec(),
        })
    }
}

/// Reads the log of one container into a job's output.
pub(super) struct Reader<'a> {
    daemon: &'a Daemon,
    container: &'a str,
    output: &'a mut Output,
    masking: watch::Receiver<Option<Masking>>,
    /// As soon as it is known what must not be readable.
    ready: bool,
    mask: Option<Arc<Mask>>,
    lines: Lines,
    /// The last frame that went into `lines`.
    last: Option<FrameId>,
    /// A frame is in `lines` of which not every line is in the output yet.
    amid: bool,
}

impl<'a> Reader<'a> {
    /// Nothing is read before it is known what must not be readable in it.
    pub(super) fn new(
        daemon: &'a Daemon,
        container: &'a str,
        output: &'a mut Output,
        masking: watch::Receiver<Option<Masking>>,
    ) -> Self {
        let lines = Lines::new(output.last_ns, None);
        Self {
            daemon,
            container,
            output,
            masking,
            ready: false,
            mask: None,
            lines,
            last: None,
            amid: false,
        }
    }

    fn open(&self, follow: bool, tail: Option<usize>) -> impl Stream<Item = Result<LogOutput, Error>> + use<> {
        let tail = tail.map_or_else(|| "all".to_owned(), |frames| frames.to_string());
        let options: LogsOptions = LogsOptionsBuilder::new()
            .follow(follow)
            .stdout(true)
            .stderr(true)
            .timestamps(true)
            .tail(&tail)
            .build();
        Box::pin(self.daemon.open().logs(self.container, Some(options)))
    }

    /// Waits until it is known what must not be readable. False: that will never be.
    async fn ready(&mut self) -> bool {
        if self.ready {
            return true;
        }
        // The sender is the job's own, which outlives this.
        let masking = self.masking.wait_for(Option::is_some).await;
        match masking.ok().and_then(|masking| masking.clone()) {
            Some(Masking::Nothing) => {}
            Some(Masking::Hide(mask)) => {
                self.mask = Some(mask);
                self.rewind();
            }
            Some(Masking::Unknown(why)) => {
                self.output.withhold(&why);
                return false;
            }
            None => return false,
        }
        self.ready = true;
        true
    }

    fn rewind(&mut self) {
        self.lines = Lines::new(self.output.last_ns, self.mask.as_ref());
        self.last = None;
        self.amid = false;
    }

    async fn take(&mut self, frame: Frame) {
        self.amid = true;
        for line in self.lines.frame(frame.id.source, frame.id.at_ns, &frame.bytes) {
            self.output.keep(line).await;
        }
        self.amid = false;
        self.last = Some(frame.id);
    }

    /// Follows the log until it has ended after `ended` was said.
    async fn follow(&mut self, ended: &CancellationToken) {
        if !self.ready().await {
            return ended.cancelled().await;
        }
        let mut back_off = BackOff::new();
        loop {
            let began = Instant::now();
            let mut answers = self.open(true, None);
            while let Some(answer) = answers.next().await {
                match answer {
                    Ok(answer) => {
                        if let Some(frame) = Frame::read(&answer) {
                            self.take(frame).await;
                        }
                    }
                    Err(error) => {
                        tracing::debug!(container = self.container, %error, "the log can't be followed");
                        break;
                    }
                }
            }
            if ended.is_cancelled() {
                return;
            }
            if began.elapsed() > Duration::from_secs(10) {
                back_off = BackOff::new();
            }
            tokio::select! {
                () = ended.cancelled() => return,
                () = back_off.wait() => {}
            }
            self.rewind();
        }
    }

    /// Follows the log while `running` goes on, and reads it to its end afterwards.
    pub(super) async fn until<T>(mut self, running: impl Future<Output = T>) -> T {
        let ended = CancellationToken::new();
        let result = {
            let mut follow = std::pin::pin!(self.follow(&ended));
            let result = tokio::select! {
                result = running => result,
                // It doesn't return before `ended` is said.
                () = &mut follow => std::future::pending().await,
            };
            ended.cancel();
            // What is still missing then is fetched below.
            let _ = timeout(TAIL, follow).await;
            result
        };
        self.finish().await;
        result
    }

    /// Reads the log of a container that has ended to its end.
    pub(super) async fn finish(mut self) {
        if !self.ready().await {
            return;
        }
        if self.amid {
            self.rewind();
        }
        let mut back_off = BackOff::new();
        for _ in 0..TRIES {
            match self.rest().await {
                Ok(()) => break,
                // Somebody removed it.
                Err(error) if kind(&error) == Kind::Missing => break,
                Err(error) => tracing::warn!(container = self.container, %error, "the log can't be read to its end"),
            }
            back_off.wait().await;
            self.rewind();
        }
        for line in self.lines.end() {
            self.output.keep(line).await;
        }
    }

    async fn rest(&mut self) -> Result<(), Error> {
        if let Some(last) = self.last {
            for frames in [1, TAIL_FRAMES] {
                let tail = self.tail(frames).await?;
                let mut same = tail.iter().enumerate().filter(|(_, frame)| frame.id == last);
                if let (Some((position, _)), None) = (same.next(), same.next()) {
                    for frame in tail.into_iter().skip(position + 1) {
                        self.take(frame).await;
                    }
                    return Ok(());
                }
            }
            self.rewind();
        }
        let mut answers = self.open(false, None);
        while let Some(answer) = next(&mut answers).await {
            if let Some(frame) = Frame::read(&answer?) {
                self.take(frame).await;
            }
        }
        Ok(())
    }

    async fn tail(&mut self, frames: usize) -> Result<Vec<Frame>, Error> {
        let mut answers = self.open(false, Some(frames));
        let mut tail = Vec::new();
        while let Some(answer) = next(&mut answers).await {
            tail.extend(Frame::read(&answer?));
        }
        Ok(tail)
    }
}

async fn next<S: Stream<Item = Result<LogOutput, Error>> + Unpin>(answers: &mut S) -> Option<S::Item> {
    timeout(SILENCE_MAX, answers.next())
        .await
        .unwrap_or(Some(Err(Error::RequestTimeoutError)))
}
