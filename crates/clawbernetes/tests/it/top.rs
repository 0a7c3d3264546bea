//! The live view: a frame as text, and the whole of it in a pseudo-terminal.

use std::{
    io::{Read, Write},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::json;

use crate::{
    cluster::{Cluster, wait_for},
    world::{Home, free_port},
};

const SIMULATED: &[&str] = &[
    "--simulate-gpus",
    "2xH100",
    "--sample-interval",
    "1s",
    "--engine",
    "native",
];

#[test]
fn a_frame_shows_nodes_gpus_and_workloads() {
    let mut cluster = Cluster::start();
    cluster.join("alpha", SIMULATED);
    cluster.join("beta", SIMULATED);
    let words = [
        "--image", "host", "--gpus", "1", "--name", "sleeper", "--", "sleep", "600",
    ];
    let id = cluster.run(&words);
    let detail = cluster.wait_phase(&id, "running");
    let holder = detail["members"][0]["node"].as_str().unwrap().to_owned();
    // The first measurements come a moment after the nodes.
    wait_for("all GPUs to be measured", || {
        let nodes = cluster.try_call("node.list", &json!({}))?;
        let mut gpus = nodes
            .as_array()?
            .iter()
            .flat_map(|node| node["gpus"].as_array().unwrap());
        gpus.all(|gpu| gpu["temperatureCelsius"].is_i64()).then_some(())
    });

    let nodes = cluster.home.run("top --once");
    let text = nodes.ok();
    assert!(text.starts_with("clawbernetes top ws://127.0.0.1:"), "{text}");
    assert!(text.contains("2/2 nodes healthy  3/4 GPUs free  1 running"), "{text}");
    for name in ["alpha", "beta"] {
        let row = text.lines().find(|line| line.starts_with(name)).unwrap();
        let free = if name == holder { " 1/2 " } else { " 2/2 " };
        assert!(row.contains(" healthy ") && row.contains(free), "{text}");
        assert!(row.contains("°C ") && row.contains("(sim) H100"), "{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");

    let gpus = cluster.home.run("top --once --tab gpus");
    let gpus = gpus.ok();
    assert_eq!(
        gpus.lines().filter(|line| line.contains("(sim) H100")).count(),
        4,
        "{gpus}"
    );
    assert_eq!(gpus.lines().filter(|line| line.contains(&id)).count(), 1, "{gpus}");

    let workloads = cluster.home.run("top --once --tab workloads");
    let workloads = workloads.ok();
    let row = workloads.lines().find(|line| line.starts_with("sleeper")).unwrap();
    assert!(row.contains(" running ") && row.contains(&holder), "{workloads}");

    cluster.home.run("workload cancel sleeper --grace 1s").ok();
    cluster.wait_phase(&id, "cancelled");
    cluster.end();
}

#[test]
fn what_cannot_be_shown_is_refused() {
    let home = Home::at(([127, 0, 0, 1], free_port()).into());
    let refused = home.run("top");
    let text = refused.failed(2, "INVALID_ARGUMENT");
    assert!(
        text.contains("terminal") && text.contains("clawbernetes status"),
        "{text}"
    );
    let json = home.run("top --once --json");
    assert!(
        json.failed(2, "INVALID_ARGUMENT")
            .contains("clawbernetes status --json")
    );
    home.run("top --once").failed(5, "ECONNREFUSED");
    home.run("top --once --interval 1ms").failed(2, "500ms");
    home.run("top --once --interval soon").failed(2, "soon");
}

/// A command in a pseudo-terminal of 100 columns, and all that it wrote.
struct Pty {
    child: Child,
    written: Arc<Mutex<String>>,
}

impl Pty {
    /// By `script`, which is part of every Debian, Fedora and Alpine with util-linux.
    fn start(home: &Home, line: &str) -> Self {
        let inner = home.command(line.split_whitespace());
        let program = inner.get_program().to_string_lossy().into_owned();
        let mut command = Command::new("script");
        command.env_clear().current_dir(home.path(""));
        for (name, value) in inner.get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        let mut child = command
            .env("TERM", "xterm-256color")
            .arg("-qec")
            .arg(format!("stty cols 100 rows 30; exec {program} {line}"))
            .arg("/dev/null")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let written = Arc::new(Mutex::new(String::new()));
        let (mut output, seen) = (child.stdout.take().unwrap(), written.clone());
        std::thread::spawn(move || {
            let mut bytes = [0u8; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
                seen.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        Self { child, written }
    }

    fn written(&self) -> String {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until this is on the screen.
    #[track_caller]
    fn wait(&self, text: &str) {
        wait_for(&format!("'{text}' to be shown"), || {
            screen(&self.written()).contains(text).then_some(())
        });
    }

    fn press(&mut self, keys: &str) {
        let input = self.child.stdin.as_mut().unwrap();
        input.write_all(keys.as_bytes()).unwrap();
        input.flush().unwrap();
    }

    #[track_caller]
    fn end(mut self) -> Option<i32> {
        let status = wait_for("it to end", || self.child.try_wait().unwrap());
        assert!(self.written().contains("\u{1b}[?1049l"), "{:?}", self.written());
        status.code()
    }
}

/// What a terminal of 100 columns and 30 lines shows after all this: of its commands, only moves of the cursor and the
/// clearing of the screen put letters elsewhere.
fn screen(written: &str) -> String {
    let mut cells = vec![[' '; 100]; 30];
    let (mut row, mut column) = (0, 0);
    let mut letters = written.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\u{1b}' => {
                // What has arrived may end within a command.
                let mut command = String::new();
                for part in letters.by_ref() {
                    command.push(part);
                    if part.is_ascii_alphabetic() {
                        break;
                    }
                }
                let place = command.strip_prefix('[').and_then(|rest| rest.strip_suffix('H'));
                if let Some((y, x)) = place.and_then(|place| place.split_once(';')) {
                    (row, column) = (y.parse::<usize>().unwrap() - 1, x.parse::<usize>().unwrap() - 1);
                } else if command == "[2J" {
                    cells.fill([' '; 100]);
                }
            }
            '\r' | '\n' => {}
            other => {
                if let Some(cell) = cells.get_mut(row).and_then(|line| line.get_mut(column)) {
                    *cell = other;
                }
                column += 1;
            }
        }
    }
    let lines = cells.iter().map(|line| line.iter().collect::<String>());
    lines.collect::<Vec<_>>().join("\n")
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_lives_in_a_terminal_through_a_restart_of_the_gateway() {
    let mut cluster = Cluster::start();
    cluster.join("alpha", SIMULATED);
    let mut pty = Pty::start(&cluster.home, "top --interval 500ms");
    pty.wait("(sim) H100");
    cluster.kill_gateway();
    pty.wait("ECONNREFUSED");
    // Keys work while the gateway is away, and what was known is still there.
    pty.press("2");
    pty.wait("POWER");
    pty.wait("alpha");
    cluster.start_gateway();
    pty.wait("GPUs free");
    pty.press("q");
    assert_eq!(pty.end(), Some(0));

    // Where its terminal goes away it ends as well: the end of the cluster finds no process left.
    let pty = Pty::start(&cluster.home, "top --tab workloads");
    pty.wait("No workload waits or runs");
    drop(pty);
    cluster.end();
}
