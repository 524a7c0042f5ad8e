// What a GPU needs beside kernels: its stream's handle, copies on a stream of their own, memory figures. Written against
// libtorch's device-independent interface, so nothing here links CUDA.
#include <ATen/DeviceAccelerator.h>
#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "shim.h"

// One buffer's way to the device: copied on `stream`, read on the current stream after `ready`, written again only after
// `consumed`.
struct Lane {
  c10::Stream stream;
  c10::Event ready;
  c10::Event consumed;
};

static c10::Stream current(c10::Device device) {
  return c10::impl::VirtualGuardImpl(device.type()).getStream(device);
}

extern "C" {

// The handle (a cudaStream_t) of the stream that libtorch runs kernels on.
char* torch_shim_current_stream(int device, void** out) {
  TRY({ *out = at::accelerator::getCurrentStream(device).native_handle(); })
}

// Makes a GPU the one that libraries without a device argument, such as NCCL, work on.
char* torch_shim_set_device(int device) {
  TRY({ at::accelerator::setDeviceIndex(static_cast<c10::DeviceIndex>(device)); })
}

// A copy of a tensor on the host in memory that a GPU can copy from by itself. (tch's call names the device, of which
// libtorch 2.11 complains each time.)
char* torch_shim_pin(at::Tensor* tensor, at::Tensor** out) {
  TRY({ *out = new at::Tensor(tensor->pin_memory()); })
}

// Most bytes that tensors held on the device at a time.
char* torch_shim_peak_memory(int device, int64_t* out) {
  TRY({
    auto stats = at::accelerator::getDeviceStats(device);
    *out = stats.allocated_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)].peak;
  })
}

char* torch_shim_lane_new(at::Tensor* buffer, void** out) {
  TRY({
    auto device = buffer->device();
    auto stream = c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device, /*isHighPriority=*/false);
    *out = new Lane{stream, c10::Event(device.type()), c10::Event(device.type())};
  })
}

// Begins the copy of pinned memory into the lane's buffer, once what reads the buffer's last contents is done.
char* torch_shim_lane_send(void* lane, at::Tensor* buffer, at::Tensor* pinned) {
  TRY({
    auto& l = *static_cast<Lane*>(lane);
    if (l.consumed.was_marked_for_recording()) l.consumed.block(l.stream);
    c10::StreamGuard guard(l.stream);
    buffer->copy_(*pinned, /*non_blocking=*/true);
    l.ready.record(l.stream);
  })
}

// Lets the current stream wait for the copy, and the host too: from then on the pinned memory may be written again.
char* torch_shim_lane_receive(void* lane, at::Tensor* buffer) {
  TRY({
    auto& l = *static_cast<Lane*>(lane);
    l.ready.block(current(buffer->device()));
    l.ready.synchronize();
  })
}

// Says that everything that reads the buffer has been given to the current stream.
char* torch_shim_lane_release(void* lane, at::Tensor* buffer) {
  TRY({ static_cast<Lane*>(lane)->consumed.record(current(buffer->device())); })
}

void torch_shim_lane_free(void* lane) { delete static_cast<Lane*>(lane); }
}
