//! libtorch's profiler.

use std::ffi::{CString, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{ShimError, check};

unsafe extern "C" {
    fn torch_shim_profiler_start() -> *mut c_char;
    fn torch_shim_profiler_stop(path: *const c_char) -> *mut c_char;
}

/// Records operators and kernels of this thread and of its backward passes, from `start` on.
#[derive(Debug)]
pub struct Profiler(());

impl Profiler {
    /// Starts recording. Only one profiler can be active.
    pub fn start() -> Result<Self, ShimError> {
        // SAFETY: no pointers are passed.
        check(unsafe { torch_shim_profiler_start() })?;
        Ok(Self(()))
    }

    /// Stops recording and writes a Chrome trace, for chrome://tracing or Perfetto.
    pub fn stop(self, path: &Path) -> Result<(), ShimError> {
        let path = CString::new(path.as_os_str().as_bytes()).map_err(|e| ShimError(e.to_string()))?;
        // SAFETY: a C string that outlives the call; recording has begun, which `self` proves.
        check(unsafe { torch_shim_profiler_stop(path.as_ptr()) })
    }
}
