//! Devices: what they can do, and how results are read from them.

use burn::tensor::kind::Basic;
use burn::tensor::{DType, Device, Element, Tensor};
#[cfg(feature = "cube")]
use burn_cubecl::{CubeBackend, tensor::CubeTensor};

#[cfg(feature = "cube")]
use crate::cube;
use crate::error::KernelError;

/// The implementation that runs the ops of a device: `cpu`, or the name of a GPU runtime with its
/// compiler, as `cuda` or `wgpu<wgsl>`. Results of two devices of one kind may differ in the last
/// bits; those of two kinds do.
pub fn device_kind(device: &Device) -> String {
    #[cfg(feature = "cube")]
    if let Some(probe) = probe(device) {
        return probe.client.name().to_owned();
    }
    let _ = device;
    "cpu".to_owned()
}

/// Checks that the ops run on a device: for heads of `d` components and the types given, that of
/// the activations first. The CPU takes weights of all types, and activations in f32.
///
/// # Errors
/// The first thing that is missing.
pub fn supported(device: &Device, d: usize, types: &[DType]) -> Result<(), KernelError> {
    let activations = types.first().copied().unwrap_or(DType::F32);
    #[cfg(feature = "cube")]
    if let Some(probe) = probe(device) {
        for &dtype in types {
            cube::launch::check_type("ops", &probe.client, dtype)?;
        }
        for n in [1, usize::MAX] {
            cube::attention::tile::Tile::choose(&probe.client, n, d, activations)?;
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

/// The values of a tensor, in the element type `E` of the tensor; waits for the device.
///
/// Kernels are launched without waiting, so a launch fails after its op has returned. The device
/// then marks the outputs of that launch as unwritten, and the outputs of all kernels that read
/// them: this is where the failure becomes an error. Reading a tensor any other way may panic
/// instead.
///
/// # Errors
/// A kernel that the tensor depends on did not run, or the device is broken.
///
/// # Panics
/// If `E` is not the type of the tensor.
pub fn read<E: Element, const D: usize, K: Basic>(
    tensor: Tensor<D, K>,
) -> Result<Vec<E>, KernelError> {
    // A fault of the device itself shows when its queue has been worked off.
    tensor.device().sync().map_err(failed)?;
    let data = tensor.try_into_data().map_err(failed)?;
    Ok(data.try_into_vec().expect("the element type of the tensor"))
}

fn failed(error: impl std::fmt::Display) -> KernelError {
    KernelError::Execution(error.to_string())
}

/// A tensor of a GPU, for its client; `None` on the CPU.
#[cfg(feature = "cube")]
fn probe(device: &Device) -> Option<CubeTensor> {
    let probe = Tensor::<1>::zeros([1], (&device.clone().inner(), DType::F32));
    probe.try_into_primitive::<CubeBackend>().ok()
}
