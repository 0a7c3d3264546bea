//! What every engine must do with jobs, through the whole product.

use serde_json::{Value, json};

use crate::cluster::{Cluster, wait_for};

/// An engine's way to run a shell script.
pub struct Scripts<'c> {
    /// The fleet.
    pub cluster: &'c Cluster,
    /// The image that has a shell.
    pub image: &'static str,
}

impl Scripts<'_> {
    /// Submits a script with more flags; its id.
    #[track_caller]
    fn start(&self, flags: &[&str], script: &str) -> String {
        let image = ["--image", self.image, "--gpus", "0"];
        self.cluster.run(&[&image, flags, &["--", "sh", "-c", script]].concat())
    }

    fn wait_line(&self, id: &str, line: &str) {
        wait_for(&format!("{id} to write '{line}'"), || {
            let shown = self.cluster.home.run(&format!("workload logs {id}"));
            shown.ok().lines().any(|shown| shown == line).then_some(())
        });
    }

    /// Output and exit code come out of the command that started it.
    pub fn follow(&self) {
        let script = "echo one; echo two >&2; echo three; exit 3";
        let words = [
            "run",
            "--image",
            self.image,
            "--gpus",
            "0",
            "--timeout",
            "5m",
            "--name",
            "follow",
            "--follow",
            "--",
            "sh",
            "-c",
            script,
        ];
        let done = self.cluster.home.words(&words);
        let mut lines: Vec<&str> = done.exited(3).out.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["one", "three", "two"], "{done:?}");
        let detail = self.cluster.status("follow");
        assert_eq!(detail["phase"], "failed", "{detail:#}");
        assert_eq!(
            (&detail["reason"], &detail["exitCode"]),
            (&json!("EXIT_CODE"), &json!(3)),
            "{detail:#}"
        );
        let timeline = detail["timeline"].as_array().unwrap();
        let phases: Vec<&str> = timeline.iter().map(|step| step["phase"].as_str().unwrap()).collect();
        assert_eq!(phases, ["pending", "scheduled", "running", "failed"], "{detail:#}");
        assert_eq!(self.cluster.logs("follow").lines().count(), 3);
    }

    /// The memory limit is the kernel's, and the reason says so.
    pub fn out_of_memory(&self) {
        let id = self.start(&["--memory", "32Mi", "--timeout", "5m"], "echo begun; tail /dev/zero");
        let detail = self.cluster.wait_phase(&id, "failed");
        assert_eq!(detail["reason"], "OOM_KILLED", "{detail:#}");
        assert_eq!(detail["exitCode"], 137, "{detail:#}");
        let message = detail["message"].as_str().unwrap();
        assert!(
            message.contains("32Mi") && message.contains("--memory 64Mi"),
            "{message}"
        );
        // Some shells say what became of their `tail`.
        assert_eq!(self.cluster.logs(&id).lines().next(), Some("begun"));

        // A plain SIGKILL is no such thing.
        let id = self.start(&["--memory", "32Mi", "--timeout", "5m"], "kill -9 $$");
        let detail = self.cluster.wait_phase(&id, "failed");
        assert_ne!(detail["reason"], "OOM_KILLED", "{detail:#}");
        assert_eq!(detail["exitCode"], 137, "{detail:#}");
    }

    /// The timeout ends it, and the reason says so.
    pub fn timeout(&self) {
        let id = self.start(
            &["--timeout", "1s", "--grace", "1s"],
            "echo begun; trap '' TERM; while :; do sleep 1; done",
        );
        let detail = self.cluster.wait_phase(&id, "timed-out");
        assert_eq!(detail["reason"], "WORKLOAD_TIMEOUT", "{detail:#}");
        assert_eq!(self.cluster.logs(&id), "begun");
    }

    /// Cancelling leaves time to say good-bye.
    pub fn cancel(&self) {
        let script = "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
        let id = self.start(&["--timeout", "5m"], script);
        self.wait_line(&id, "ready");
        self.cluster.home.run(&format!("workload cancel {id} --grace 1m")).ok();
        let detail = self.cluster.wait_phase(&id, "cancelled");
        assert_eq!(
            (&detail["reason"], &detail["exitCode"]),
            (&json!("CANCELLED"), &json!(5)),
            "{detail:#}"
        );
        let logs = self.cluster.logs(&id);
        // Some shells say that their `sleep` had to go.
        let said: Vec<&str> = logs.lines().filter(|line| *line != "Terminated").collect();
        assert_eq!(said, ["ready", "bye"]);
    }

    /// An agent that was killed finds its job again; `copies` counts what runs of it.
    pub fn adopt(&self, copies: impl Fn(&str) -> Vec<String>) {
        let cluster = self.cluster;
        let folder = cluster.home.path("adopt");
        std::fs::create_dir(&folder).unwrap();
        let mount = format!("{0}:{0}", folder.display());
        let waits = |file: &str| format!("while [ ! -e {}/{file} ]; do sleep 0.05; done", folder.display());
        let flags = ["--timeout", "5m", "--mount", &mount];
        let runs = self.start(&flags, &format!("echo begun; {}; echo done; exit 4", waits("go")));
        let ends = self.start(&flags, &format!("echo begun; {}; echo done; exit 6", waits("end")));
        self.wait_line(&runs, "begun");
        self.wait_line(&ends, "begun");
        let before = [copies(&runs), copies(&ends)];
        assert!(before.iter().all(|copies| copies.len() == 1), "{before:?}");
        cluster.kill_agent(0);
        // One ends while nobody looks.
        std::fs::write(folder.join("end"), "").unwrap();
        cluster.start_agent(0);
        let detail = cluster.wait_phase(&ends, "failed");
        assert_eq!(
            (&detail["exitCode"], &detail["attempt"]),
            (&json!(6), &json!(1)),
            "{detail:#}"
        );
        assert_eq!(copies(&runs), before[0], "the same, and no second one");
        assert_eq!(cluster.status(&runs)["phase"], "running");
        std::fs::write(folder.join("go"), "").unwrap();
        let detail = cluster.wait_phase(&runs, "failed");
        assert_eq!(
            (&detail["exitCode"], &detail["attempt"]),
            (&json!(4), &json!(1)),
            "{detail:#}"
        );
        for id in [&runs, &ends] {
            assert_eq!(cluster.logs(id), "begun\ndone");
            let events = cluster.home.run(&format!("events --workload {id} --json")).json();
            let reasons: Vec<&Value> = events
                .as_array()
                .unwrap()
                .iter()
                .map(|event| &event["reason"])
                .collect();
            assert_eq!(reasons, ["Submitted", "Scheduled", "Started", "Failed"], "{events:#}");
        }
    }
}
