//! PCI addresses, and what sysfs knows of the devices behind them.

use std::{fs, path::Path};

/// `0000:3b:00.0` from any spelling that drivers use (`00000000:3B:00.0`, `3B:00.0`). `None`: not an address.
pub(crate) fn normalise(address: &str) -> Option<String> {
    let (place, function) = address.trim().rsplit_once('.')?;
    let mut parts = place.rsplit(':').map(|part| u32::from_str_radix(part, 16).ok());
    let device = parts.next()??;
    let bus = parts.next()??;
    let domain = parts.next().unwrap_or(Some(0))?;
    let function = u32::from_str_radix(function, 16).ok()?;
    let fits = parts.next().is_none() && bus <= 0xff && device <= 0x1f && function <= 7;
    fits.then(|| format!("{domain:04x}:{bus:02x}:{device:02x}.{function:x}"))
}

/// The text of a sysfs file without surrounding space. `None`: it isn't there or is empty.
pub(super) fn read(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// The NUMA node nearest to a device, from its sysfs folder. `None`: unknown, or the machine has just one.
pub(super) fn numa_node(device: &Path) -> Option<u32> {
    read(&device.join("numa_node"))?.parse().ok()
}

/// Number of GPUs (display or 3D controllers) of a vendor on the bus, whatever their driver. 0 also when unknown.
pub(super) fn count_gpus(sysfs: &Path, vendor: &str) -> usize {
    let Ok(devices) = fs::read_dir(sysfs.join("bus/pci/devices")) else {
        return 0;
    };
    devices
        .flatten()
        .filter(|device| {
            let path = device.path();
            read(&path.join("vendor")).as_deref() == Some(vendor)
                && read(&path.join("class")).is_some_and(|class| class.starts_with("0x03"))
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_one_spelling() {
        for spelled in ["00000000:3B:00.0", "0000:3b:00.0", "3B:00.0", " 0000:3B:00.0\n"] {
            assert_eq!(normalise(spelled).as_deref(), Some("0000:3b:00.0"), "{spelled}");
        }
        assert_eq!(normalise("00010000:07:1f.3").as_deref(), Some("10000:07:1f.3"));
        for wrong in ["", "3b", "0000:3b:00", "0000:100:00.0", "x:3b:00.0", "1:2:3:4.0"] {
            assert_eq!(normalise(wrong), None, "{wrong}");
        }
    }
}
