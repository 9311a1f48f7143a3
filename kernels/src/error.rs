//! Why a kernel did not run.

use burn::tensor::DType;

/// Why a kernel did not run.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum KernelError {
    /// There is no attention kernel for this head size.
    HeadSize {
        /// Head size of the model.
        d: usize,
        /// Head sizes with a kernel.
        known: &'static [usize],
    },
    /// The type is not a float type, or the device does not compute in it.
    Type {
        /// Which kernel.
        kernel: &'static str,
        /// The type.
        dtype: DType,
        /// The device's runtime.
        runtime: &'static str,
    },
    /// Two tensors that must be of one type are not.
    Types {
        /// Which kernel.
        kernel: &'static str,
        /// The types given.
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
    /// burn's matrix product refused; the kernel that uses it, and the reason.
    Matmul(&'static str, String),
    /// The device failed while it ran kernels: one did not compile, memory ran out, or the device
    /// itself broke; the device's own words.
    Execution(String),
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
                write!(f, "a cache of 8 bits: head size {d} is not a multiple of 4")
            }
            KernelError::SharedMemory { needed, available } => write!(
                f,
                "attention: the smallest tile takes {needed} bytes of shared memory, the device has {available}"
            ),
            KernelError::Matmul(kernel, reason) => write!(f, "{kernel}: {reason}"),
            KernelError::Execution(reason) => write!(f, "the device failed: {reason}"),
        }
    }
}

impl std::error::Error for KernelError {}
