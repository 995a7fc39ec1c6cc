//! Names of devices, and the description that a device gives of itself.

use crate::error::{Error, Result};
use crate::plan::cost::Rates;
use std::fmt;
use std::str::FromStr;

/// Where to run, as `--device` and `device_map` name it: `cpu`, `cuda` or `cuda:1`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceName {
    /// The CPU device.
    Cpu,
    /// The GPU with this number, counted as the driver lists them.
    Cuda(usize),
}

impl FromStr for DeviceName {
    type Err = Error;
    fn from_str(name: &str) -> Result<Self> {
        let number = match name {
            "cpu" => return Ok(DeviceName::Cpu),
            "cuda" => Some(0),
            _ => name.strip_prefix("cuda:").and_then(|n| n.parse().ok()),
        };
        number.map(DeviceName::Cuda).ok_or_else(|| {
            Error::usage(format!("unknown device `{name}`")).hint("devices are called `cpu`, `cuda` or `cuda:1`")
        })
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceName::Cpu => f.write_str("cpu"),
            DeviceName::Cuda(n) => write!(f, "cuda:{n}"),
        }
    }
}

/// A device is the CPU or a GPU.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DeviceKind {
    /// The CPU device.
    Cpu,
    /// A GPU.
    Cuda,
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DeviceKind::Cpu => "cpu",
            DeviceKind::Cuda => "cuda",
        })
    }
}

/// A device's description of itself.
#[derive(Clone, PartialEq, Debug)]
pub struct About {
    /// CPU or GPU.
    pub kind: DeviceKind,
    /// Its name in messages: `cpu`, or `cuda:0, NVIDIA H200`.
    pub words: String,
    /// The place of a GPU on the PCI bus, which NVIDIA's other libraries take: `0000:65:00.0`.
    pub bus: Option<String>,
    /// Rates that it reaches in practice; `None` if nothing was measured on a GPU of this name.
    pub rates: Option<Rates>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::device::cpu::{Cpu, CpuOptions};

    #[test]
    fn a_cpu_describes_itself() {
        let About { kind, words, rates, .. } = Cpu::new(CpuOptions::default()).about();
        assert_eq!((kind, kind.to_string(), words.as_str()), (DeviceKind::Cpu, "cpu".into(), "cpu"));
        assert!(rates.is_some_and(|r| r.flops > 1e6 && r.bytes > 1e6), "{rates:?}");
    }

    #[test]
    fn devices_have_the_names_that_torch_gives_them() {
        for (name, device) in [("cpu", DeviceName::Cpu), ("cuda", DeviceName::Cuda(0)), ("cuda:3", DeviceName::Cuda(3))]
        {
            assert_eq!(name.parse::<DeviceName>().expect(name), device);
        }
        for name in ["", "gpu", "cuda:", "cuda:-1", "cuda1"] {
            assert!(name.parse::<DeviceName>().is_err(), "{name}");
        }
    }
}
