//! OpenSSL's command as a reference: its server, and its client that counts handshakes.

use std::{
    io,
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;

use crate::world::Running;

/// A version of TLS.
pub struct Version {
    /// Its name.
    pub name: &'static str,
    option: &'static str,
}

/// Those that are measured.
pub const VERSIONS: [Version; 2] = [
    Version {
        name: "TLS 1.3",
        option: "-tls1_3",
    },
    Version {
        name: "TLS 1.2",
        option: "-tls1_2",
    },
];

/// What the server has to give: in TLS 1.3 its client gets a ticket only with an answer.
const PAGE: &str = "page";

/// The command.
pub struct OpenSsl {
    /// As it calls itself.
    pub version: String,
}

/// `openssl s_server`.
pub struct Server {
    /// Its process.
    pub running: Running,
    /// Where it listens: `127.0.0.1:port`.
    pub authority: String,
}

/// Handshakes that were counted.
pub struct Shaken {
    /// How many.
    pub count: f64,
    /// In what time, with the client's own start.
    pub took: Duration,
}

impl OpenSsl {
    /// `None`: it isn't installed.
    pub fn find() -> anyhow::Result<Option<Self>> {
        match Command::new("openssl").arg("version").stdin(Stdio::null()).output() {
            Ok(output) => {
                // `OpenSSL 3.0.19 27 Jan 2026 (Library: ...)`
                let told = String::from_utf8_lossy(&output.stdout);
                let version = told.split(" (").next().unwrap_or_default().trim().to_owned();
                Ok(Some(Self { version }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("openssl"),
        }
    }

    /// Starts a server with a P-256 certificate that is made for it, in a new folder of this one.
    pub fn server(&self, folder: &Path) -> anyhow::Result<Server> {
        let folder = folder.join("openssl");
        std::fs::create_dir(&folder)?;
        std::fs::write(folder.join(PAGE), "page\n")?;
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
            .args(["-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-days", "1"])
            .args(["-subj", "/CN=localhost"])
            .current_dir(&folder)
            .stdin(Stdio::null())
            .output()?;
        let told = String::from_utf8_lossy(&made.stderr);
        anyhow::ensure!(made.status.success(), "openssl req: {told}");
        let authority = format!("127.0.0.1:{}", TcpListener::bind("127.0.0.1:0")?.local_addr()?.port());
        let child = Command::new("openssl")
            .args([
                "s_server", "-accept", &authority, "-cert", "cert.pem", "-key", "key.pem",
            ])
            .args(["-WWW", "-quiet"])
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("openssl s_server")?;
        let server = Server {
            running: Running::new(child),
            authority,
        };
        let begun = Instant::now();
        while TcpStream::connect(&server.authority).is_err() {
            anyhow::ensure!(
                begun.elapsed() < Duration::from_secs(10),
                "openssl s_server didn't start"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    /// Handshakes one after the other for about so many seconds. `resumes`: each goes on from the first one's session,
    /// and asks for a page.
    pub fn shake(&self, authority: &str, version: &Version, resumes: bool, seconds: usize) -> anyhow::Result<Shaken> {
        let mut command = Command::new("openssl");
        command
            .args(["s_time", "-connect", authority, version.option])
            .args(["-time", &seconds.to_string()]);
        match resumes {
            true => command.args(["-reuse", "-www", &format!("/{PAGE}")]),
            false => command.arg("-new"),
        };
        let begun = Instant::now();
        let output = command.stdin(Stdio::null()).output()?;
        let took = begun.elapsed();
        let told = String::from_utf8_lossy(&output.stdout);
        let (count, resumed) = counted(&told).with_context(|| {
            let complaint = String::from_utf8_lossy(&output.stderr);
            format!("{command:?} counted nothing: {}", complaint.trim())
        })?;
        anyhow::ensure!(
            count > 0 && resumed == if resumes { count } else { 0 },
            "{resumed} of {count} handshakes of {command:?} were resumed"
        );
        Ok(Shaken {
            count: count as f64,
            took,
        })
    }
}

/// How many connections `s_time` made, and how many of them were resumed: it prints a sign for each, `r` for those.
fn counted(told: &str) -> Option<(usize, usize)> {
    let total = told.lines().find(|line| line.contains(" real seconds"))?;
    let count = total.split_whitespace().next()?.parse().ok()?;
    let signs = told
        .lines()
        .filter(|line| !line.is_empty() && line.chars().all(|sign| matches!(sign, 'r' | '*')));
    let resumed = signs.map(|line| line.matches('r').count()).sum();
    Some((count, resumed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted() {
        let new = "Collecting connection statistics for 1 seconds\n****\n\n\
                   4 connections in 0.50s; 8.00 connections/user sec, bytes read 0\n\
                   4 connections in 2 real seconds, 0 bytes read per connection\n";
        assert_eq!(counted(new), Some((4, 0)));
        let reused = "\n\nNow timing with session id reuse.\nstarting\nrr*\n\n\
                      3 connections in 0.67s; 4.48 connections/user sec, bytes read 153\n\
                      3 connections in 2 real seconds, 51 bytes read per connection\n";
        assert_eq!(counted(reused), Some((3, 2)));
        assert_eq!(counted(""), None);
    }
}
