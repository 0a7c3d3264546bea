//! The NVIDIA driver with a test library in NVML's place: the real loading code, the real calls.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use api::{
    Size,
    node::{GpuHealth, GpuLink, GpuSample},
};
use clawbernetes_node::gpu::{
    Driver, DriverError,
    nvidia::{Nvidia, Options},
    probe,
};
use clawbernetes_node::sample::Value;
use tempfile::TempDir;

/// The test library, compiled once.
fn library() -> &'static [u8] {
    static COMPILED: OnceLock<Vec<u8>> = OnceLock::new();
    COMPILED.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let output = folder.path().join("libnvidia-ml.so.1");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nvml_stub.c");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-o"])
            .args([&output, &source])
            .arg("-ldl")
            .output()
            .expect("a C compiler called `cc`");
        let words = String::from_utf8_lossy(&compiled.stderr);
        assert!(compiled.status.success(), "the test library doesn't compile:\n{words}");
        fs::read(output).expect("the library")
    })
}

/// A machine with a library and a state of its own.
struct Machine {
    folder: TempDir,
    state: Vec<(String, String)>,
}

impl Machine {
    /// Two healthy H100s that are joined through switches, and an L4.
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("nvml.so"), library()).expect("the library");
        let mut machine = Self {
            folder,
            state: Vec::new(),
        };
        for (key, value) in [("driver", "580.95.05"), ("count", "3")] {
            machine.keep(key, value);
        }
        for gpu in 0..3 {
            let h100 = gpu < 2;
            for (field, value) in [
                ("uuid", format!("GPU-0000000{gpu}-1111-2222-3333-444444444444")),
                (
                    "name",
                    (if h100 { "NVIDIA H100 80GB HBM3" } else { "NVIDIA L4" }).to_owned(),
                ),
                ("pci", format!("00000000:{}:00.0", ["1B", "3B", "C1"][gpu])),
                (
                    "memory.total",
                    (if h100 { 85_520_809_984_u64 } else { 24_152_899_584 }).to_string(),
                ),
                ("memory.used", "1073741824".to_owned()),
                ("power.limit", (if h100 { "700000" } else { "72000" }).to_owned()),
                ("power", "123456".to_owned()),
                ("temperature", format!("{}", 40 + gpu)),
                ("utilization", "37".to_owned()),
                ("mig", "0".to_owned()),
                ("ecc.uncorrected.volatile", "0".to_owned()),
                ("throttle", "1".to_owned()),
                ("events", "8".to_owned()),
                ("field.144", "0".to_owned()),
                ("field.145", "0".to_owned()),
                ("field.230", "0".to_owned()),
            ] {
                machine.keep(&format!("gpu.{gpu}.{field}"), &value);
            }
            if h100 {
                for link in 0..18 {
                    machine.keep(
                        &format!("gpu.{gpu}.link.{link}"),
                        &format!("00000000:{:02X}:00.0", 5 + link % 4),
                    );
                }
            }
        }
        for (key, value) in [
            ("pair.0.1.ancestor", "30"),
            ("pair.0.1.nvlink", "0"),
            ("pair.0.2.ancestor", "50"),
            ("pair.1.2.ancestor", "40"),
        ] {
            machine.keep(key, value);
        }
        machine.write();
        machine
    }

    fn keep(&mut self, key: &str, value: &str) {
        self.state.retain(|(known, _)| known != key);
        self.state.push((key.to_owned(), value.to_owned()));
    }

    /// Sets a key from the next call on.
    fn set(&mut self, key: &str, value: &str) {
        self.keep(key, value);
        self.write();
    }

    fn remove(&mut self, key: &str) {
        self.state.retain(|(known, _)| known != key);
        self.write();
    }

    /// Replaces the state in one step, so that the library never reads half of it.
    fn write(&self) {
        let text: String = self
            .state
            .iter()
            .map(|(key, value)| format!("{key}={value}\n"))
            .collect();
        let next = self.folder.path().join("next");
        fs::write(&next, text).expect("the state");
        fs::rename(next, self.folder.path().join("nvml.so.state")).expect("the state");
    }

    fn options(&self) -> Options {
        Options {
            library: Some(self.folder.path().join("nvml.so")),
            sysfs: self.folder.path().join("sys"),
            ..Options::default()
        }
    }

    fn open(&self) -> Nvidia {
        let driver = Nvidia::open(self.options()).expect("a driver");
        driver.inventory().expect("an inventory");
        driver
    }
}

fn names(samples: &[GpuSample]) -> Vec<&'static str> {
    samples.iter().map(|sample| sample.health.name()).collect()
}

