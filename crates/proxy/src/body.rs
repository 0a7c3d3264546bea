//! Bodies on their way: counted, bounded in how long they may stand still, and the end of an exchange.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use crate::client::Serving;
use crate::counts::{Meter, add};
use crate::endpoint::Lease;
use crate::upstream::Link;

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The client sent nothing for too long.
    #[error("the client sent nothing for {0:?}")]
    Stalled(Duration),
    /// The connection it came on, or what came on it.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
}

/// How far a request's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// More may come.
    Going,
    /// All of it was passed on, or nobody takes it any more.
    Done,
    /// The client stood still for too long.
    Stalled,
    /// The client broke off.
    Broken,
}

/// Tells how far a request's body is, wherever it went.
#[derive(Debug, Default)]
pub struct Upload(AtomicU8);

impl Upload {
    pub fn progress(&self) -> Progress {
        match self.0.load(Relaxed) {
            0 => Progress::Going,
            1 => Progress::Done,
            2 => Progress::Stalled,
            _ => Progress::Broken,
        }
    }

    fn set(&self, progress: Progress) {
        let number = match progress {
            Progress::Going => 0,
            Progress::Done => 1,
            Progress::Stalled => 2,
            Progress::Broken => 3,
        };
        self.0.store(number, Relaxed);
    }
}

/// A request's body on its way to an endpoint. Nothing of it is read before somebody takes it.
pub struct RequestBody {
    /// `None`: there is none.
    incoming: Option<Incoming>,
    upload: Option<Arc<Upload>>,
    /// Who counts its bytes.
    pub meter: Option<Arc<Meter>>,
    /// How long the client may send nothing. `None`: for ever.
    stall: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl RequestBody {
    pub fn new(incoming: Incoming, stall: Option<Duration>) -> Self {
        let incoming = (!incoming.is_end_stream()).then_some(incoming);
        let upload = incoming.is_some().then(Arc::default);
        RequestBody {
            incoming,
            upload,
            meter: None,
            stall,
            timer: None,
        }
    }

    pub fn empty() -> Self {
        RequestBody {
            incoming: None,
            upload: None,
            meter: None,
            stall: None,
            timer: None,
        }
    }

    /// How far it is; `None`: there is no body.
    pub fn upload(&self) -> Option<Arc<Upload>> {
        self.upload.clone()
    }

    fn stalled(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        let Some(stall) = self.stall else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
        ready!(timer.as_mut().poll(cx));
        if let Some(upload) = &self.upload {
            upload.set(Progress::Stalled);
        }
        Poll::Ready(BodyError::Stalled(stall))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Some(incoming) = &mut this.incoming else {
            return Poll::Ready(None);
        };
        match Pin::new(incoming).poll_frame(cx) {
            Poll::Pending => this.stalled(cx).map(|error| Some(Err(error))),
            Poll::Ready(Some(Ok(frame))) => {
                this.timer = None;
                if let (Some(data), Some(meter)) = (frame.data_ref(), &this.meter) {
                    add(&meter.bytes_in, data.remaining() as u64);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                if let Some(upload) = &this.upload {
                    upload.set(Progress::Broken);
                }
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(upload) = &self.upload
            && upload.progress() == Progress::Going
        {
            upload.set(Progress::Done);
        }
    }
}

/// An answer's body on its way to the client.
pub struct ResponseBody {
    source: Source,
    /// The client's connection is busy for as long as this is.
    _serving: Serving,
}

enum Source {
    /// Nothing, or no more.
    Empty,
    /// The proxy's own words.
    Own(Bytes),
    /// From an endpoint.
    Endpoint(Exchange),
}

/// An exchange with an endpoint whose answer has begun.
pub struct Exchange {
    pub incoming: Incoming,
    pub lease: Lease,
    /// The connection, if nobody else drives it.
    pub link: Option<Box<Link>>,
    /// Idle connections that its endpoint may have.
    pub pool_max: usize,
}

impl Exchange {
    /// The answer is complete: the connection is free for the next one.
    fn finish(self) {
        if let Some(link) = self.link {
            link.recycle(&self.lease.target, self.pool_max);
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        loop {
            let polled = Pin::new(&mut self.incoming).poll_frame(cx);
            if polled.is_ready() {
                return polled;
            }
            // What was there has been taken: let more come, and look again.
            let Some(link) = &mut self.link else {
                return Poll::Pending;
            };
            if link.drive(cx) {
                self.link = None;
                continue;
            }
            return Pin::new(&mut self.incoming).poll_frame(cx);
        }
    }
}

impl ResponseBody {
    pub fn own(serving: Serving, text: Bytes) -> Self {
        let source = if text.is_empty() {
            Source::Empty
        } else {
            Source::Own(text)
        };
        ResponseBody {
            source,
            _serving: serving,
        }
    }

    /// The body of an endpoint's answer. Ends the exchange at once if there is none.
    pub fn endpoint(serving: Serving, exchange: Exchange) -> Self {
        let source = if exchange.incoming.is_end_stream() {
            exchange.finish();
            Source::Empty
        } else {
            Source::Endpoint(exchange)
        };
        ResponseBody {
            source,
            _serving: serving,
        }
    }

    fn finish(&mut self) {
        if let Source::Endpoint(exchange) = std::mem::replace(&mut self.source, Source::Empty) {
            exchange.finish();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let exchange = match &mut this.source {
            Source::Empty => return Poll::Ready(None),
            Source::Own(text) => {
                let text = std::mem::take(text);
                this.source = Source::Empty;
                return Poll::Ready(Some(Ok(Frame::data(text))));
            }
            Source::Endpoint(exchange) => exchange,
        };
        match ready!(exchange.poll_frame(cx)) {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    add(&exchange.lease.meter.bytes_out, data.remaining() as u64);
                }
                // Nobody may ask once more after the last frame.
                if frame.is_trailers() || exchange.incoming.is_end_stream() {
                    this.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                add(&exchange.lease.meter.errors, 1);
                this.source = Source::Empty;
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                this.finish();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Empty => true,
            Source::Own(text) => text.is_empty(),
            Source::Endpoint(exchange) => exchange.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty => SizeHint::with_exact(0),
            Source::Own(text) => SizeHint::with_exact(text.len() as u64),
            Source::Endpoint(exchange) => exchange.incoming.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // The client left before the end.
        if let Source::Endpoint(exchange) = &self.source {
            add(&exchange.lease.meter.aborted, 1);
        }
    }
}
