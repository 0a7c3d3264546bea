//! Distances over Infinity Fabric, from the compute driver's topology.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::super::pci;

/// The type number of an Infinity Fabric link in `io_links`.
const XGMI: u64 = 11;

/// The weight that the driver gives each hop.
const WEIGHT_PER_HOP: u64 = 15;

/// Hops between GPUs by their PCI addresses.
#[derive(Debug, Default)]
pub(super) struct Fabric {
    hops: BTreeMap<(String, String), u32>,
}

impl Fabric {
    /// Reads the topology; an empty one where the compute driver isn't loaded.
    pub(super) fn read(sysfs: &Path) -> Self {
        let nodes: BTreeMap<u64, (PathBuf, String)> = folders(&sysfs.join("class/kfd/kfd/topology/nodes"))
            .into_iter()
            .filter_map(|(number, folder)| {
                let properties = properties(&folder.join("properties"));
                let address = address(&properties)?;
                Some((number, (folder, address)))
            })
            .collect();
        let mut hops = BTreeMap::new();
        for (number, (folder, from)) in &nodes {
            for (_, link) in folders(&folder.join("io_links")) {
                let link = properties(&link.join("properties"));
                let get = |key: &str| link.get(key).copied();
                if get("type") != Some(XGMI) || get("node_from") != Some(*number) {
                    continue;
                }
                let Some((_, to)) = get("node_to").and_then(|to| nodes.get(&to)) else {
                    continue;
                };
                let distance = get("weight").map_or(1, |weight| (weight / WEIGHT_PER_HOP).max(1));
                let distance = u32::try_from(distance).unwrap_or(u32::MAX);
                hops.insert((from.clone(), to.clone()), distance);
            }
        }
        Self { hops }
    }

    /// Hops between two GPUs. `None`: they aren't joined, or nothing says so.
    pub(super) fn hops(&self, a: &str, b: &str) -> Option<u32> {
        let get = |from: &str, to: &str| self.hops.get(&(from.to_owned(), to.to_owned())).copied();
        get(a, b).or_else(|| get(b, a))
    }
}

/// The folders that are named by numbers.
fn folders(parent: &Path) -> Vec<(u64, PathBuf)> {
    let Ok(entries) = fs::read_dir(parent) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .collect()
}

/// Lines of a name and a number.
fn properties(file: &Path) -> BTreeMap<String, u64> {
    pci::read(file)
        .unwrap_or_default()
        .lines()
        .filter_map(|line| {
            let (name, number) = line.split_once(' ')?;
            Some((name.to_owned(), number.trim().parse().ok()?))
        })
        .collect()
}

/// A node's PCI address. `None`: it is a processor.
fn address(properties: &BTreeMap<String, u64>) -> Option<String> {
    if properties.get("simd_count").copied().unwrap_or(0) == 0 {
        return None;
    }
    let domain = properties.get("domain").copied().unwrap_or(0);
    let location = *properties.get("location_id")?;
    let (bus, device, function) = (location >> 8 & 0xff, location >> 3 & 0x1f, location & 7);
    pci::normalise(&format!("{domain:x}:{bus:x}:{device:x}.{function:x}"))
}
