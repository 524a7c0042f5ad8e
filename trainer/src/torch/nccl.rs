//! NCCL for tensors on GPUs, through the C interface of the libnccl that libtorch_cuda has loaded.
//!
//! Operations run on libtorch's current CUDA stream, so no other synchronization is needed. NCCL does not notice a lost rank: its
//! operations would wait on the GPU for ever. The Gloo group on the host, which every step uses, notices; then, or after a
//! time-out, [`Nccl::abort`] ends them. This has been run with a single rank only, and `abort` never.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::transmute;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use tch::{Kind, Tensor};

use super::{ShimError, check};

unsafe extern "C" {
    fn torch_shim_set_device(device: c_int) -> *mut c_char;
    fn torch_shim_current_stream(device: c_int, out: *mut *mut c_void) -> *mut c_char;
}

/// The id with which all ranks of a group connect, created by rank 0: `ncclUniqueId`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Id(pub [u8; 128]);

type Communicator = *mut c_void;
type Stream = *mut c_void;
type Symbol = *mut c_void;

/// `(data, out, count, type, operation or root, communicator, stream)`: all-reduce, broadcast, reduce-scatter.
type Reduce =
    unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, Communicator, Stream) -> c_int;
/// The same without operation and root: all-gather.
type Gather = unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, Communicator, Stream) -> c_int;
type Join = unsafe extern "C" fn(*mut Communicator, c_int, Id, c_int) -> c_int;

/// The functions of nccl.h in use. The integers are ncclResult_t, ncclDataType_t and ncclRedOp_t.
#[derive(Debug, Clone, Copy)]
struct Functions {
    error: unsafe extern "C" fn(c_int) -> *const c_char,
    unique_id: unsafe extern "C" fn(*mut Id) -> c_int,
    join: Join,
    all_reduce: Reduce,
    broadcast: Reduce,
    all_gather: Gather,
    reduce_scatter: Reduce,
    group_start: unsafe extern "C" fn() -> c_int,
    group_end: unsafe extern "C" fn() -> c_int,
    destroy: unsafe extern "C" fn(Communicator) -> c_int,
    abort: unsafe extern "C" fn(Communicator) -> c_int,
}

const SUM: c_int = 0;

fn data_type(tensor: &Tensor) -> Result<c_int, ShimError> {
    Ok(match tensor.kind() {
        Kind::Uint8 => 1,
        Kind::Int => 2,
        Kind::Int64 => 4,
        Kind::Half => 6,
        Kind::Float => 7,
        Kind::Double => 8,
        Kind::BFloat16 => 9,
        kind => return Err(ShimError(format!("NCCL has no type for {kind:?}"))),
    })
}

impl Functions {
    fn load() -> Result<Self, ShimError> {
        // SAFETY: with NOLOAD, a library is only looked up.
        let library = unsafe { libc::dlopen(c"libnccl.so.2".as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD) };
        if library.is_null() {
            return Err(ShimError(
                "libnccl.so.2 is not loaded; link .torch to a PyTorch 2.11 with CUDA, which contains it"
                    .to_owned(),
            ));
        }
        let find = |name: &CStr| {
            // SAFETY: a valid handle and a C string.
            let symbol = unsafe { libc::dlsym(library, name.as_ptr()) };
            if symbol.is_null() {
                return Err(ShimError(format!("libnccl.so.2 has no function {}", name.to_string_lossy())));
            }
            Ok(symbol)
        };
        // SAFETY: each symbol is the C function of that name, whose type is fixed in nccl.h for version 2.
        unsafe {
            Ok(Self {
                error: transmute::<Symbol, unsafe extern "C" fn(c_int) -> *const c_char>(find(
                    c"ncclGetErrorString",
                )?),
                unique_id: transmute::<Symbol, unsafe extern "C" fn(*mut Id) -> c_int>(find(
                    c"ncclGetUniqueId",
                )?),
                join: transmute::<Symbol, Join>(find(c"ncclCommInitRank")?),
                all_reduce: transmute::<Symbol, Reduce>(find(c"ncclAllReduce")?),
                broadcast: transmute::<Symbol, Reduce>(find(c"ncclBroadcast")?),
                all_gather: transmute::<Symbol, Gather>(find(c"ncclAllGather")?),
                reduce_scatter: transmute::<Symbol, Reduce>(find(c"ncclReduceScatter")?),
                group_start: transmute::<Symbol, unsafe extern "C" fn() -> c_int>(find(c"ncclGroupStart")?),
                group_end: transmute::<Symbol, unsafe extern "C" fn() -> c_int>(find(c"ncclGroupEnd")?),
                destroy: transmute::<Symbol, unsafe extern "C" fn(Communicator) -> c_int>(find(
                    c"ncclCommDestroy",
                )?),
                abort: transmute::<Symbol, unsafe extern "C" fn(Communicator) -> c_int>(find(
                    c"ncclCommAbort",
                )?),
            })
        }
    }
}

/// The ranks of a run, for tensors on GPUs.
#[derive(Debug)]
pub struct Nccl {
    functions: Functions,
    communicator: Communicator,
    device: usize,
    /// Whether the communicator is gone.
    aborted: AtomicBool,
}

// SAFETY: another thread calls `abort` only, which NCCL allows while an operation of the communicator is under way.
unsafe impl Sync for Nccl {}

impl Nccl {
    /// A new id, which rank 0 creates and shares.
    pub fn id() -> Result<Id, ShimError> {
        let functions = Functions::load()?;
        let mut id = Id([0; 128]);
        // SAFETY: `id` outlives the call.
        let result = unsafe { (functions.unique_id)(&raw mut id) };
        refused(functions, result)?;
        Ok(id)
    }