fn reason(sample: &GpuSample) -> &str {
    sample.health.reason().unwrap_or_default()
}

#[test]
fn gpus_are_described() {
    let machine = Machine::new();
    let device = machine.folder.path().join("sys/bus/pci/devices/0000:3b:00.0");
    fs::create_dir_all(&device).expect("a folder");
    fs::write(device.join("numa_node"), "1\n").expect("a file");
    let gpus = machine.open().inventory().expect("an inventory");
    assert_eq!(gpus.len(), 3);
    let gpu = &gpus[1];
    assert_eq!(gpu.index, 1);
    assert_eq!(gpu.uuid, "GPU-00000001-1111-2222-3333-444444444444");
    assert_eq!(gpu.model, "NVIDIA H100 80GB HBM3");
    assert_eq!(gpu.memory_total_bytes, Some(Size(85_520_809_984)));
    assert_eq!(gpu.pci_address.as_deref(), Some("0000:3b:00.0"));
    assert_eq!(gpu.numa_node, Some(1));
    assert_eq!(gpus[0].numa_node, None);
    assert_eq!(gpu.power_limit_watts, Some(700));
    assert_eq!(gpu.driver_version.as_deref(), Some("580.95.05"));
    assert!(!gpu.simulated());
}

#[test]
fn links_are_nvlink_lanes_or_the_way_over_pcie() {
    let mut machine = Machine::new();
    let links = |machine: &Machine| {
        let links = machine.open().links();
        links
            .into_iter()
            .map(|pair| ((pair.a, pair.b), pair.link))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        links(&machine),
        [
            ((0, 1), GpuLink::NvLink { lanes: 18 }),
            ((0, 2), GpuLink::System),
            ((1, 2), GpuLink::SameNuma)
        ]
    );
    // Active ports are no use while the fabric isn't set up.
    machine.set("pair.0.1.nvlink", "5");
    assert_eq!(links(&machine)[0].1, GpuLink::SameNuma);
    // Bridges between two cards.
    machine.set("pair.0.1.nvlink", "0");
    for link in 4..18 {
        machine.keep(&format!("gpu.0.link.{link}"), "!3");
        machine.keep(&format!("gpu.1.link.{link}"), "!3");
    }
    for link in 0..4 {
        machine.keep(&format!("gpu.0.link.{link}"), "00000000:3B:00.0");
        machine.keep(&format!("gpu.1.link.{link}"), "00000000:1B:00.0");
    }
    machine.write();
    assert_eq!(links(&machine)[0].1, GpuLink::NvLink { lanes: 4 });
    // A pair of which nothing is known is left out.
    machine.remove("pair.0.2.ancestor");
    assert_eq!(links(&machine).len(), 2);
}

#[test]
fn samples_follow_the_hardware_and_what_it_lacks_is_unknown() {
    let mut machine = Machine::new();
    let driver = machine.open();
    let sample = driver.sample();
    assert_eq!(
        sample[2],
        GpuSample {
            index: 2,
            memory_used_bytes: Some(Size::gib(1)),
            utilization_percent: Some(37),
            temperature_celsius: Some(42),
            power_watts: Some(123.456),
            health: GpuHealth::Ok,
        }
    );
    machine.set("gpu.2.temperature", "71");
    machine.remove("gpu.2.power");
    machine.set("gpu.2.utilization", "!3");
    // An old driver without a call.
    machine.set("gpu.2.memory.used", "!13");
    let sample = &driver.sample()[2];
    assert_eq!(sample.temperature_celsius, Some(71));
    assert_eq!(sample.power_watts, None);
    assert_eq!(sample.utilization_percent, None);
    assert_eq!(sample.memory_used_bytes, None);
    assert_eq!(sample.health, GpuHealth::Ok, "lacking a sensor is no illness");
}

#[test]
fn a_lost_gpu_hides_no_other() {
    let mut machine = Machine::new();
    let driver = machine.open();
    machine.set("gpu.1.error", "15");
    let sample = driver.sample();
    assert_eq!(names(&sample), ["ok", "failed", "ok"]);
    assert!(reason(&sample[1]).contains("fell off the bus"), "{:?}", sample[1]);
    assert_eq!(sample[1].temperature_celsius, None);
    let left: Vec<u32> = driver
        .inventory()
        .expect("an inventory")
        .iter()
        .map(|gpu| gpu.index)
        .collect();
    assert_eq!(left, [0, 2]);
    assert!(
        driver.notes()[0].starts_with("NVIDIA GPU 1 of 3 is left out"),
        "{:?}",
        driver.notes()
    );
    assert_eq!(names(&driver.sample()), ["ok", "failed", "ok"], "it isn't forgotten");
    assert_eq!(driver.links().len(), 1);
    machine.remove("gpu.1.error");
    assert_eq!(names(&driver.sample()), ["ok", "ok", "ok"]);
    assert_eq!(driver.inventory().expect("an inventory").len(), 3);
    assert!(driver.notes().is_empty());
}

