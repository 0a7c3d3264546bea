//! Load, swap, pressure, disks and network, from the kernel's text files. What a kernel doesn't tell is missing.

use std::{collections::BTreeSet, fs, path::Path};

use api::metric::label;
use rustix::fs::statvfs;

use super::read;
use crate::sample::Reading;

/// Sectors of `/proc/diskstats`, whatever the disk's own are.
const SECTOR_BYTES: u64 = 512;

/// Most file systems, disks and interfaces that are told each.
const MOST: usize = 64;

/// File systems that lie on this machine's own disks.
const LOCAL: [&str; 11] = [
    "ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "jfs", "reiserfs", "vfat",
];

/// Interfaces that only pass on what others carry, or that lead to a container.
const VIRTUAL: [&str; 17] = [
    "veth",
    "docker",
    "br-",
    "virbr",
    "ifb",
    "dummy",
    "cni",
    "flannel",
    "cali",
    "tunl",
    "sit",
    "ip6tnl",
    "gre",
    "erspan",
    "lxc",
    "nodelocaldns",
    "kube-",
];

/// Disks that are no disks of their own.
const NO_DISKS: [&str; 7] = ["loop", "ram", "zram", "sr", "fd", "dm-", "md"];

/// All of it.
pub(super) fn all(root: &Path) -> Vec<Reading> {
    let file = |name: &str| read(root, name).unwrap_or_default();
    let mut readings = load(&file("proc/loadavg"));
    readings.extend(swap(&file("proc/meminfo")));
    readings.extend(swapping(&file("proc/vmstat"), rustix::param::page_size() as u64));
    for (name, some, full) in [
        ("cpu", "pressure.cpu", None),
        ("memory", "pressure.memory", Some("pressure.memory.full")),
        ("io", "pressure.io", None),
    ] {
        let text = file(&format!("proc/pressure/{name}"));
        readings.extend(pressure(&text, "some").map(|percent| Reading::now(some, percent)));
        readings.extend(full.and_then(|metric| Some(Reading::now(metric, pressure(&text, "full")?))));
    }
    let disk = |name: &str| root.join("sys/block").join(name.replace('/', "!")).exists();
    readings.extend(disks(&file("proc/diskstats"), disk));
    readings.extend(network(&file("proc/net/dev")));
    for mount in mounts(&file("proc/self/mountinfo")).into_iter().take(MOST) {
        readings.extend(space(&root.join(mount.trim_start_matches('/')), &mount));
    }
    readings
}

fn load(loadavg: &str) -> Vec<Reading> {
    let numbers = loadavg.split_whitespace().map_while(|word| word.parse::<f64>().ok());
    ["cpu.load1", "cpu.load5", "cpu.load15"]
        .into_iter()
        .zip(numbers)
        .map(|(metric, load)| Reading::now(metric, load))
        .collect()
}

fn swap(meminfo: &str) -> Vec<Reading> {
    let kib = |key: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    let total = kib("SwapTotal:").map(|kib| kib << 10);
    let used = kib("SwapFree:")
        .zip(total)
        .map(|(free, total)| total.saturating_sub(free << 10));
    let total = total.map(|bytes| Reading::count("swap.total", bytes));
    total
        .into_iter()
        .chain(used.map(|bytes| Reading::count("swap.usage", bytes)))
        .collect()
}

fn swapping(vmstat: &str, page_bytes: u64) -> Vec<Reading> {
    [("pswpin ", "swap.in"), ("pswpout ", "swap.out")]
        .into_iter()
        .filter_map(|(key, metric)| {
            let pages: u64 = vmstat
                .lines()
                .find_map(|line| line.strip_prefix(key)?.trim().parse().ok())?;
            Some(Reading::total(metric, pages.saturating_mul(page_bytes)))
        })
        .collect()
}

/// The share of the last 10 s, in percent, of a line `some avg10=0.12 avg60=…`.
fn pressure(text: &str, whose: &str) -> Option<f64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(whose)?.strip_prefix(" avg10="))?;
    line.split_whitespace().next()?.parse().ok()
}

