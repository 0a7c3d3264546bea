//! A request on its way: to an endpoint, perhaps to another, and back.

use std::sync::Arc;

use hyper::body::{Body, Incoming};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Version};

use crate::answer::Failure;
use crate::body::{Exchange, Progress, RequestBody, ResponseBody, Upload};
use crate::client::{Client, Serving};
use crate::clock;
use crate::counts::{Meter, add};
use crate::endpoint::{Lease, Target};
use crate::headers::{self, Way};
use crate::line::{Line, Search};
use crate::tunnel;
use crate::upstream::{self, Broken, Link};

/// How often a request that was never sent is given to another connection. A connection that is there but can't take a
/// request is rare; so many in a row are a defect of the endpoint.
const UNSENT_MAX: u32 = 3;

/// Answers a request.
pub async fn serve(line: Arc<Line>, client: Arc<Client>, request: Request<Incoming>) -> Response<ResponseBody> {
    let mut passage = Passage::new(&line);
    let serving = client.begin(request.version());
    let (mut parts, incoming) = request.into_parts();
    let version = parts.version;
    let way = match headers::outgoing(&mut parts, &client.origin) {
        Ok(way) => way,
        Err(failure) => return passage.failed(failure, serving),
    };
    let upgrade = (way == Way::Upgrade)
        .then(|| parts.extensions.remove::<OnUpgrade>())
        .flatten();
    parts.extensions.clear();
    // Streams of HTTP/2 may stand still for hours: that is how gRPC waits.
    let stall = (version != Version::HTTP_2).then_some(line.options.stall_timeout);
    let body = RequestBody::new(incoming, stall);
    passage.upload = body.upload();
    passage.request = Some(Request::from_parts(parts, body));
    let answered = match way {
        Way::Plain => passage.plain().await,
        Way::Grpc => Box::pin(passage.grpc()).await,
        Way::Upgrade => Box::pin(passage.upgrade()).await,
    };
    let (response, lease, link) = match answered {
        Ok(answered) => answered,
        Err(failure) => {
            let failure = match passage.upload.as_deref().map(Upload::progress) {
                Some(Progress::Stalled) => Failure::Stalled,
                Some(Progress::Broken) => Failure::Broken,
                _ => failure,
            };
            return passage.failed(failure, serving);
        }
    };
    let (mut parts, incoming) = response.into_parts();
    let switching = parts.status == StatusCode::SWITCHING_PROTOCOLS;
    if switching && upgrade.is_none() {
        passage.lease = Some(lease);
        return passage.failed(Failure::NoAnswer, serving);
    }
    passage.answered(&lease.meter, parts.status);
    headers::incoming(&mut parts.headers, switching);
    parts.version = Version::HTTP_11;
    if let (true, Some(upgrade), Some(endpoint)) = (switching, upgrade, parts.extensions.remove::<OnUpgrade>()) {
        tokio::spawn(tunnel::upgraded(endpoint, upgrade, lease, client));
        return Response::from_parts(parts, ResponseBody::own(serving, bytes::Bytes::new()));
    }
    parts.extensions.clear();
    // An answer before the end of the request: both go on, neither waiting for the other.
    let uploading = (passage.upload.as_ref()).is_some_and(|upload| upload.progress() == Progress::Going);
    let link = match link {
        Some(link) if uploading => {
            link.detach();
            None
        }
        link => link,
    };
    let exchange = Exchange {
        incoming,
        lease,
        link,
        pool_max: line.options.pool_max,
    };
    Response::from_parts(parts, ResponseBody::endpoint(serving, exchange))
}

/// An answer's head, the place it came from, and the connection if it has to be driven.
type Answered = (Response<Incoming>, Lease, Option<Box<Link>>);

