//! The AMD driver on trees of files in the shape of sysfs.

use std::{fs, os::unix::fs::symlink, path::Path};

use api::{
    Size,
    node::{GpuLink, Vendor},
};
use clawbernetes_node::gpu::{Driver, DriverError, amd::Amd};
use clawbernetes_node::sample::Value;
use tempfile::TempDir;

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
    fs::write(path, text).expect("a file");
}

/// A card as amdgpu shows it: the device where it is on the bus, and a link to it from `class/drm`.
fn card(root: &Path, number: usize, bus: &str, address: &str, files: &[(&str, &str)]) {
    let device = root.join("devices").join(bus).join(address);
    write(
        &device.join("uevent"),
        &format!("DRIVER=amdgpu\nPCI_CLASS=38000\nPCI_SLOT_NAME={address}\n"),
    );
    write(&device.join("vendor"), "0x1002\n");
    for (file, text) in files {
        write(&device.join(file), text);
    }
    let class = root.join(format!("class/drm/card{number}"));
    fs::create_dir_all(&class).expect("a folder");
    symlink(&device, class.join("device")).expect("a link");
    fs::create_dir_all(root.join(format!("class/drm/card{number}-DP-1"))).expect("a folder");
}

/// What an Instinct shows.
const MI300X: &[(&str, &str)] = &[
    ("device", "0x74a1\n"),
    ("product_name", "\n"),
    ("mem_info_vram_total", "206141652992\n"),
    ("mem_info_vram_used", "302182400\n"),
    ("gpu_busy_percent", "12\n"),
    ("numa_node", "0\n"),
    ("ras/umc_err_count", "ue: 0\nce: 7\n"),
    ("hwmon/hwmon5/name", "amdgpu\n"),
    ("hwmon/hwmon5/temp2_input", "49000\n"),
    ("hwmon/hwmon5/power1_input", "141000000\n"),
    ("hwmon/hwmon5/power1_cap", "750000000\n"),
];

/// What a Radeon shows.
const RADEON: &[(&str, &str)] = &[
    ("device", "0x744c\n"),
    ("product_name", "Radeon RX 7900 XTX\n"),
    ("mem_info_vram_total", "25753026560\n"),
    ("mem_info_vram_used", "1048576\n"),
    ("numa_node", "-1\n"),
    ("hwmon/hwmon2/temp1_input", "41500\n"),
    ("hwmon/hwmon2/power1_average", "28500000\n"),
];

fn with<'a>(base: &[(&'a str, &'a str)], more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    base.iter().chain(more).copied().collect()
}

fn machine() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