#[test]
fn what_is_wrong_is_judged_as_nvidia_says() {
    let mut machine = Machine::new();
    let driver = machine.open();
    for (field, value, state, word) in [
        ("error", "16", "failed", "needs a reset"),
        ("field.230", "1", "failed", "needs a reset"),
        ("field.230", "2", "failed", "reboot"),
        ("field.230", "4", "degraded", "reduced capacity"),
        ("field.145", "1", "failed", "replace it"),
        ("field.144", "1", "degraded", "remapped at the next reset"),
        ("retirement.pending", "1", "degraded", "retired at the next reset"),
        (
            "ecc.uncorrected.volatile",
            "2",
            "degraded",
            "2 uncorrectable memory errors",
        ),
        ("throttle", "0x48", "degraded", "too hot"),
        ("throttle", "0x80", "degraded", "power brake"),
        ("throttle", "0x4", "ok", ""),
        ("mig", "1", "failed", "MIG"),
        ("temperature", "!999", "degraded", "temperature"),
        ("error", "999", "unknown", "the GPU"),
    ] {
        let key = format!("gpu.0.{field}");
        let before = machine.state.iter().find(|(known, _)| *known == key).cloned();
        machine.set(&key, value);
        let sample = driver.sample();
        assert_eq!(names(&sample), [state, "ok", "ok"], "{key}={value}");
        assert!(
            reason(&sample[0]).contains(word),
            "{key}={value}: {}",
            reason(&sample[0])
        );
        match before {
            Some((_, before)) => machine.set(&key, &before),
            None => machine.remove(&key),
        }
    }
    assert_eq!(names(&driver.sample()), ["ok", "ok", "ok"]);
}

#[test]
fn mig_mode_is_said_and_not_pretended_away() {
    let mut machine = Machine::new();
    machine.set("gpu.0.mig", "1");
    let driver = machine.open();
    assert_eq!(driver.inventory().expect("an inventory").len(), 3);
    assert_eq!(
        driver.notes(),
        ["NVIDIA GPU 0 is in MIG mode: its instances aren't handed out yet"]
    );
    assert!(!driver.sample()[0].health.usable());
}

#[test]
fn xid_errors_arrive_by_class_and_fade() {
    let mut machine = Machine::new();
    let driver = machine.open();
    assert_eq!(names(&driver.sample()), ["ok", "ok", "ok"]);
    machine.set("gpu.0.xid", "31");
    machine.set("gpu.1.xid", "95");
    machine.set("gpu.2.xid", "74");
    let sample = driver.sample();
    assert_eq!(
        names(&sample),
        ["ok", "failed", "degraded"],
        "31 is the program's own fault"
    );
    assert_eq!(
        reason(&sample[1]),
        "XID 95: memory error that could not be kept to one program: all work on the GPU is suspect"
    );
    for _ in 1..30 {
        driver.sample();
    }
    assert_eq!(
        names(&driver.sample()),
        ["ok", "ok", "ok"],
        "after thirty clean samples"
    );
    machine.set("gpu.2.xid", "74#2");
    assert_eq!(names(&driver.sample()), ["ok", "ok", "degraded"]);
}

#[test]
fn a_driver_that_hangs_is_unknown_and_comes_back() {
    let mut machine = Machine::new();
    let driver = Nvidia::open(Options {
        // Long enough for healthy calls on a busy machine, since those are waited for just as long.
        patience: Duration::from_secs(2),
        ..machine.options()
    })
    .expect("a driver");
    driver.inventory().expect("an inventory");
    machine.set("hang", "1");
    let sample = driver.sample();
    assert_eq!(names(&sample), ["unknown"; 3]);
    assert_eq!(sample[0].temperature_celsius, None);
    // Told at once, without queueing up behind the call that hangs.
    let error = driver.inventory().expect_err("no answer");
    assert!(error.to_string().contains("NVML hasn't answered for"), "{error}");
    machine.remove("hang");
    // The call that hung ends by itself; there is nothing else to wait on.
    let back = (0..2000).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        names(&driver.sample()) == ["ok"; 3]
    });
    assert!(back, "it never came back");
}

