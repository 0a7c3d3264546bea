//! A Docker daemon and a registry of the tests' own, apart from any that the machine runs.
//!
//! A guardian process starts them in a mount namespace of its own and reads commands from a pipe. When the pipe
//! closes, because the tests are over or were killed in whatever way, it stops all of it and removes every file,
//! cgroup and process.

#![expect(
    unsafe_code,
    reason = "atexit has no safe form: the last test's end can't be known otherwise"
)]

use std::{
    collections::HashMap,
    io::Write as _,
    net::{TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt as _, net::UnixStream, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Mutex, OnceLock},
    time::{Duration, Instant},
};

use bollard::{
    API_DEFAULT_VERSION, Docker,
    query_parameters::{
        CreateImageOptionsBuilder, KillContainerOptionsBuilder, ListContainersOptionsBuilder, PushImageOptionsBuilder,
        RemoveContainerOptionsBuilder, RemoveImageOptions, TagImageOptionsBuilder,
    },
};
use futures_util::TryStreamExt as _;

use crate::{PATIENCE, wait_for};

/// The image with busybox in it, and no command of its own.
pub const IMAGE: &str = "clawtest:1";
/// The same with a command and an environment of its own.
pub const IMAGE_WITH_COMMAND: &str = "clawtest-command:1";
/// Bytes that don't compress in the image that is kept in the registry.
pub const BLOB_BYTES: usize = 24 << 20;

const NEEDS: [(&str, &str); 3] = [
    ("dockerd", "docker.io"),
    ("docker-registry", "docker-registry"),
    ("busybox", "busybox-static"),
];

/// Names nothing but what it made: the folder, the cgroup and the bridge.
const GUARDIAN: &str = r#"
trap '' HUP INT TERM
mkdir -p "$DIR/data" "$DIR/exec" "$DIR/registry"
[ -d /etc/docker ] || { mkdir -p /etc/docker; made_etc=1; }
mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /etc/docker || exit 1
# A bridge of its own, out of which containers can publish ports on the machine's: in the range that no network is in (RFC 2544).
bridge=none
if ip link add "$NAME" type bridge; then
    number=$((PORT % 512))
    ip address add "198.$((18 + number / 256)).$((number % 256)).1/24" dev "$NAME" && ip link set "$NAME" up && bridge=$NAME
fi
start() {
    dockerd --data-root "$DIR/data" --exec-root "$DIR/exec" --pidfile "$DIR/dockerd.pid" \
        --host "unix://$DIR/docker.sock" --iptables=false --ip6tables=false --bridge=$bridge --ip-forward=false --ip-masq=false \
        --cgroup-parent "/$NAME/other" --exec-opt native.cgroupdriver=cgroupfs --shutdown-timeout 2 $FLAGS \
        </dev/null >>"$DIR/dockerd.log" 2>&1 &
    dockerd=$!
}
start
docker-registry serve "$DIR/registry.yml" </dev/null >"$DIR/registry.log" 2>&1 &
registry=$!
while read -r command; do
    case $command in
    stop) kill -TERM $dockerd; wait $dockerd ;;
    start) start ;;
    esac
done
kill -TERM $registry $dockerd 2>/dev/null
pids=$(find /sys/fs/cgroup -path "*/$NAME/*" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u)
[ -z "$pids" ] || kill -KILL $pids 2>/dev/null
wait
ip link delete "$NAME" 2>/dev/null
for process in /proc/[0-9]*; do
    line=$(tr '\0' ' ' <"$process/cmdline" 2>/dev/null)
    case $line in *"$DIR"*) kill -KILL "${process#/proc/}" 2>/dev/null ;; esac
done
for attempt in 1 2 3 4 5 6 7 8 9 10; do
    find /sys/fs/cgroup -depth -type d -path "*/$NAME*" -exec rmdir {} + 2>/dev/null
    awk -v dir="$DIR" 'index($2, dir) == 1 { print $2 }' /proc/mounts | sort -r | while read -r path; do umount -l "$path"; done
    rm -rf "$DIR" 2>/dev/null
    [ -e "$DIR" ] || break
    sleep 0.1
done
umount -l /etc/docker
[ -z "${made_etc:-}" ] || rmdir /etc/docker
"#;

/// Guardians to be waited for at the end of this process.
static GUARDIANS: Mutex<Vec<(Child, Option<ChildStdin>)>> = Mutex::new(Vec::new());

unsafe extern "C" {
    fn atexit(callback: extern "C" fn()) -> i32;
}

extern "C" fn at_exit() {
    if let Ok(mut guardians) = GUARDIANS.try_lock() {
        for (_, pipe) in guardians.iter_mut() {
            drop(pipe.take());
        }
        for (guardian, _) in guardians.iter_mut() {
            let _ = guardian.wait();
        }
    }
}