#[test]
fn cards_are_described_and_sampled() {
    let root = machine();
    let root = root.path();
    write(&root.join("module/amdgpu/version"), "6.8.5\n");
    // Numbers of cards follow the order of loading, indexes the order on the bus.
    card(root, 0, "pci0000:80", "0000:83:00.0", RADEON);
    card(
        root,
        1,
        "pci0000:00",
        "0000:05:00.0",
        &with(MI300X, &[("unique_id", "1a2b3c4d5e6f7081\n")]),
    );
    // A processor's own graphics, and another vendor's card.
    card(
        root,
        2,
        "pci0000:c0",
        "0000:c4:00.0",
        &[("mem_info_vram_total", "536870912\n")],
    );
    card(root, 3, "pci0000:00", "0000:09:00.0", &[("vendor", "0x10de\n")]);
    let driver = Amd::open(root).expect("a driver");
    let gpus = driver.inventory().expect("an inventory");
    assert_eq!(gpus.len(), 2);

    let instinct = &gpus[0];
    assert_eq!((instinct.index, instinct.vendor), (0, Vendor::Amd));
    assert_eq!(instinct.uuid, "GPU-1a2b3c4d5e6f7081");
    assert_eq!(instinct.model, "AMD Instinct MI300X", "by its PCI number");
    assert_eq!(instinct.memory_total_bytes, Some(Size(206_141_652_992)));
    assert_eq!(instinct.pci_address.as_deref(), Some("0000:05:00.0"));
    assert_eq!(instinct.numa_node, Some(0));
    assert_eq!(instinct.power_limit_watts, Some(750));
    assert_eq!(instinct.driver_version.as_deref(), Some("6.8.5"));

    let radeon = &gpus[1];
    assert_eq!(radeon.uuid, "PCI-0000:83:00.0");
    assert_eq!(radeon.model, "Radeon RX 7900 XTX");
    assert_eq!(radeon.numa_node, None);
    assert_eq!(radeon.power_limit_watts, None);

    assert_eq!(
        driver.notes(),
        ["the AMD GPU at 0000:c4:00.0 is left out: 512Mi of memory of its own"]
    );

    let sample = driver.sample();
    assert_eq!(sample[0].memory_used_bytes, Some(Size(302_182_400)));
    assert_eq!(sample[0].utilization_percent, Some(12));
    assert_eq!(
        sample[0].temperature_celsius,
        Some(49),
        "the junction, for want of an edge sensor"
    );
    assert_eq!(sample[0].power_watts, Some(141.0));
    assert_eq!(sample[0].health.name(), "ok", "corrected errors are none");
    assert_eq!(sample[1].utilization_percent, None, "not reported isn't idle");
    assert_eq!(sample[1].temperature_celsius, Some(41));
    assert_eq!(sample[1].power_watts, Some(28.5));
}

#[test]
fn a_card_that_vanishes_is_failed_and_keeps_its_index() {
    let root = machine();
    let root = root.path();
    for (number, address) in ["0000:05:00.0", "0000:06:00.0", "0000:07:00.0", "0000:08:00.0"]
        .iter()
        .enumerate()
    {
        card(root, number, "pci0000:00", address, MI300X);
        let config = root.join("devices/pci0000:00").join(address).join("config");
        fs::write(config, b"\x02\x10\xa1\x74\x07\x04").expect("a file");
    }
    let driver = Amd::open(root).expect("a driver");
    driver.inventory().expect("an inventory");
    write(
        &root.join("devices/pci0000:00/0000:07:00.0/ras/umc_err_count"),
        "ue: 3\nce: 0\n",
    );
    fs::remove_dir_all(root.join("devices/pci0000:00/0000:06:00.0")).expect("it vanishes");
    // Its files are still there, but nobody answers behind them.
    fs::write(root.join("devices/pci0000:00/0000:08:00.0/config"), [0xff; 64]).expect("a file");
    let sample = driver.sample();
    let names: Vec<_> = sample.iter().map(|gpu| gpu.health.name()).collect();
    assert_eq!(names, ["ok", "failed", "degraded", "failed"]);
    assert_eq!(sample[1].memory_used_bytes, None);
    let left: Vec<u32> = driver
        .inventory()
        .expect("an inventory")
        .iter()
        .map(|gpu| gpu.index)
        .collect();
    assert_eq!(left, [0, 2, 3]);
    assert_eq!(driver.sample().len(), 4);
}

