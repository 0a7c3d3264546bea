//! The live view: a frame as text, and the whole of it in a pseudo-terminal.

use serde_json::json;

use crate::{
    cluster::{Cluster, wait_for},
    pty::Pty,
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

/// Waits until this is on the screen.
#[track_caller]
fn wait(pty: &Pty, text: &str) {
    wait_for(&format!("'{text}' to be shown"), || {
        screen(&pty.written()).contains(text).then_some(())
    });
}

#[test]
fn it_lives_in_a_terminal_through_a_restart_of_the_gateway() {
    let mut cluster = Cluster::start();
    cluster.join("alpha", SIMULATED);
    let mut pty = Pty::start(&cluster.home, "top --interval 500ms");
    wait(&pty, "(sim) H100");
    cluster.kill_gateway();
    wait(&pty, "ECONNREFUSED");
    // Keys work while the gateway is away, and what was known is still there.
    pty.press("2");
    wait(&pty, "POWER");
    wait(&pty, "alpha");
    cluster.start_gateway();
    wait(&pty, "GPUs free");
    pty.press("q");
    let (status, written) = pty.end();
    assert_eq!(status, Some(0));
    assert!(written.contains("\u{1b}[?1049l"), "{written:?}");

    // Where its terminal goes away it ends as well: the end of the cluster finds no process left.
    let pty = Pty::start(&cluster.home, "top --tab workloads");
    wait(&pty, "No workload waits or runs");
    drop(pty);
    cluster.end();
}
