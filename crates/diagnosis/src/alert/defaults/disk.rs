//! Disks of nodes: filling by their trend, and full; of bytes, and of inodes.

use super::super::Span;
use super::super::condition::{Bound, Condition, Op, Trend};
use super::super::rule::{Rule, Severity};
use super::super::unit::Unit;
use super::{inhibits, last, rule};

const DISK: &[&str] = &["node", "mount"];

pub(super) fn rules() -> Vec<Rule> {
    vec![filling(), full(), inodes_filling(), inodes_full()]
}

fn commands() -> Vec<String> {
    vec![
        "clawbernetes metrics disk.used --node {node} --last 24h".to_owned(),
        "clawbernetes workload list --node {node}".to_owned(),
        "ssh {node} df -h".to_owned(),
    ]
}

fn inode_commands() -> Vec<String> {
    vec![
        "clawbernetes metrics disk.inodes.used --node {node} --last 24h".to_owned(),
        "clawbernetes workload list --node {node}".to_owned(),
        "ssh {node} df -i".to_owned(),
    ]
}

/// Six hours of growth are a habit, not a burst; below 60 % a burst has room to end by itself.
fn by_trend(used: &str, total: &str, unit: Unit) -> Condition {
    Condition::All {
        of: vec![
            Condition::Trend(Trend {
                metric: used.to_owned(),
                labels: Vec::new(),
                over: Span::hours(6),
                op: Op::AtLeast,
                bound: Bound::share(1.0, total),
                within: Span::hours(24),
                unit,
            }),
            last(used, Op::AtLeast, Bound::share(0.6, total), unit),
        ],
    }
}

fn filling() -> Rule {
    Rule {
        description: "At the rate of the last six hours it is full within a day.".to_owned(),
        for_: Span::minutes(30),
        keep_firing_for: Span::minutes(30),
        commands: commands(),
        ..rule(
            "disk-filling",
            Severity::Warning,
            DISK,
            "a disk will be full in {eta} ({target}): {value} of {limit}",
            by_trend("disk.used", "disk.total", Unit::Bytes),
        )
    }
}

fn inodes_filling() -> Rule {
    Rule {
        description:
            "At the rate of the last six hours there are none left within a day: many small files, as of data \
                      sets, caches and unpacked images."
                .to_owned(),
        for_: Span::minutes(30),
        keep_firing_for: Span::minutes(30),
        commands: inode_commands(),
        ..rule(
            "disk-inodes-filling",
            Severity::Warning,
            DISK,
            "a disk will have no inodes left in {eta} ({target}): {value} of {limit}",
            by_trend("disk.inodes.used", "disk.inodes.total", Unit::None),
        )
    }
}

fn inodes_full() -> Rule {
    Rule {
        description: "No file can be made, however much space is left.".to_owned(),
        for_: Span::minutes(5),
        keep_firing_for: Span::minutes(5),
        commands: inode_commands(),
        inhibits: vec![inhibits(&["disk-inodes-filling"], DISK)],
        ..rule(
            "disk-inodes-full",
            Severity::Critical,
            DISK,
            "a disk has all but no inodes left ({target}): {value}, limit {limit}",
            last(
                "disk.inodes.used",
                Op::Above,
                Bound::share(0.95, "disk.inodes.total"),
                Unit::None,
            ),
        )
    }
}

fn full() -> Rule {
    Rule {
        description: "Images can't be fetched, logs and checkpoints can't be written.".to_owned(),
        for_: Span::minutes(5),
        keep_firing_for: Span::minutes(5),
        commands: commands(),
        inhibits: vec![inhibits(&["disk-filling"], DISK)],
        ..rule(
            "disk-full",
            Severity::Critical,
            DISK,
            "a disk is all but full ({target}): {value}, limit {limit}",
            last("disk.used", Op::Above, Bound::share(0.95, "disk.total"), Unit::Bytes),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{fires, six_hours, value};

    const DATA: &[(&str, &str)] = &[("node", "gpu-7"), ("mount", "/data")];
    const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

    /// A disk of 1000 GiB.
    fn filling(used_gib: impl Fn(f64) -> f64) -> Option<(u64, String)> {
        fires("disk-filling", DATA, |m| {
            let used = |minute: f64| used_gib(minute) * GIB;
            let total = || value(1000.0 * GIB, m);
            vec![six_hours(m, used), total(), value(used(m as f64), m), total()]
        })
    }

    #[test]
    fn disk_filling() {
        // 30 GiB an hour: 700 GiB become 1000 in ten hours.
        let (minute, summary) = filling(|minute| 700.0 + minute * 0.5).unwrap();
        assert_eq!(minute, 30);
        assert!(summary.starts_with("a disk will be full in 8h"), "{summary}");
        assert!(summary.contains("(mount=/data node=gpu-7)"), "{summary}");
    }

    #[test]
    fn disk_not_filling() {
        // Slow, falling, flat, a saw-tooth, and fast on an empty disk.
        assert_eq!(filling(|minute| 700.0 + minute * 0.1), None);
        assert_eq!(filling(|minute| 700.0 - minute * 0.5), None);
        assert_eq!(filling(|_| 900.0), None);
        assert_eq!(filling(|minute| 700.0 + (minute + 720.0) % 60.0 * 3.0), None);
        assert_eq!(filling(|minute| 400.0 + minute * 0.5), None);
    }

    #[test]
    fn disk_inodes_filling() {
        // Of a million: 30,000 an hour on 700,000.
        let inodes = |used: fn(f64) -> f64| {
            fires("disk-inodes-filling", DATA, move |m| {
                let total = || value(1e6, m);
                vec![six_hours(m, used), total(), value(used(m as f64), m), total()]
            })
        };
        let (minute, summary) = inodes(|minute| 700_000.0 + minute * 500.0).unwrap();
        assert_eq!(minute, 30);
        let wanted = "a disk will have no inodes left in 7h59m (mount=/data node=gpu-7): 760000 of 1000000";
        assert_eq!(summary, wanted);
        assert_eq!(inodes(|minute| 700_000.0 + minute * 100.0), None);
        assert_eq!(inodes(|_| 900_000.0), None);
    }

    #[test]
    fn disk_inodes_full() {
        let at = |used: f64| move |m| vec![value(used, m), value(1e6, m)];
        let fired = fires("disk-inodes-full", DATA, at(951_000.0)).unwrap();
        assert_eq!(fired.0, 5);
        assert!(fired.1.ends_with("951000, limit 950000"), "{}", fired.1);
        assert_eq!(fires("disk-inodes-full", DATA, at(949_000.0)), None);
    }

    #[test]
    fn disk_full() {
        let at = |gib: f64| move |m| vec![value(gib * GIB, m), value(1000.0 * GIB, m)];
        assert_eq!(fires("disk-full", DATA, at(951.0)).unwrap().0, 5);
        assert_eq!(fires("disk-full", DATA, at(949.0)), None);
    }
}