#[test]
fn a_driver_that_never_starts_is_given_up() {
    let mut machine = Machine::new();
    machine.set("hang", "1");
    let error = Nvidia::open(Options {
        patience: Duration::from_millis(50),
        ..machine.options()
    })
    .err();
    assert!(matches!(error, Some(DriverError::Failed { .. })), "{error:?}");
}

#[test]
fn an_upgrade_of_the_driver_is_survived() {
    let mut machine = Machine::new();
    let driver = machine.open();
    // NVML's library doesn't fit the kernel's driver any more; then neither can be loaded.
    machine.keep("init", "!18");
    machine.set("count", "!18");
    for gpu in 0..3 {
        machine.set(&format!("gpu.{gpu}.error"), "18");
    }
    let sample = driver.sample();
    assert_eq!(names(&sample), ["unknown"; 3], "{sample:?}");
    let error = driver.inventory().expect_err("no driver");
    assert!(error.to_string().contains("different versions"), "{error}");
    assert_eq!(names(&driver.sample()), ["unknown"; 3]);
    for gpu in 0..3 {
        machine.remove(&format!("gpu.{gpu}.error"));
    }
    machine.keep("driver", "590.10");
    machine.keep("count", "3");
    machine.remove("init");
    assert_eq!(driver.inventory().map(|gpus| gpus.len()), Ok(3), "loaded anew");
    assert_eq!(names(&driver.sample()), ["ok"; 3]);
}

#[test]
fn without_a_driver_there_are_just_no_gpus() {
    let mut machine = Machine::new();
    machine.set("init", "!9");
    let error = Nvidia::open(machine.options()).err();
    assert!(matches!(error, Some(DriverError::Absent { .. })), "{error:?}");
    machine.set("init", "!18");
    let error = Nvidia::open(machine.options()).err();
    assert!(matches!(error, Some(DriverError::Failed { .. })), "{error:?}");
    let missing = Options {
        library: Some(PathBuf::from("/nowhere/libnvidia-ml.so.1")),
        ..machine.options()
    };
    let error = Nvidia::open(missing).err();
    assert!(
        matches!(error, Some(DriverError::Failed { .. })),
        "a named library must be there: {error:?}"
    );
}

#[test]
fn detection_says_what_it_did_not_find() {
    let mut machine = Machine::new();
    let options = || probe::Options {
        nvidia: machine.options(),
        sysfs: machine.folder.path().join("sys"),
        simulated: None,
    };
    let (drivers, notes) = probe::detect(options());
    assert_eq!(drivers.len(), 1);
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].starts_with("no AMD driver: "), "{notes:?}");
    assert_eq!(drivers[0].sample().len(), 3, "known from the first sample on");

    let device = machine.folder.path().join("sys/bus/pci/devices/0000:3b:00.0");
    fs::create_dir_all(&device).expect("a folder");
    fs::write(device.join("vendor"), "0x10de\n").expect("a file");
    fs::write(device.join("class"), "0x030200\n").expect("a file");
    let options = options();
    machine.set("init", "!9");
    let (drivers, notes) = probe::detect(options);
    assert!(drivers.is_empty());
    assert!(
        notes.contains(&"1 NVIDIA GPUs are on the PCI bus without a working driver".to_owned()),
        "{notes:?}"
    );
}

#[test]
fn indexes_of_two_vendors_never_clash() {
    let machine = Machine::new();
    let sysfs = machine.folder.path().join("sys");
    for (card, address) in ["0000:05:00.0", "0000:06:00.0"].iter().enumerate() {
        let device = sysfs.join(format!("class/drm/card{card}/device"));
        fs::create_dir_all(&device).expect("a folder");
        let uevent = format!("DRIVER=amdgpu\nPCI_SLOT_NAME={address}\n");
        for (file, text) in [
            ("uevent", uevent.as_str()),
            ("vendor", "0x1002\n"),
            ("numa_node", "0\n"),
        ] {
            fs::write(device.join(file), text).expect("a file");
        }
    }
    let (drivers, notes) = probe::detect(probe::Options {
        nvidia: machine.options(),
        sysfs,
        simulated: None,
    });
    assert_eq!(notes, [""; 0]);
    let indexes = |of: &dyn Fn(&dyn Driver) -> Vec<u32>| drivers.iter().flat_map(|d| of(&**d)).collect::<Vec<_>>();
    let all = [0, 1, 2, 64, 65];
    assert_eq!(
        indexes(&|d| d.inventory().expect("gpus").iter().map(|gpu| gpu.index).collect()),
        all
    );
    assert_eq!(indexes(&|d| d.sample().iter().map(|gpu| gpu.index).collect()), all);
    let links = drivers[1].links();
    assert_eq!((links[0].a, links[0].b), (64, 65));
}

