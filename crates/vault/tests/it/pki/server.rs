//! Small servers for one test: HTTPS by rustls, and HTTP for whoever asks for revocations.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use vault::pki::Peer;

/// Keeps a client that says nothing from keeping a test for ever.
const PATIENCE: Duration = Duration::from_secs(20);

/// Serves until it is dropped.
pub(crate) struct Server {
    address: SocketAddr,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// HTTPS that answers each request with who asked: the node's name, `someone` without a certificate.
    pub(crate) fn https(config: ServerConfig) -> Self {
        let config = Arc::new(config);
        Self::serve(move |stream| {
            let Ok(connection) = ServerConnection::new(Arc::clone(&config)) else {
                return;
            };
            let mut stream = BufReader::new(StreamOwned::new(connection, stream));
            // A handshake that fails is the client's to tell.
            if head(&mut stream).is_none() {
                return;
            }
            let peer = stream
                .get_ref()
                .conn
                .peer_certificates()
                .map(|chain| Peer::read(&chain[0]).unwrap());
            let who = match peer {
                None => "someone".to_owned(),
                Some(peer) => peer.node.map_or("no node".to_owned(), |node| node.to_string()),
            };
            let mut stream = stream.into_inner();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{who}",
                who.len()
            );
            stream.conn.send_close_notify();
            let _ = stream.flush();
        })
    }

    /// HTTP that answers the body of each request by a function.
    pub(crate) fn http(respond: impl Fn(&[u8]) -> Vec<u8> + Send + 'static, content_type: &'static str) -> Self {
        Self::serve(move |stream| {
            let mut stream = BufReader::new(stream);
            let Some(head) = head(&mut stream) else { return };
            let length = head
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(key, _)| key.eq_ignore_ascii_case("content-length"))
                .map_or(0, |(_, value)| value.trim().parse().unwrap());
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            let answer = respond(&body);
            let mut stream = stream.into_inner();
            let _ = write!(
                stream,
                "HTTP/1.0 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n",
                answer.len()
            );
            let _ = stream.write_all(&answer);
        })
    }

    fn serve(handle: impl Fn(TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.set_write_timeout(Some(PATIENCE)).unwrap();
                handle(stream);
            }
        });
        Self {
            address,
            end,
            thread: Some(thread),
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end.store(true, Ordering::SeqCst);
        // Wakes it.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the server panicked");
        }
    }
}

/// The lines before the first empty one.
fn head(stream: &mut impl BufRead) -> Option<String> {
    let mut head = String::new();
    loop {
        let before = head.len();
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
        if head[before..].trim().is_empty() {
            return Some(head);
        }
    }
}
