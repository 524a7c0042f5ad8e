//! libtorch's key-value store for several processes, and its Gloo collective operations for tensors on the CPU.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;
use std::time::Duration;

use tch::Tensor;
use torch_sys::C_tensor;

use super::{ShimError, check, pointer, pointers};

unsafe extern "C" {
    fn torch_shim_store(
        host: *const c_char,
        port: u16,
        serve: c_int,
        prefix: *const c_char,
        timeout_ms: i64,
        out: *mut *mut c_void,
    ) -> *mut c_char;
    fn torch_shim_store_set(store: *mut c_void, key: *const c_char, value: *const c_char) -> *mut c_char;
    fn torch_shim_store_get(store: *mut c_void, key: *const c_char, out: *mut *mut c_char) -> *mut c_char;
    fn torch_shim_store_free(store: *mut c_void);
    fn torch_shim_gloo(
        store: *mut c_void,
        rank: c_int,
        world: c_int,
        timeout_ms: i64,
        out: *mut *mut c_void,
    ) -> *mut c_char;
    fn torch_shim_gloo_sum(group: *mut c_void, count: usize, tensors: *const *mut C_tensor) -> *mut c_char;
    fn torch_shim_gloo_broadcast(
        group: *mut c_void,
        count: usize,
        tensors: *const *mut C_tensor,
    ) -> *mut c_char;
    fn torch_shim_gloo_gather(group: *mut c_void, out: *mut C_tensor, rows: *mut C_tensor) -> *mut c_char;
    fn torch_shim_gloo_scatter(group: *mut c_void, out: *mut C_tensor, rows: *mut C_tensor) -> *mut c_char;
    fn torch_shim_gloo_free(group: *mut c_void);
}

fn text(value: &str) -> Result<CString, ShimError> {
    CString::new(value).map_err(|_| ShimError(format!("{value:?} holds a zero byte")))
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A key-value store that all ranks share.
#[derive(Debug)]
pub struct Store(*mut c_void);

impl Store {
    /// Connects to the store at `host:port`, or serves it there if `serve`. All keys begin with `prefix`.
    pub fn connect(
        host: &str,
        port: u16,
        serve: bool,
        prefix: &str,
        timeout: Duration,
    ) -> Result<Self, ShimError> {
        let (host, prefix, mut out) = (text(host)?, text(prefix)?, ptr::null_mut());
        // SAFETY: the strings outlive the call, and `out` is written when it succeeds.
        check(unsafe {
            torch_shim_store(
                host.as_ptr(),
                port,
                c_int::from(serve),
                prefix.as_ptr(),
                milliseconds(timeout),
                &raw mut out,
            )
        })?;
        Ok(Self(out))
    }

    /// Sets a key.
    pub fn set(&self, key: &str, value: &str) -> Result<(), ShimError> {
        let (key, value) = (text(key)?, text(&value.replace('\0', " "))?);
        // SAFETY: the store lives as long as self, the strings outlive the call.
        check(unsafe { torch_shim_store_set(self.0, key.as_ptr(), value.as_ptr()) })
    }

    /// The value of a key if it is set. Does not wait for it.
    pub fn get(&self, key: &str) -> Result<Option<String>, ShimError> {
        let (key, mut out) = (text(key)?, ptr::null_mut());
        // SAFETY: the store lives as long as self; a returned string is from strdup and owned by us, so it is read and freed once.
        unsafe {
            check(torch_shim_store_get(self.0, key.as_ptr(), &raw mut out))?;
            if out.is_null() {
                return Ok(None);
            }
            let value = CStr::from_ptr(out).to_string_lossy().into_owned();
            libc::free(out.cast());
            Ok(Some(value))
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: created by torch_shim_store, freed once.
        unsafe { torch_shim_store_free(self.0) }
    }
}

/// The ranks of a run, for tensors on the CPU. All ranks must call the same operations in the same order.
#[derive(Debug)]
pub struct Gloo(*mut c_void);

impl Gloo {
    /// Connects to the other ranks through `store`. Every later operation that takes longer than `timeout` fails.
    pub fn join(store: &Store, rank: usize, world: usize, timeout: Duration) -> Result<Self, ShimError> {
        let mut out = ptr::null_mut();
        // SAFETY: the store is alive (the group holds a reference), `out` is written when the call succeeds.
        check(unsafe {
            torch_shim_gloo(store.0, rank as c_int, world as c_int, milliseconds(timeout), &raw mut out)
        })?;
        Ok(Self(out))
    }

    /// Sums each tensor over the ranks, in place.
    pub fn sum(&self, tensors: &[Tensor]) -> Result<(), ShimError> {
        // SAFETY: every pointer comes from a Tensor that outlives the call, which waits for the end of the operation.
        check(unsafe { torch_shim_gloo_sum(self.0, tensors.len(), pointers(tensors).as_ptr()) })
    }

    /// Overwrites the tensors with those of rank 0.
    pub fn broadcast(&self, tensors: &[Tensor]) -> Result<(), ShimError> {
        // SAFETY: as in `sum`.
        check(unsafe { torch_shim_gloo_broadcast(self.0, tensors.len(), pointers(tensors).as_ptr()) })
    }

    /// All-gather: writes the `rows` of all ranks to `out`, in the order of the ranks.
    pub fn gather(&self, out: &Tensor, rows: &Tensor) -> Result<(), ShimError> {
        // SAFETY: as in `sum`.
        check(unsafe { torch_shim_gloo_gather(self.0, pointer(out), pointer(rows)) })
    }

    /// Reduce-scatter: sums `rows` over the ranks and writes this rank's part of them to `out`.
    pub fn scatter(&self, out: &Tensor, rows: &Tensor) -> Result<(), ShimError> {
        // SAFETY: as in `sum`.
        check(unsafe { torch_shim_gloo_scatter(self.0, pointer(out), pointer(rows)) })
    }
}

impl Drop for Gloo {
    fn drop(&mut self) {
        // SAFETY: created by torch_shim_gloo, freed once.
        unsafe { torch_shim_gloo_free(self.0) }
    }
}
