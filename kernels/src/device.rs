//! What a device is, and what it cannot do.

use burn::tensor::{DType, Device};
#[cfg(feature = "cube")]
use {burn::tensor::Tensor, burn_cubecl::CubeBackend, burn_cubecl::tensor::CubeTensor};

/// What a kernel cannot do.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum KernelError {
    /// There is no attention kernel for this head size.
    HeadSize {
        /// What was asked for.
        d: usize,
        /// What there is.
        known: &'static [usize],
    },
    /// The type is no float, or the device does not compute with it.
    Type {
        /// Which kernel.
        kernel: &'static str,
        /// What was asked for.
        dtype: DType,
        /// The device's runtime.
        runtime: &'static str,
    },
    /// Two tensors that must be of one type are not.
    Types {
        /// Which kernel.
        kernel: &'static str,
        /// What was given.
        types: [DType; 2],
    },
    /// A row of 8-bit numbers does not fill whole words.
    Words {
        /// Head size.
        d: usize,
    },
    /// Not even the smallest tile fits.
    SharedMemory {
        /// Bytes of the smallest tile.
        needed: usize,
        /// Bytes a cube has on this device.
        available: usize,
    },
    /// More heads than a grid has rows.
    Heads {
        /// Batch times heads.
        asked: usize,
        /// The device's limit.
        limit: usize,
    },
    /// The matrix product under a kernel refused.
    Matmul(&'static str, String),
}

impl std::fmt::Display for KernelError {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            KernelError::HeadSize { d, known } => {
                write!(
                    f,
                    "attention: head size {d}; there are kernels for {known:?}"
                )
            }
            KernelError::Type {
                kernel,
                dtype,
                runtime,
            } => write!(
                f,
                "{kernel}: the {runtime} device does not compute in {dtype:?}"
            ),
            KernelError::Types { kernel, types } => {
                write!(
                    f,
                    "{kernel}: types {:?} and {:?} differ",
                    types[0], types[1]
                )
            }
            KernelError::Words { d } => {
                write!(f, "a cache of 8 bits: head size {d} is no multiple of 4")
            }
            KernelError::SharedMemory { needed, available } => write!(
                f,
                "attention: the smallest tile takes {needed} bytes of shared memory, the device has {available}"
            ),
            KernelError::Heads { asked, limit } => write!(
                f,
                "attention: {asked} heads over all batches; the device takes {limit}"
            ),
            KernelError::Matmul(kernel, reason) => write!(f, "{kernel}: {reason}"),
        }
    }
}

impl std::error::Error for KernelError {}

/// What runs the ops of a device: `cpu`, or the name of a GPU runtime with its compiler, as `cuda` or
/// `wgpu<wgsl>`. Two devices of one kind may differ in the last bits, two kinds will.
pub fn device_kind(device: &Device) -> String {
    #[cfg(feature = "cube")]
    if let Some(probe) = probe(device) {
        return probe.client.name().to_owned();
    }
    let _ = device;
    "cpu".to_owned()
}

/// Whether the ops run on a device, for heads of `d` components, and activations and weights of these
/// types. The CPU takes weights of all types, and activations in f32.
///
/// # Errors
/// What is missing.
pub fn supported(device: &Device, d: usize, types: &[DType]) -> Result<(), KernelError> {
    let activations = types.first().copied().unwrap_or(DType::F32);
    #[cfg(feature = "cube")]
    if let Some(probe) = probe(device) {
        for &dtype in types {
            crate::cube::check_type("ops", &probe.client, dtype)?;
        }
        for n in [1, usize::MAX] {
            crate::cube::tile::Tile::choose(&probe.client, n, d, activations)?;
        }
        return Ok(());
    }
    let _ = (device, d);
    if activations != DType::F32 {
        return Err(KernelError::Type {
            kernel: "ops",
            dtype: activations,
            runtime: "cpu",
        });
    }
    Ok(())
}

/// A tensor of a GPU, for its client; `None` on the CPU.
#[cfg(feature = "cube")]
fn probe(device: &Device) -> Option<CubeTensor> {
    let probe = Tensor::<1>::zeros([1], (&device.clone().inner(), DType::F32));
    probe.try_into_primitive::<CubeBackend>().ok()
}
