//! One binary for machines with and without a GPU: `libtorch_cuda.so` is not linked but loaded at run time, from the folder of
//! `libtorch_cpu.so`.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::OnceLock;

/// Loads the CUDA library of libtorch, once.
///
/// This must be called before libtorch is first asked about CUDA, because it remembers the answer.
///
/// # Errors
/// The reason why it cannot be loaded.
pub fn load_cuda() -> Result<(), String> {
    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    LOADED.get_or_init(load).clone()
}

fn load() -> Result<(), String> {
    let library =
        libtorch_folder().ok_or("libtorch_cpu.so is not loaded in this process")?.join("libtorch_cuda.so");
    let path = CString::new(library.as_os_str().as_bytes()).map_err(|e| e.to_string())?;
    // SAFETY: a valid C string; libtorch_cuda's initialisers only register its kernels.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if handle.is_null() {
        // SAFETY: dlerror returns a string that stays valid until the next dl call of this thread.
        let why = unsafe { CStr::from_ptr(libc::dlerror()) };
        return Err(why.to_string_lossy().into_owned());
    }
    Ok(())
}

/// Folder of the libtorch that this process uses.
fn libtorch_folder() -> Option<PathBuf> {
    // SAFETY: Dl_info consists of pointers and integers, for which all zeros is valid; dlsym and dladdr read the tables of the
    // dynamic loader, and dli_fname is a C string that lives as long as the library.
    unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        // at::globalContext(), which is defined only in libtorch_cpu.
        let symbol = libc::dlsym(libc::RTLD_DEFAULT, c"_ZN2at13globalContextEv".as_ptr());
        if symbol.is_null() || libc::dladdr(symbol, &raw mut info) == 0 {
            return None;
        }
        let path = PathBuf::from(CStr::from_ptr(info.dli_fname).to_str().ok()?);
        Some(path.parent()?.to_path_buf())
    }
}