    /// Connects to the other ranks with the same id, for tensors on the GPU `device`. That GPU becomes the current one of this thread,
    /// because NCCL uses the current GPU; otherwise all ranks of a machine would use its first one.
    pub fn join(id: Id, rank: usize, world: usize, device: usize) -> Result<Self, ShimError> {
        let functions = Functions::load()?;
        // SAFETY: no pointers are passed.
        check(unsafe { torch_shim_set_device(device as c_int) })?;
        let mut communicator = ptr::null_mut();
        // SAFETY: `communicator` is written when the call succeeds.
        let result = unsafe { (functions.join)(&raw mut communicator, world as c_int, id, rank as c_int) };
        refused(functions, result)?;
        Ok(Self { functions, communicator, device, aborted: AtomicBool::new(false) })
    }

    /// Ends the operations that wait for other ranks. No operation is possible afterwards.
    pub fn abort(&self) {
        if !self.aborted.swap(true, Ordering::SeqCst) {
            // SAFETY: created by ncclCommInitRank, and freed once: here or when dropped.
            let _ = unsafe { (self.functions.abort)(self.communicator) };
        }
    }

    fn stream(&self) -> Result<Stream, ShimError> {
        if self.aborted.load(Ordering::SeqCst) {
            return Err(ShimError("NCCL: the ranks did not answer in time".to_owned()));
        }
        let mut stream = ptr::null_mut();
        // SAFETY: `stream` outlives the call.
        check(unsafe { torch_shim_current_stream(self.device as c_int, &raw mut stream) })?;
        Ok(stream)
    }

    /// Runs `each` for all tensors as one NCCL group.
    fn together(
        &self,
        tensors: &[Tensor],
        each: impl Fn(&Tensor, Stream) -> Result<c_int, ShimError>,
    ) -> Result<(), ShimError> {
        let stream = self.stream()?;
        // SAFETY: no arguments.
        refused(self.functions, unsafe { (self.functions.group_start)() })?;
        for tensor in tensors {
            contiguous(tensor)?;
            refused(self.functions, each(tensor, stream)?)?;
        }
        // SAFETY: no arguments.
        refused(self.functions, unsafe { (self.functions.group_end)() })
    }

    /// Sums each tensor over the ranks, in place.
    pub fn sum(&self, tensors: &[Tensor]) -> Result<(), ShimError> {
        self.together(tensors, |tensor, stream| {
            let (data, kind) = (tensor.data_ptr(), data_type(tensor)?);
            // SAFETY: contiguous memory of that many values, which the allocator reserves for this stream.
            Ok(unsafe {
                (self.functions.all_reduce)(data, data, tensor.numel(), kind, SUM, self.communicator, stream)
            })
        })
    }

    /// Overwrites the tensors with those of rank 0.
    pub fn broadcast(&self, tensors: &[Tensor]) -> Result<(), ShimError> {
        self.together(tensors, |tensor, stream| {
            let (data, kind) = (tensor.data_ptr(), data_type(tensor)?);
            // SAFETY: as in `sum`.
            Ok(unsafe {
                (self.functions.broadcast)(data, data, tensor.numel(), kind, 0, self.communicator, stream)
            })
        })
    }

    /// All-gather: writes the `rows` of all ranks to `out`, in the order of the ranks.
    pub fn gather(&self, out: &Tensor, rows: &Tensor) -> Result<(), ShimError> {
        contiguous(out)?;
        contiguous(rows)?;
        let (stream, kind) = (self.stream()?, data_type(rows)?);
        // SAFETY: `out` has as many values as the `rows` of all ranks, both contiguous.
        refused(self.functions, unsafe {
            (self.functions.all_gather)(
                rows.data_ptr(),
                out.data_ptr(),
                rows.numel(),
                kind,
                self.communicator,
                stream,
            )
        })
    }

    /// Reduce-scatter: sums `rows` over the ranks and writes this rank's part of them to `out`.
    pub fn scatter(&self, out: &Tensor, rows: &Tensor) -> Result<(), ShimError> {
        contiguous(out)?;
        contiguous(rows)?;
        let (stream, kind) = (self.stream()?, data_type(rows)?);
        // SAFETY: `rows` has as many values as the `out` of all ranks, both contiguous.
        refused(self.functions, unsafe {
            (self.functions.reduce_scatter)(
                rows.data_ptr(),
                out.data_ptr(),
                out.numel(),
                kind,
                SUM,
                self.communicator,
                stream,
            )
        })
    }
}

fn contiguous(tensor: &Tensor) -> Result<(), ShimError> {
    if tensor.is_contiguous() {
        Ok(())
    } else {
        Err(ShimError("NCCL needs a tensor with contiguous memory".to_owned()))
    }
}

fn refused(functions: Functions, result: c_int) -> Result<(), ShimError> {
    if result == 0 {
        return Ok(());
    }
    // SAFETY: NCCL returns a static string for every result.
    let text = unsafe { CStr::from_ptr((functions.error)(result)) };
    Err(ShimError(format!("NCCL: {}", text.to_string_lossy())))
}

impl Drop for Nccl {
    fn drop(&mut self) {
        if !self.aborted.load(Ordering::SeqCst) {
            // SAFETY: created by ncclCommInitRank, destroyed once; after a failure nothing can be done.
            let _ = unsafe { (self.functions.destroy)(self.communicator) };
        }
    }
}
