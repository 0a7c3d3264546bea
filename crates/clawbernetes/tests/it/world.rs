//! What the tests run in: a home for the binary, and a gateway in this process.

use std::{
    ffi::OsStr,
    io::Write,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use gateway::{Gateway, Options};

/// A home folder that nothing else uses.
pub struct Home {
    folder: tempfile::TempDir,
    gateway: Option<String>,
    /// The level at which processes of a fleet in this home log. `None`: their own.
    pub log: Option<&'static str>,
}

/// What a command came to.
#[derive(Debug)]
pub struct Done {
    /// Exit status.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Done {
    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        assert_eq!(self.code, 0, "{self:?}");
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts success, and gives standard output without its end of line.
    #[track_caller]
    pub fn ok(&self) -> &str {
        assert_eq!(self.code, 0, "{self:?}");
        self.out.trim_end()
    }

    /// Asserts that it ended with this status and told this code.
    #[track_caller]
    pub fn failed(&self, status: i32, code: &str) -> &str {
        assert_eq!(self.code, status, "{self:?}");
        assert!(self.err.contains(code), "{self:?}");
        &self.err
    }
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Home {
    /// An empty home.
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            gateway: None,
            log: None,
        }
    }

    /// An empty home, whose environment names this gateway.
    pub fn at(address: SocketAddr) -> Self {
        Self {
            gateway: Some(format!("ws://{address}")),
            ..Self::new()
        }
    }

    /// A path in the home.
    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file that only its owner can read.
    pub fn write(&self, name: &str, text: &str) -> std::path::PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// The command, ready to run.
    pub fn command<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_clawbernetes"));
        command
            .args(words)
            .env_clear()
            .env("HOME", self.folder.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        if let Some(gateway) = &self.gateway {
            command.env("CLAWBERNETES_GATEWAY_URL", gateway);
        }
        command
    }

    /// Runs the words of a line; none of them holds a space.
    pub fn run(&self, line: &str) -> Done {
        self.command(line.split_whitespace()).output().unwrap().into()
    }

    /// Runs words.
    pub fn words(&self, words: &[&str]) -> Done {
        self.command(words).output().unwrap().into()
    }

    /// Runs the words of a line with this input.
    pub fn input(&self, line: &str, input: &str) -> Done {
        let mut child = self
            .command(line.split_whitespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap().into()
    }
}

/// A gateway in this process, on a free port.
pub struct Fleet {
    runtime: tokio::runtime::Runtime,
    gateway: Option<Gateway>,
    options: Options,
    _data: tempfile::TempDir,
}

impl Fleet {
    /// Starts it.
    pub fn start() -> Self {
        Self::start_with(Options::default())
    }

    /// Starts it with these options, on a port and in a folder of its own.
    pub fn start_with(options: Options) -> Self {
        let data = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let mut options = Options {
            listen: SocketAddr::from(([127, 0, 0, 1], free_port())),
            data: data.path().join("gateway"),
            ..options
        };
        let gateway = runtime.block_on(Gateway::start(options.clone())).unwrap();
        options.listen = gateway.address;
        Self {
            runtime,
            gateway: Some(gateway),
            options,
            _data: data,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.options.listen
    }

    /// Its admin token.
    pub fn token(&self) -> String {
        self.gateway.as_ref().unwrap().admin_token.clone().unwrap()
    }

    /// A home in which the gateway of this user has left its token.
    pub fn home(&self) -> Home {
        let home = Home::at(self.address());
        let name = format!(".local/state/clawbernetes/gateways/{}.token", self.address().port());
        home.write(&name, &self.token());
        home
    }

    /// Stops it.
    pub fn stop(&mut self) {
        if let Some(gateway) = self.gateway.take() {
            self.runtime.block_on(gateway.stop());
        }
    }

    /// Changes a record of its store behind its back, while it is stopped.
    pub fn change_record(&self, key: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
        assert!(self.gateway.is_none(), "it runs");
        self.runtime.block_on(async {
            let store = store::Store::open(
                self.options.data.join("state.redb"),
                store::embedded::Options::default(),
            )
            .unwrap();
            let record = store.get(key).await.unwrap().unwrap();
            let changed = change(record.value.to_vec());
            let done = store.txn(store::Txn::new().put(key, changed)).await.unwrap();
            assert!(done.committed().is_some());
            store.close().await;
        });
    }

    /// Starts it again, on the same port with the same data.
    pub fn start_again(&mut self) {
        self.stop();
        self.gateway = Some(self.runtime.block_on(Gateway::start(self.options.clone())).unwrap());
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A port that the system gives to nobody by itself: no connection of this machine can take it while the gateway is
/// down.
pub fn free_port() -> u16 {
    /// No two tests of this process are given the same port; where another process begins is up to its id.
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let turn = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + std::process::id().wrapping_mul(97).wrapping_add(turn) % 10_000;
        if let Ok(port) = u16::try_from(port)
            && TcpListener::bind(("127.0.0.1", port)).is_ok()
        {
            return port;
        }
    }
}
