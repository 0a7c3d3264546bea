//! A small TCP service that says each line back, and who says it; and those who talk to it. The service is this test binary
//! itself, started once more: replicas run [`command`].

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use testkit::PATIENCE;

/// Says to the service's process that it is one.
pub const ECHOES: &str = "ECHOING_SERVES";

/// What replicas run.
pub fn command() -> Vec<String> {
    let own = std::env::current_exe().unwrap().display().to_string();
    [&own, "--exact", "echoing::the_echo_itself", "--ignored", "--nocapture"]
        .map(str::to_owned)
        .to_vec()
}

/// Ends at once when it is told to, whoever it is talking to.
#[test]
#[ignore = "the process of a replica, started by other tests"]
fn the_echo_itself() {
    if std::env::var_os(ECHOES).is_none() {
        return;
    }
    let [version, host, port] = ["VERSION", "HOST", "PORT"].map(|name| std::env::var(name).unwrap());
    let address: (IpAddr, u16) = (host.parse().unwrap(), port.parse().unwrap());
    for stream in TcpListener::bind(address).unwrap().incoming().flatten() {
        let version = version.clone();
        std::thread::spawn(move || {
            let mut back = stream.try_clone().unwrap();
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                if writeln!(back, "{version} {line}").is_err() {
                    break;
                }
            }
        });
    }
}

/// A connection to the service.
pub struct Talk(BufReader<TcpStream>);

impl Talk {
    pub fn begin(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Says something; the version that says it back. `Err`: in words, why nobody did.
    pub fn say(&mut self, word: &str) -> Result<String, String> {
        let mut answer = String::new();
        let said = writeln!(self.0.get_mut(), "{word}").and_then(|()| self.0.read_line(&mut answer));
        said.map_err(|error| error.to_string())?;
        match answer.trim_end().split_once(' ') {
            Some((version, back)) if back == word => Ok(version.to_owned()),
            _ => Err(format!("'{word}' came back as '{answer}'")),
        }
    }
}

/// Somebody who begins a connection for every word, one after the other, until told to stop.
pub struct Passers {
    over: Arc<AtomicBool>,
    /// Answers by version, and what went wrong, each with how often.
    tally: Arc<Mutex<BTreeMap<Result<String, String>, u64>>>,
    thread: Option<JoinHandle<()>>,
}

impl Passers {
    pub fn start(address: SocketAddr) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let tally = Arc::new(Mutex::default());
        let (ended, counted) = (Arc::clone(&over), Arc::clone(&tally));
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let talk = Talk::begin(address).map_err(|error| error.to_string());
                let answer = talk.and_then(|mut talk| talk.say("hello"));
                let mut tally: std::sync::MutexGuard<'_, BTreeMap<_, u64>> =
                    counted.lock().unwrap_or_else(PoisonError::into_inner);
                *tally.entry(answer).or_default() += 1;
            }
        });
        Self {
            over,
            tally,
            thread: Some(thread),
        }
    }

    /// What was heard so far.
    pub fn tally(&self) -> BTreeMap<Result<String, String>, u64> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops, and tells what was heard.
    pub fn stop(mut self) -> BTreeMap<Result<String, String>, u64> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.tally()
    }
}

impl Drop for Passers {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}
