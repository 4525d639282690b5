//! A filter that imports `proxy_get_log_level`: APISIX's host does not know it, so the filter does not load.

#[link(wasm_import_module = "env")]
extern "C" {
    fn proxy_get_log_level(level: *mut i32) -> i32;
}

#[no_mangle]
pub extern "C" fn proxy_abi_version_0_2_1() {}

#[no_mangle]
pub extern "C" fn proxy_on_configure(_context: u32, _size: usize) -> u32 {
    let mut level = 0;
    // SAFETY: the pointer is to a live local.
    unsafe { proxy_get_log_level(&mut level) };
    1
}