/// A request's way to an answer. It is counted once, whatever becomes of it.
struct Passage<'a> {
    line: &'a Line,
    /// When it came.
    since: u64,
    upload: Option<Arc<Upload>>,
    /// `None`: it has been sent.
    request: Option<Request<RequestBody>>,
    search: Search,
    /// Where it is now.
    lease: Option<Lease>,
    unsent: u32,
    repeated: bool,
    /// It was given to another endpoint because one closed a new connection without a word.
    turned_away: bool,
    counted: bool,
}

impl<'a> Passage<'a> {
    fn new(line: &'a Line) -> Self {
        Passage {
            line,
            since: clock::now(),
            upload: None,
            request: None,
            search: Search::default(),
            lease: None,
            unsent: 0,
            repeated: false,
            turned_away: false,
            counted: false,
        }
    }

    async fn plain(&mut self) -> Result<Answered, Failure> {
        loop {
            let target = self.find().await?;
            // A request that is repeated gets a new connection: the idle ones may all have been closed.
            let idle = if self.repeated { None } else { target.checkout() };
            let reused = idle.is_some();
            let mut link = match idle {
                Some(link) => link,
                None => match Box::pin(connect(&target, self.line)).await {
                    Ok(link) => link,
                    Err(error) => {
                        self.unreachable(&error);
                        continue;
                    }
                },
            };
            let request = self.take()?;
            let spare = if reused || !self.turned_away {
                spare(&request)
            } else {
                None
            };
            match link.exchange(request, self.line.options.answer_timeout).await {
                Ok(response) => return self.arrived(response, Some(link)),
                Err(Broken::Timeout) => return Err(Failure::AnswerTimeout),
                Err(Broken::Failed(mut error)) => {
                    if let Some(request) = error.take_message() {
                        self.repeated = true;
                        self.give_back(request)?;
                    } else if let Some(request) = spare.filter(|_| !link.heard())
                        && (reused || self.turn_away())
                    {
                        self.repeated = true;
                        self.request = Some(request);
                    } else {
                        return Err(self.no_answer(&error.into_error()));
                    }
                }
            }
        }
    }

    async fn grpc(&mut self) -> Result<Answered, Failure> {
        let options = &self.line.options;
        loop {
            let target = self.find().await?;
            let mut sender = match upstream::shared(&target, options.connect_timeout).await {
                Ok(sender) => sender,
                Err(error) => {
                    self.unreachable(&error);
                    continue;
                }
            };
            target.reached();
            let request = self.take()?;
            match tokio::time::timeout(options.answer_timeout, sender.try_send_request(request)).await {
                Err(_) => return Err(Failure::AnswerTimeout),
                Ok(Ok(response)) => return self.arrived(response, None),
                Ok(Err(mut error)) => match error.take_message() {
                    Some(request) => self.give_back(request)?,
                    None => return Err(self.no_answer(&error.into_error())),
                },
            }
        }
    }

    async fn upgrade(&mut self) -> Result<Answered, Failure> {
        let options = &self.line.options;
        loop {
            let target = self.find().await?;
            let stream = match upstream::connect(&target, options.connect_timeout).await {
                Ok(stream) => stream,
                Err(error) => {
                    self.unreachable(&error);
                    continue;
                }
            };
            target.reached();
            let request = self.take()?;
            let answer = tokio::time::timeout(options.answer_timeout, upstream::upgradable(stream, request));
            return match answer.await {
                Err(_) => Err(Failure::AnswerTimeout),
                Ok(Ok(response)) => self.arrived(response, None),
                Ok(Err(error)) => Err(self.no_answer(&error)),
            };
        }
    }

    /// Takes a place at an endpoint. A request that goes again keeps the one that it has: it is nobody else's turn.
    async fn find(&mut self) -> Result<Arc<Target>, Failure> {
        if let Some(lease) = &self.lease {
            return Ok(Arc::clone(&lease.target));
        }
        let lease = self.line.lease(&mut self.search).await?;
        let target = Arc::clone(&lease.target);
        self.lease = Some(lease);
        Ok(target)
    }

