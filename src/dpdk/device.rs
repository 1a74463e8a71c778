//! How a configuration names a port's device.

use std::fmt;
use std::fs;
use std::path::Path;
use std::str::FromStr;

use thiserror::Error;

/// A PCI address or the string of a virtual device, each with optional driver arguments behind a comma.
///
/// `0000:03:00.0`, `03:00.0`, `net_af_packet0,iface=eth1`, `net_pcap0,rx_pcap=in.pcap,tx_pcap=out.pcap`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    name: String,
    arguments: String,
    pci: bool,
}

/// Why a text does not name a device.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DeviceError {
    /// Nothing in front of the first comma.
    #[error(
        "expected a PCI address such as 0000:03:00.0 or a vdev such as net_af_packet0,iface=eth1, found no name in {found:?}"
    )]
    NoName {
        /// The whole text.
        found: String,
    },
    /// EAL cannot be given this text.
    #[error(
        "a device name and its arguments hold neither spaces nor control characters, found {found:?}"
    )]
    Characters {
        /// The whole text.
        found: String,
    },
}

impl FromStr for Device {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(DeviceError::Characters { found: text.into() });
        }
        let (name, arguments) = text.split_once(',').unwrap_or((text, ""));
        if name.is_empty() {
            return Err(DeviceError::NoName { found: text.into() });
        }
        let address = pci_address(name);
        Ok(Self {
            pci: address.is_some(),
            name: address.unwrap_or_else(|| name.to_owned()),
            arguments: arguments.to_owned(),
        })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if !self.arguments.is_empty() {
            write!(f, ",{}", self.arguments)?;
        }
        Ok(())
    }
}

impl Device {
    /// The name DPDK gives the port: the full PCI address, or the vdev without its arguments.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether this is a PCI device, which EAL probes when it starts.
    #[must_use]
    pub fn is_pci(&self) -> bool {
        self.pci
    }

    /// The NUMA node a card is on, where the machine has several.
    #[must_use]
    pub fn socket(&self) -> Option<u16> {
        let file = format!("/sys/bus/pci/devices/{}/numa_node", self.name);
        // -1 says that there is but one node.
        fs::read_to_string(file).ok()?.trim().parse().ok()
    }

    /// Why DPDK may have no port of this name, and what to do about it.
    pub(super) fn advice(&self) -> String {
        if self.pci {
            pci_advice(Path::new("/sys/bus/pci/devices"), &self.name)
        } else if self.name.starts_with("net_af_packet") {
            "the interface must exist and be up, and the process needs CAP_NET_RAW; if the log says PACKET_FANOUT, another \
             process got the same fanout group by chance: start again or use net_af_xdp"
                .into()
        } else if self.name.starts_with("net_") {
            format!(
                "the log says what its driver refused; that driver is in the package librte-{}23 or similar",
                self.name
                    .trim_end_matches(|c: char| c.is_ascii_digit())
                    .replace('_', "-")
            )
        } else {
            "expected a PCI address such as 0000:03:00.0, or a vdev whose name begins with its driver, such as net_af_packet0"
                .into()
        }
    }
}

/// `[domain:]bus:device.function` with the domain filled in, or `None` if `name` is something else.
fn pci_address(name: &str) -> Option<String> {
    let hex = |text: &str, digits: usize| {
        text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit())
    };
    let (rest, function) = name.rsplit_once('.')?;
    let (rest, device) = rest.rsplit_once(':')?;
    let (domain, bus) = rest.rsplit_once(':').unwrap_or(("0000", rest));
    let legal = hex(domain, 4)
        && hex(bus, 2)
        && hex(device, 2)
        && matches!(function.as_bytes(), [b'0'..=b'7']);
    legal.then(|| format!("{domain}:{bus}:{device}.{function}").to_ascii_lowercase())
}

fn pci_advice(devices: &Path, address: &str) -> String {
    let device = devices.join(address);
    if !device.exists() {
        return "the machine has no such PCI device; `dpdk-devbind.py --status-dev net` lists those it has".into();
    }
    let driver = fs::read_link(device.join("driver")).ok();
    match driver.as_deref().and_then(Path::file_name) {
        Some(driver)
            if driver == "vfio-pci" || driver == "igb_uio" || driver == "uio_pci_generic" =>
        {
            format!(
                "it is bound to {}, but no DPDK driver took it: the process needs root or access to /dev/vfio, and the \
                 card's librte-net-* package must be installed",
                driver.display()
            )
        }
        Some(driver) => format!(
            "it is bound to the kernel's driver {}; bind it to vfio-pci: dpdk-devbind.py -b vfio-pci {address}",
            driver.display()
        ),
        None => format!(
            "it is bound to no driver; bind it to vfio-pci: modprobe vfio-pci && dpdk-devbind.py -b vfio-pci {address}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn pci_addresses_get_their_domain() {
        for (text, name) in [
            ("0000:03:00.0", "0000:03:00.0"),
            ("03:00.1", "0000:03:00.1"),
            ("0001:AF:1f.7", "0001:af:1f.7"),
        ] {
            let device: Device = text.parse().unwrap();
            assert!(device.is_pci(), "{text}");
            assert_eq!(device.name(), name);
        }
        let device: Device = "03:00.0,txq_inline_mpw=204".parse().unwrap();
        assert_eq!(device.to_string(), "0000:03:00.0,txq_inline_mpw=204");
    }

    #[test]
    fn everything_else_is_a_vdev() {
        for text in ["net_ring0", "net_af_packet0,iface=eth1", "03:00.8", "3:0.0"] {
            let device: Device = text.parse().unwrap();
            assert!(!device.is_pci(), "{text}");
            assert_eq!(device.to_string(), text);
        }
        let device: Device = "net_pcap0,rx_pcap=a.pcap,tx_pcap=b.pcap".parse().unwrap();
        assert_eq!(device.name(), "net_pcap0");
    }

    #[test]
    fn refuses_what_eal_could_not_read() {
        assert!(matches!(
            "".parse::<Device>(),
            Err(DeviceError::NoName { .. })
        ));
        assert!(matches!(
            ",iface=eth0".parse::<Device>(),
            Err(DeviceError::NoName { .. })
        ));
        assert!(matches!(
            "net_ring0 --no-huge".parse::<Device>(),
            Err(DeviceError::Characters { .. })
        ));
        assert!(matches!(
            "net_ring0\0".parse::<Device>(),
            Err(DeviceError::Characters { .. })
        ));
    }

    #[test]
    fn advice_depends_on_the_driver_a_card_is_bound_to() {
        let root = tempfile::tempdir().unwrap();
        let address = "0000:03:00.0";
        assert!(pci_advice(root.path(), address).contains("no such PCI device"));
        let device = root.path().join(address);
        fs::create_dir(&device).unwrap();
        assert!(pci_advice(root.path(), address).contains("no driver"));
        symlink("/sys/bus/pci/drivers/e1000e", device.join("driver")).unwrap();
        let advice = pci_advice(root.path(), address);
        assert!(advice.contains("e1000e"), "{advice}");
        assert!(
            advice.contains("dpdk-devbind.py -b vfio-pci 0000:03:00.0"),
            "{advice}"
        );
        fs::remove_file(device.join("driver")).unwrap();
        symlink("/sys/bus/pci/drivers/vfio-pci", device.join("driver")).unwrap();
        assert!(pci_advice(root.path(), address).contains("bound to vfio-pci"));
    }
}