/// `major minor name reads merged sectors ms writes merged sectors …`, of each disk as a whole.
fn disks(diskstats: &str, is_disk: impl Fn(&str) -> bool) -> Vec<Reading> {
    let disk = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let name = (*fields.get(2)?).to_owned();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        let operations = number(3)?.saturating_add(number(7)?);
        let sectors = number(5)?.saturating_add(number(9)?);
        (!NO_DISKS.iter().any(|no| name.starts_with(no)) && is_disk(&name)).then(|| {
            [
                Reading::total("disk.iops", operations).with(label::DEVICE, name.clone()),
                Reading::total("disk.throughput", sectors.saturating_mul(SECTOR_BYTES)).with(label::DEVICE, name),
            ]
        })
    };
    diskstats.lines().filter_map(disk).take(MOST).flatten().collect()
}

/// `name: bytes packets errs drop fifo frame compressed multicast bytes packets errs …`.
fn network(dev: &str) -> Vec<Reading> {
    let interface = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let name = name.trim().to_owned();
        let numbers: Vec<u64> = numbers.split_whitespace().map_while(|word| word.parse().ok()).collect();
        let (rx, rx_errors, tx, tx_errors) = (*numbers.first()?, *numbers.get(2)?, *numbers.get(8)?, *numbers.get(10)?);
        let carries = name != "lo" && !VIRTUAL.iter().any(|other| name.starts_with(other));
        carries.then(|| {
            [
                Reading::total("network.rx", rx),
                Reading::total("network.tx", tx),
                Reading::total("network.throughput", rx.saturating_add(tx)),
                Reading::count("network.errors", rx_errors.saturating_add(tx_errors)),
            ]
            .map(|reading| reading.with(label::DEVICE, name.clone()))
        })
    };
    dev.lines().filter_map(interface).take(MOST).flatten().collect()
}

/// Where local file systems are mounted; of one that is mounted several times, the first place.
fn mounts(mountinfo: &str) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mount = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(2);
        let device = before.next()?;
        let place = unescaped(before.nth(1)?);
        let kind = after.split(' ').next()?;
        // In a container the root is an overlay on a disk.
        let local = LOCAL.contains(&kind) || (kind == "overlay" && place == "/");
        local.then(|| (device.to_owned(), place))
    };
    mountinfo
        .lines()
        .filter_map(mount)
        .filter(|(device, _)| seen.insert(device.clone()))
        .map(|(_, place)| place)
        .collect()
}