#[test]
fn links_are_fabric_hops_or_the_way_over_pcie() {
    let root = machine();
    let root = root.path();
    let hive = [("xgmi_hive_info/xgmi_hive_id", "12345678901234567\n")];
    card(root, 0, "pci0000:00/0000:00:01.1", "0000:05:00.0", &with(MI300X, &hive));
    card(root, 1, "pci0000:00/0000:00:03.1", "0000:15:00.0", &with(MI300X, &hive));
    card(root, 2, "pci0000:80/0000:80:01.1", "0000:85:00.0", MI300X);
    card(root, 3, "pci0000:80/0000:80:01.1", "0000:86:00.0", MI300X);
    card(
        root,
        4,
        "pci0000:c0/0000:c0:01.1",
        "0000:c5:00.0",
        &with(MI300X, &[("numa_node", "1\n")]),
    );
    let driver = Amd::open(root).expect("a driver");
    driver.inventory().expect("an inventory");
    let link = |a: u32, b: u32| {
        let pairs = driver.links();
        assert_eq!(pairs.len(), 10);
        pairs
            .iter()
            .find(|pair| (pair.a, pair.b) == (a, b))
            .map(|pair| pair.link)
    };
    assert_eq!(link(0, 1), Some(GpuLink::Xgmi { hops: 1 }), "one hive");
    assert_eq!(link(2, 3), Some(GpuLink::SameSwitch));
    assert_eq!(
        link(0, 2),
        Some(GpuLink::SameNuma),
        "other host bridges of one NUMA node"
    );
    assert_eq!(link(0, 4), Some(GpuLink::System));

    // The compute driver knows the distance. Node 0 is the processor.
    let nodes = root.join("class/kfd/kfd/topology/nodes");
    write(
        &nodes.join("0/properties"),
        "cpu_cores_count 96\nsimd_count 0\nlocation_id 0\n",
    );
    for (node, location) in [(1, 0x0500), (2, 0x1500)] {
        let properties = format!("cpu_cores_count 0\nsimd_count 1216\nlocation_id {location}\ndomain 0\n");
        write(&nodes.join(format!("{node}/properties")), &properties);
        let link = |number: u32, kind: u32, to: u32, weight: u32| {
            let text = format!("type {kind}\nnode_from {node}\nnode_to {to}\nweight {weight}\n");
            write(&nodes.join(format!("{node}/io_links/{number}/properties")), &text);
        };
        link(0, 2, 0, 20);
        link(1, 11, 3 - node, 30);
    }
    assert_eq!(link(0, 1), Some(GpuLink::Xgmi { hops: 2 }));
}

#[test]
fn without_cards_there_is_no_driver() {
    let root = machine();
    let error = Amd::open(root.path()).err();
    assert!(matches!(error, Some(DriverError::Absent { .. })), "{error:?}");
}

#[test]
fn all_that_a_card_reports_is_read() {
    let root = machine();
    let root = root.path();
    let more = [
        ("mem_busy_percent", "4\n"),
        ("hwmon/hwmon5/temp2_crit", "100000\n"),
        ("hwmon/hwmon5/temp2_emergency", "105000\n"),
        ("hwmon/hwmon5/temp3_input", "51000\n"),
        ("hwmon/hwmon5/freq1_input", "2100000000\n"),
        ("hwmon/hwmon5/freq2_input", "1300000000\n"),
        ("pcie_replay_count", "2\n"),
        ("current_link_width", "16\n"),
        ("current_link_speed", "32.0 GT/s PCIe\n"),
    ];
    card(root, 0, "pci0000:00", "0000:05:00.0", &with(MI300X, &more));
    let driver = Amd::open(root).expect("a driver");
    driver.inventory().expect("an inventory");
    let read: std::collections::BTreeMap<_, _> = driver
        .readings(0)
        .into_iter()
        .map(|reading| (reading.metric, reading.value))
        .collect();
    for (metric, wanted) in [
        ("gpu.up", 1.0),
        ("gpu.temperature", 49.0),
        ("gpu.temperature.memory", 51.0),
        ("gpu.temperature.slowdown", 100.0),
        ("gpu.temperature.shutdown", 105.0),
        ("gpu.memory.total", 206_141_652_992.0),
        ("gpu.memory.bandwidth", 4.0),
        ("gpu.power", 141.0),
        ("gpu.power.limit", 750.0),
        ("gpu.clock.sm", 2100.0),
        ("gpu.clock.memory", 1300.0),
        ("gpu.pcie.replays", 2.0),
        ("gpu.pcie.width", 16.0),
        ("gpu.pcie.generation", 5.0),
        ("gpu.ecc.corrected", 7.0),
        ("gpu.ecc.uncorrected", 0.0),
    ] {
        assert_eq!(read.get(metric), Some(&Value::Now(wanted)), "{metric}");
    }
    assert!(!read.contains_key("gpu.fan"));
    assert!(driver.readings(5).is_empty());
}