/// Readings by metric.
fn readings(driver: &Nvidia, gpu: u32) -> std::collections::BTreeMap<&'static str, Value> {
    let readings = driver.readings(gpu);
    readings
        .into_iter()
        .map(|reading| (reading.metric, reading.value))
        .collect()
}

#[test]
fn all_that_a_gpu_reports_is_read() {
    let mut machine = Machine::new();
    for (field, value) in [
        ("utilization.memory", "41"),
        ("slowdown", "87"),
        ("shutdown", "92"),
        ("clock.sm", "1980"),
        ("clock.memory", "2619"),
        ("pcie.rx", "20500"),
        ("pcie.tx", "17"),
        ("pcie.replays", "3"),
        ("pcie.generation", "5"),
        ("pcie.width", "16"),
        ("ecc.corrected.volatile", "7"),
        ("throttle", "72"),
        ("fans", "2"),
        ("fan.0", "30"),
        ("fan.1", "35"),
        ("field.82", "66"),
        ("field.142", "1"),
        ("field.143", "0"),
        ("field.138.0", "1000"),
        ("field.138.17", "24"),
        ("field.139.3", "5"),
        ("link.0.errors.2", "4"),
        ("link.17.errors.0", "5"),
    ] {
        machine.keep(&format!("gpu.1.{field}"), value);
    }
    machine.write();
    let driver = machine.open();
    let read = readings(&driver, 1);
    for (metric, wanted) in [
        ("gpu.up", 1.0),
        ("gpu.utilization", 37.0),
        ("gpu.memory", 1_073_741_824.0),
        ("gpu.memory.total", 85_520_809_984.0),
        ("gpu.memory.bandwidth", 41.0),
        ("gpu.temperature", 41.0),
        ("gpu.temperature.memory", 66.0),
        ("gpu.temperature.slowdown", 87.0),
        ("gpu.temperature.shutdown", 92.0),
        ("gpu.power.limit", 700.0),
        ("gpu.clock.sm", 1980.0),
        ("gpu.clock.memory", 2619.0),
        ("gpu.fan", 35.0),
        ("gpu.pcie.rx", 20_500_000.0),
        ("gpu.pcie.tx", 17_000.0),
        ("gpu.pcie.replays", 3.0),
        ("gpu.pcie.generation", 5.0),
        ("gpu.pcie.width", 16.0),
        ("gpu.ecc.corrected", 7.0),
        ("gpu.ecc.uncorrected", 0.0),
        ("gpu.remap.corrected", 1.0),
        ("gpu.remap.pending", 0.0),
        ("gpu.throttle", 72.0),
        ("gpu.nvlink.errors", 9.0),
    ] {
        assert_eq!(read.get(metric), Some(&Value::Now(wanted)), "{metric}");
    }
    assert_eq!(read["gpu.nvlink.tx"], Value::Total(1_048_576.0), "of all ports");
    assert_eq!(read["gpu.nvlink.rx"], Value::Total(5120.0));
    // What the card lacks isn't there: an L4 has no NVLink and no fan of its own.
    let card = readings(&driver, 2);
    assert_eq!(card["gpu.up"], Value::Now(1.0));
    for metric in [
        "gpu.fan",
        "gpu.nvlink.tx",
        "gpu.nvlink.errors",
        "gpu.clock.sm",
        "gpu.ecc.corrected",
    ] {
        assert!(!card.contains_key(metric), "{metric}");
    }
    // A total of its own, where the driver has one.
    machine.set("gpu.1.field.38", "2");
    assert_eq!(readings(&driver, 1)["gpu.nvlink.errors"], Value::Now(2.0));
    // Off the bus.
    machine.set("gpu.1.error", "15");
    assert_eq!(Vec::from_iter(readings(&driver, 1)), [("gpu.up", Value::Now(0.0))]);
}

#[test]
fn a_hanging_library_answers_no_reading_for_ever() {
    let mut machine = Machine::new();
    let driver = Nvidia::open(Options {
        patience: Duration::from_millis(50),
        ..machine.options()
    })
    .expect("a driver");
    driver.inventory().expect("an inventory");
    machine.set("hang", "1");
    assert_eq!(Vec::from_iter(readings(&driver, 0)), [("gpu.up", Value::Now(0.0))]);
    machine.remove("hang");
}