/// A running daemon with its registry.
pub struct Fixture {
    dir: PathBuf,
    /// The cgroup that all of it lives under.
    pub name: String,
    /// The registry's address, `127.0.0.1:port`.
    pub registry: String,
    guardian: usize,
}

/// The fixture of all tests of this process that don't harm it. `None`, with a line that says why: Docker isn't here.
///
/// # Panics
/// As [`Fixture::start`].
pub fn shared() -> Option<&'static Fixture> {
    static SHARED: OnceLock<Option<Fixture>> = OnceLock::new();
    SHARED.get_or_init(|| Fixture::start("")).as_ref()
}

fn missing() -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(["/usr/sbin".into(), "/sbin".into()]);
    let absent: Vec<&str> = NEEDS
        .iter()
        .filter(|(program, _)| !folders.iter().any(|folder| folder.join(program).exists()))
        .map(|(_, package)| *package)
        .collect();
    if !absent.is_empty() {
        return Some(format!("missing: apt-get install {}", absent.join(" ")));
    }
    (!rustix::process::geteuid().is_root()).then(|| "a Docker daemon can be started by root only".to_owned())
}

impl Fixture {
    /// Starts a daemon of its own, with more flags. `None`: Docker isn't here.
    ///
    /// # Panics
    /// Docker isn't here and `CLAWBERNETES_TEST_DOCKER` says `required`, or it doesn't start.
    pub fn start(flags: &str) -> Option<Self> {
        if let Some(why) = missing() {
            assert_ne!(
                std::env::var("CLAWBERNETES_TEST_DOCKER").as_deref(),
                Ok("required"),
                "CLAWBERNETES_TEST_DOCKER=required, but {why}"
            );
            // Past the capture of tests that pass.
            let _ = writeln!(std::io::stderr(), "skipped: no Docker for tests ({why})");
            return None;
        }
        // Short: paths of sockets may not be longer than 108 bytes.
        let dir = tempfile::Builder::new().prefix("clawdk").tempdir().unwrap().keep();
        let name = dir.file_name().unwrap().to_string_lossy().into_owned();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let registry = format!("127.0.0.1:{port}");
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}/registry}}}}\nhttp: {{addr: {registry}}}\n",
            dir.display()
        );
        std::fs::write(dir.join("registry.yml"), config).unwrap();
        let mut guardian = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", GUARDIAN])
            .env("DIR", &dir)
            .env("NAME", &name)
            .env("PORT", port.to_string())
            .env("FLAGS", flags)
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let pipe = guardian.stdin.take();
        let index = {
            let mut guardians = GUARDIANS.lock().unwrap();
            if guardians.is_empty() {
                // SAFETY: the callback takes no argument, touches a static only and doesn't unwind.
                unsafe { atexit(at_exit) };
            }
            guardians.push((guardian, pipe));
            guardians.len() - 1
        };
        let fixture = Self {
            dir,
            name,
            registry,
            guardian: index,
        };
        fixture.wait_up();
        fixture.on_runtime(fixture.make_images());
        Some(fixture)
    }

    /// The daemon's socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("docker.sock")
    }

    /// A folder that goes with the fixture.
    pub fn folder(&self, name: &str) -> PathBuf {
        let folder = self.dir.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// Containers with this label, running or not: their ids.
    pub fn containers(&self, label: &str) -> Vec<String> {
        let filters = HashMap::from([("label", vec![label])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let listed = self.on_runtime(async { self.docker().list_containers(Some(options)).await });
        listed
            .unwrap()
            .into_iter()
            .filter_map(|container| container.id)
            .collect()
    }

    /// Kills what runs in the containers with this label.
    pub fn kill_containers(&self, label: &str) {
        for id in self.containers(label) {
            let options = KillContainerOptionsBuilder::new().signal("KILL").build();
            self.on_runtime(async { self.docker().kill_container(&id, Some(options)).await })
                .unwrap();
        }
    }

    /// Kills and removes containers with this label.
    pub fn remove_containers(&self, label: &str) {
        for id in self.containers(label) {
            let options = RemoveContainerOptionsBuilder::new().force(true).build();
            // One that went away by itself meanwhile isn't there to be removed.
            let _ = self.on_runtime(async { self.docker().remove_container(&id, Some(options)).await });
        }
    }

    /// The image that only the registry has.
    pub fn remote_image(&self) -> String {
        format!("{}/clawtest-big:1", self.registry)
    }

    /// A client beside the engine's.
    pub fn docker(&self) -> Docker {
        Docker::connect_with_unix(&self.socket().to_string_lossy(), 60, API_DEFAULT_VERSION).unwrap()
    }

    /// Makes an image, `name:tag`, and puts it into the registry, which alone has it then; its whole name. In it are the tests'
    /// busybox and these files, which can be executed; `changes` are lines of a Dockerfile.
    ///
    /// # Panics
    /// The daemon or the registry doesn't take it.
    pub fn publish(&self, image: &str, files: &[(&str, &str)], changes: &[&str]) -> String {
        let root = tempfile::tempdir_in(&self.dir).unwrap();
        make_root(root.path());
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        self.on_runtime(async {
            let docker = self.docker().negotiate_version().await.unwrap();
            import(&docker, root.path(), image, changes).await;
            self.push(&docker, image).await;
        });
        format!("{}/{image}", self.registry)
    }

    /// Moves an image from the daemon into the registry.
    async fn push(&self, docker: &Docker, image: &str) {
        let (name, tag) = image.split_once(':').unwrap();
        let repo = format!("{}/{name}", self.registry);
        let named = TagImageOptionsBuilder::new().repo(&repo).tag(tag).build();
        docker.tag_image(image, Some(named)).await.unwrap();
        let options = PushImageOptionsBuilder::new().tag(tag).build();
        let push = docker.push_image(&repo, Some(options), Some(Default::default()));
        push.try_collect::<Vec<_>>().await.unwrap();
        for image in [image, &format!("{repo}:{tag}")] {
            docker
                .remove_image(image, None::<RemoveImageOptions>, None)
                .await
                .unwrap();
        }
    }

    fn command(&self, command: &str) {
        let mut guardians = GUARDIANS.lock().unwrap();
        let pipe = guardians[self.guardian].1.as_mut().unwrap();
        writeln!(pipe, "{command}").unwrap();
    }

    /// Stops the daemon; returns when it's gone.
    pub fn stop(&self) {
        self.command("stop");
        wait_for("the daemon's end", || {
            UnixStream::connect(self.socket()).is_err().then_some(())
        });
    }

    /// Starts the daemon again; returns when it answers.
    pub fn start_again(&self) {
        self.command("start");
        self.wait_up();
    }

    fn wait_up(&self) {
        let up = || {
            let docker = Docker::connect_with_unix(&self.socket().to_string_lossy(), 5, API_DEFAULT_VERSION).ok()?;
            TcpStream::connect(&self.registry).ok()?;
            self.on_runtime(async { docker.ping().await.ok() }).map(drop)
        };
        let since = Instant::now();
        while up().is_none() {
            assert!(
                since.elapsed() < PATIENCE,
                "the Docker daemon doesn't start:\n{}",
                std::fs::read_to_string(self.dir.join("dockerd.log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs something to its end, also from within another runtime.
    fn on_runtime<T: Send>(&self, task: impl Future<Output = T> + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(task)
            });
            thread.join().unwrap()
        })
    }

    async fn make_images(&self) {
        let docker = self.docker().negotiate_version().await.unwrap();
        let root = self.folder("image");
        make_root(&root);
        import(&docker, &root, IMAGE, &[]).await;
        let changes = [r#"CMD ["/bin/sh", "-c", "echo own $OWN"]"#, "ENV OWN=command"];
        import(&docker, &root, IMAGE_WITH_COMMAND, &changes).await;
        let random = std::fs::File::open("/dev/urandom").unwrap();
        let mut blob = std::io::Read::take(random, BLOB_BYTES as u64);
        std::io::copy(&mut blob, &mut std::fs::File::create(root.join("blob")).unwrap()).unwrap();
        import(&docker, &root, "clawtest-big:1", &[]).await;
        self.push(&docker, "clawtest-big:1").await;
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let mut guardians = GUARDIANS.lock().unwrap();
        let (guardian, pipe) = &mut guardians[self.guardian];
        drop(pipe.take());
        let _ = guardian.wait();
    }
}

fn make_root(root: &Path) {
    let bin = root.join("bin");
    for folder in ["bin", "tmp", "dev", "proc", "sys", "etc"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .iter()
        .find(|path| Path::new(path).exists())
        .unwrap();
    std::fs::copy(busybox, bin.join("busybox")).unwrap();
    for applet in [
        "sh", "cat", "sleep", "ls", "mount", "head", "tail", "touch", "dd", "seq", "tr", "true",
    ] {
        std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
    }
}

async fn import(docker: &Docker, root: &Path, image: &str, changes: &[&str]) {
    let tar = Command::new("tar")
        .arg("-C")
        .arg(root)
        .args(["-c", "."])
        .output()
        .unwrap();
    assert!(tar.status.success());
    let (repo, tag) = image.split_once(':').unwrap();
    let options = CreateImageOptionsBuilder::new()
        .from_src("-")
        .repo(repo)
        .tag(tag)
        .changes(changes.iter().map(|change| (*change).to_owned()).collect())
        .build();
    let made = docker.create_image(Some(options), Some(bollard::body_full(tar.stdout.into())), None);
    made.try_collect::<Vec<_>>().await.unwrap();
}
