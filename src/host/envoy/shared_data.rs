//! Envoy's shared data as a [`Store`]. All workers and all VMs with the same `vm_id` see the same data.

use crate::base::store::{Store, Swap, Version};
use crate::host::sys;

/// Envoy's shared data.
pub(super) struct SharedData;

impl Store for SharedData {
    fn load(&mut self, key: &str) -> (Vec<u8>, Version) {
        sys::shared_data(key)
    }

    fn compare_and_swap(&mut self, key: &str, value: &[u8], version: Version) -> Swap {
        sys::set_shared_data(key, value, version)
    }
}
