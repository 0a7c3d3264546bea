//! Native jobs through the whole product.

use std::{fs, io::Write as _};

use crate::{cluster::Cluster, jobs::Scripts};

#[test]
fn native_jobs_run_end_and_are_adopted() {
    let mut cluster = Cluster::start();
    cluster.join("native", &["--engine", "native"]);
    let scripts = Scripts {
        cluster: &cluster,
        image: "host",
    };
    scripts.follow();
    scripts.timeout();
    scripts.cancel();
    let info = cluster.home.run("node info native --json").json();
    let limitations = info["inventory"]["engines"][0]["limitations"].to_string();
    if limitations.contains("memory limits aren't enforced") {
        // Past the capture of tests that pass.
        let _ = writeln!(
            std::io::stderr(),
            "skipped: out-of-memory of native jobs ({limitations})"
        );
    } else {
        scripts.out_of_memory();
    }
    scripts.adopt(shells_of);
    cluster.end();
}

/// Processes of a workload that were made by no other of them: the job's own command, and no copy.
fn shells_of(id: &str) -> Vec<String> {
    let marker = format!("CLAWBERNETES_WORKLOAD={id}");
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let mut pids: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|pid| {
            let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let environ = read("environ");
            let own = environ.split(|byte| *byte == 0).any(|entry| entry == marker.as_bytes());
            own && read("cmdline").starts_with(b"sh\0-c\0")
        })
        .collect();
    pids.sort();
    pids
}