    /// The endpoint couldn't be connected to: the request stays, the place is given back.
    fn unreachable(&mut self, error: &std::io::Error) {
        if let Some(lease) = self.lease.take() {
            self.line.unreachable(&mut self.search, lease, error);
        }
    }

    /// A new connection was closed without a word: that is what a port does whose process has gone but whose forwarder is
    /// still there. Takes another endpoint of the same group, once: a request that kills endpoints doesn't get them all.
    /// False: there is no other.
    fn turn_away(&mut self) -> bool {
        let other = match &self.lease {
            Some(silent) if !self.turned_away => self.line.another(&mut self.search, silent),
            _ => None,
        };
        self.turned_away = true;
        if other.is_some() {
            self.lease = other;
            return true;
        }
        false
    }

    /// The request, to be sent.
    fn take(&mut self) -> Result<Request<RequestBody>, Failure> {
        let mut request = self.request.take().ok_or(Failure::NoAnswer)?;
        if self.upload.is_some() {
            request.body_mut().meter = self.lease.as_ref().map(|lease| Arc::clone(&lease.meter));
        }
        Ok(request)
    }

    /// The request wasn't sent: it may go by another connection.
    fn give_back(&mut self, request: Request<RequestBody>) -> Result<(), Failure> {
        self.unsent += 1;
        if self.unsent > UNSENT_MAX {
            if !self.turn_away() {
                return Err(Failure::NoAnswer);
            }
            self.unsent = 0;
        }
        self.request = Some(request);
        Ok(())
    }

    fn arrived(&mut self, response: Response<Incoming>, link: Option<Box<Link>>) -> Result<Answered, Failure> {
        let lease = self.lease.take().ok_or(Failure::NoAnswer)?;
        Ok((response, lease, link))
    }

    fn no_answer(&self, error: &hyper::Error) -> Failure {
        let endpoint = self.lease.as_ref().map(|lease| &lease.target.endpoint);
        tracing::debug!(route = self.line.key, ?endpoint, %error, "no answer");
        Failure::NoAnswer
    }

    /// An answer has begun.
    fn answered(&mut self, meter: &Meter, status: StatusCode) {
        self.counted = true;
        add(&meter.requests, 1);
        meter.latency(clock::now() - self.since);
        if status.is_server_error() {
            add(&meter.errors, 1);
        }
    }

    /// There is no answer but ours.
    fn failed(&mut self, failure: Failure, serving: Serving) -> Response<ResponseBody> {
        self.counted = true;
        let meter = self.meter();
        add(&meter.requests, 1);
        match failure {
            Failure::Stalled | Failure::Broken => add(&meter.aborted, 1),
            _ if failure.status().is_server_error() => add(&meter.errors, 1),
            _ => {}
        }
        failure.response(serving)
    }

    /// Who counts it: the group where it is, or was last.
    fn meter(&self) -> &Meter {
        let group = self.lease.as_ref().map(|lease| &lease.meter);
        group.or(self.search.group.as_ref()).unwrap_or(&self.line.own)
    }
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        // The client left before there was an answer.
        if !self.counted {
            let meter = self.meter();
            add(&meter.requests, 1);
            add(&meter.aborted, 1);
        }
    }
}

async fn connect(target: &Target, line: &Line) -> std::io::Result<Box<Link>> {
    let stream = upstream::connect(target, line.options.connect_timeout).await?;
    target.reached();
    let link = Link::new(stream, line.options.answer_timeout)
        .await
        .map_err(std::io::Error::other)?;
    Ok(Box::new(link))
}

/// A copy of a request that may be sent twice, because it has no body and doing it twice is doing it once.
fn spare(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let idempotent = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    );
    if !idempotent || !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(RequestBody::empty());
    request.method().clone_into(copy.method_mut());
    request.uri().clone_into(copy.uri_mut());
    request.headers().clone_into(copy.headers_mut());
    Some(copy)
}
