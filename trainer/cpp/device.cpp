// GPU functions: the current stream, copies on a separate stream, memory statistics. They use the device-independent interface of
// libtorch, so nothing here links CUDA.
#include <ATen/DeviceAccelerator.h>
#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "shim.h"

// Synchronization of a staging buffer: it is copied on `stream`, read on the current stream after `ready`, and overwritten only
// after `consumed`.
struct StagingBuffer {
  c10::Stream stream;
  c10::Event ready;
  c10::Event consumed;
};

static c10::Stream current(c10::Device device) {
  return c10::impl::VirtualGuardImpl(device.type()).getStream(device);
}

extern "C" {

// The handle (a cudaStream_t) of the current stream of libtorch.
char* torch_shim_current_stream(int device, void** out) {
  TRY({ *out = at::accelerator::getCurrentStream(device).native_handle(); })
}

// Sets the current GPU, which libraries without a device argument, such as NCCL, use.
char* torch_shim_set_device(int device) {
  TRY({ at::accelerator::setDeviceIndex(static_cast<c10::DeviceIndex>(device)); })
}

// A copy of a tensor on the host in pinned memory. (tch's call passes the device, for which libtorch 2.11 prints a warning each
// time.)
char* torch_shim_pin(at::Tensor* tensor, at::Tensor** out) {
  TRY({ *out = new at::Tensor(tensor->pin_memory()); })
}

// Peak memory of tensors on the device, in bytes.
char* torch_shim_peak_memory(int device, int64_t* out) {
  TRY({
    auto stats = at::accelerator::getDeviceStats(device);
    *out = stats.allocated_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)].peak;
  })
}

char* torch_shim_staging_new(at::Tensor* buffer, void** out) {
  TRY({
    auto device = buffer->device();
    auto stream = c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device, /*isHighPriority=*/false);
    *out = new StagingBuffer{stream, c10::Event(device.type()), c10::Event(device.type())};
  })
}

// Starts the copy of pinned memory to the buffer, after the kernels that read its previous content.
char* torch_shim_staging_send(void* staging, at::Tensor* buffer, at::Tensor* pinned) {
  TRY({
    auto& s = *static_cast<StagingBuffer*>(staging);
    if (s.consumed.was_marked_for_recording()) s.consumed.block(s.stream);
    c10::StreamGuard guard(s.stream);
    buffer->copy_(*pinned, /*non_blocking=*/true);
    s.ready.record(s.stream);
  })
}

// Lets the current stream and the host wait for the copy; after that the pinned memory may be overwritten.
char* torch_shim_staging_receive(void* staging, at::Tensor* buffer) {
  TRY({
    auto& s = *static_cast<StagingBuffer*>(staging);
    s.ready.block(current(buffer->device()));
    s.ready.synchronize();
  })
}

// Declares that all kernels that read the buffer are in the current stream.
char* torch_shim_staging_release(void* staging, at::Tensor* buffer) {
  TRY({ static_cast<StagingBuffer*>(staging)->consumed.record(current(buffer->device())); })
}

void torch_shim_staging_free(void* staging) { delete static_cast<StagingBuffer*>(staging); }
}
