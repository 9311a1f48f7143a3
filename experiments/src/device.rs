//! Devices by name: `cpu`, `cuda`, `wgpu:1`.

use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
#[cfg(any(
    feature = "cuda",
    feature = "metal",
    feature = "rocm",
    feature = "wgpu"
))]
use burn::tensor::DeviceType;

/// A kind of device; a GPU's name is its cargo feature.
struct Kind {
    name: &'static str,
    /// All devices of the kind; `None` in a build without its feature.
    devices: Option<fn() -> Vec<Device>>,
}

macro_rules! gpu {
    ($feature:literal, $burn:ident) => {
        Kind {
            name: $feature,
            #[cfg(feature = $feature)]
            devices: Some(|| Device::enumerate(DeviceType::$burn).into_vec()),
            #[cfg(not(feature = $feature))]
            devices: None,
        }
    };
}

const KINDS: [Kind; 5] = [
    Kind {
        name: "cpu",
        devices: Some(|| vec![Device::flex()]),
    },
    gpu!("cuda", Cuda),
    gpu!("wgpu", Wgpu),
    gpu!("metal", Metal),
    gpu!("rocm", Rocm),
];

/// A device that this build supports, by name.
#[derive(Clone, Copy)]
pub struct DeviceName {
    /// Index into [`KINDS`].
    kind: usize,
    index: usize,
}

impl FromStr for DeviceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, index) = match text.split_once(':') {
            Some((name, index)) => (name, Some(index)),
            None => (text, None),
        };
        let names = KINDS.map(|kind| kind.name).join(", ");
        let kind = KINDS
            .iter()
            .position(|kind| kind.name == name)
            .ok_or_else(|| format!("there are {names}; and wgpu:1 for the second one"))?;
        if KINDS[kind].devices.is_none() {
            return Err(format!(
                "this build has no code for it; build with `--features {name}`"
            ));
        }
        let index = match index {
            None => 0,
            Some(index) => index
                .parse()
                .map_err(|_| format!("\"{index}\" is not the number of a device"))?,
        };
        Ok(Self { kind, index })
    }
}

impl DeviceName {
    /// The device.
    ///
    /// # Errors
    /// This machine has none of the kind, or fewer.
    pub fn open(self) -> Result<Device> {
        let Kind { name, devices } = &KINDS[self.kind];
        let devices = devices.expect("a name is parsed only if there is code for it")();
        let count = devices.len();
        ensure!(count > 0, "device {name}: no such device on this machine");
        devices.into_iter().nth(self.index).with_context(|| {
            let index = self.index;
            format!("device {name}:{index}: there are {count}, counted from 0")
        })
    }
}

/// The devices, one a line, and for the kinds not in this build the cargo feature to build with.
pub fn list() -> String {
    let mut out = String::new();
    for Kind { name, devices } in KINDS {
        let Some(devices) = devices.map(|devices| devices()) else {
            out += &format!("{name:<8} not in this build: --features {name}\n");
            continue;
        };
        if devices.is_empty() {
            out += &format!("{name:<8} none found\n");
        }
        for (index, device) in devices.iter().enumerate() {
            let label = match name {
                "cpu" => name.to_owned(),
                _ => format!("{name}:{index}"),
            };
            out += &format!("{label:<8} {}\n", description(device));
        }
    }
    out
}

/// The name that a device reports.
fn description(device: &Device) -> String {
    #[cfg(any(
        feature = "cuda",
        feature = "metal",
        feature = "rocm",
        feature = "wgpu"
    ))]
    if let Some(identity) = device.identity() {
        let kind = longspan_model::device_kind(device);
        return format!("{} ({kind})", identity.name);
    }
    let _ = device;
    format!(
        "{} threads",
        std::thread::available_parallelism().map_or(1, |n| n.get())
    )
}