/// The kernel writes space, tab, newline and backslash as `\\040` and so on.
fn unescaped(path: &str) -> String {
    path.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

fn space(path: &Path, mount: &str) -> Vec<Reading> {
    // A file that something was mounted onto isn't a file system of its own.
    let is_folder = fs::metadata(path).is_ok_and(|meta| meta.is_dir());
    let Some(stat) = statvfs(path).ok().filter(|stat| is_folder && stat.f_blocks > 0) else {
        return Vec::new();
    };
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    let mut readings = vec![
        Reading::count("disk.used", bytes(stat.f_blocks.saturating_sub(stat.f_bfree))),
        Reading::count("disk.total", bytes(stat.f_blocks)),
    ];
    // Btrfs and others have no number of them that could run out, and say 0.
    if stat.f_files > 0 {
        readings.extend([
            Reading::count("disk.inodes.used", stat.f_files.saturating_sub(stat.f_ffree)),
            Reading::count("disk.inodes.total", stat.f_files),
        ]);
    }
    let of = |reading: Reading| reading.with(label::MOUNT, mount.to_owned());
    readings.into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(readings: &[Reading]) -> Vec<String> {
        readings
            .iter()
            .map(|r| {
                format!(
                    "{} {:?} {:?}",
                    r.metric,
                    r.labels.first().map_or("", |(_, value)| value),
                    r.value
                )
            })
            .collect()
    }

    const DISKSTATS: &str = "\
   7       0 loop0 5 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
 254       0 vda 123646 36212 16620978 53612 10415985 342694 222899808 5120302 0 304496 5327260 355600 85 95302232 58584 1294341 94760
 254       1 vda1 1 1 1 1 1 1 1 1 0 0 0
 259       0 nvme0n1 10 0 80 1 20 0 160 1 0 0 0
 253       0 dm-0 1 1 1 1 1 1 1 1 0 0 0
   8       0 sda 1 2
";

    const NET_DEV: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 9483554370 3293624    0    0    0     0          0         0 9483554370 3293624    0    0    0     0       0          0
veth12: 5 5 0 0 0 0 0 0 5 5 0 0 0 0 0 0
  eth0: 689373035   47051    2    0    0     0          0         0  3832051   45404    1    0    0     0       0          0
";

    const MOUNTINFO: &str = "\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
28 27 0:25 / /mnt/python ro,nosuid,nodev,relatime - tmpfs none ro,size=4k,mode=755
40 27 254:0 /var/lib /var/lib/bind rw,relatime shared:1 - ext4 /dev/vda rw
41 27 259:1 / /data\\040one rw,relatime shared:7 master:3 - xfs /dev/nvme0n1 rw
42 27 0:50 / /home rw - nfs4 server:/home rw
";

    #[test]
    fn disks_are_whole_ones() {
        let readings = disks(DISKSTATS, |name| name != "vda1");
        assert_eq!(
            shown(&readings),
            [
                r#"disk.iops "vda" Total(10539631.0)"#,
                r#"disk.throughput "vda" Total(122634642432.0)"#,
                r#"disk.iops "nvme0n1" Total(30.0)"#,
                r#"disk.throughput "nvme0n1" Total(122880.0)"#,
            ]
        );
    }

    #[test]
    fn interfaces_are_those_that_carry_something() {
        assert_eq!(
            shown(&network(NET_DEV)),
            [
                r#"network.rx "eth0" Total(689373035.0)"#,
                r#"network.tx "eth0" Total(3832051.0)"#,
                r#"network.throughput "eth0" Total(693205086.0)"#,
                r#"network.errors "eth0" Now(3.0)"#,
            ]
        );
    }

    #[test]
    fn file_systems_are_local_and_once() {
        assert_eq!(mounts(MOUNTINFO), ["/", "/data one"]);
    }

    #[test]
    fn load_swap_and_pressure() {
        assert_eq!(
            shown(&load("6.25 4.95 3.04 7/147 20697\n")),
            [
                r#"cpu.load1 "" Now(6.25)"#,
                r#"cpu.load5 "" Now(4.95)"#,
                r#"cpu.load15 "" Now(3.04)"#,
            ]
        );
        assert_eq!(
            shown(&swap("SwapTotal: 100 kB\nSwapFree: 60 kB\n")),
            [r#"swap.total "" Now(102400.0)"#, r#"swap.usage "" Now(40960.0)"#,]
        );
        assert_eq!(
            shown(&swapping("pswpin 2\npswpout 3\n", 4096)),
            [r#"swap.in "" Total(8192.0)"#, r#"swap.out "" Total(12288.0)"#,]
        );
        let psi =
            "some avg10=1.25 avg60=0.00 avg300=0.00 total=183184\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=18018\n";
        assert_eq!(pressure(psi, "some"), Some(1.25));
        assert_eq!(pressure(psi, "full"), Some(0.5));
        assert_eq!(pressure("", "some"), None);
    }

    #[test]
    fn garbage_is_no_reading() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(all(root.path()), []);
        for text in [
            "",
            "x",
            "a: b",
            "1 2 3",
            " - ",
            "1 2 3 - ext4",
            "some avg10=",
            "SwapTotal: x kB",
        ] {
            assert_eq!(load(&format!("y {text}")), []);
            assert_eq!(network(text), []);
            assert_eq!(disks(text, |_| true), []);
            assert_eq!(swap(text), []);
            assert!(mounts(text).is_empty());
            assert_eq!(pressure(text, "some"), None);
        }
    }

    #[test]
    fn this_machine_has_a_root() {
        let readings = all(Path::new("/"));
        let total = readings.iter().find(|r| r.metric == "disk.total");
        assert!(total.is_some(), "{readings:?}");
    }

    #[test]
    fn inodes_are_those_that_files_take() {
        let folder = tempfile::tempdir().unwrap();
        let readings = space(folder.path(), "/x");
        let value = |metric: &str| {
            let reading = readings.iter().find(|reading| reading.metric == metric)?;
            assert_eq!(reading.labels, [(label::MOUNT, "/x".into())]);
            match reading.value {
                crate::sample::Value::Now(value) => Some(value),
                crate::sample::Value::Total(_) => None,
            }
        };
        assert!(value("disk.used").unwrap() <= value("disk.total").unwrap());
        let stat = statvfs(folder.path()).unwrap();
        assert_eq!(
            value("disk.inodes.total"),
            (stat.f_files > 0).then_some(stat.f_files as f64)
        );
        if let Some(used) = value("disk.inodes.used") {
            assert!(used >= 1.0 && used <= stat.f_files as f64, "{used}");
        }
        assert_eq!(space(&folder.path().join("none"), "/x"), []);
    }
}
