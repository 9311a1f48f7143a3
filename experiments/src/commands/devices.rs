//! `longspan devices`.

use anyhow::Result;
use longspan::device;

use super::print;

/// Prints the devices that this build can use.
pub fn devices() -> Result<()> {
    print(&device::list())
}
