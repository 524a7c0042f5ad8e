// Processes that train together: libtorch's own key-value store (TCPStore) and its Gloo backend for CPU tensors.
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#define USE_C10D_GLOO
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <chrono>

#include "shim.h"

using std::chrono::milliseconds;
using Store = c10::intrusive_ptr<c10d::Store>;
using Group = c10::intrusive_ptr<c10d::Backend>;
using Work = c10::intrusive_ptr<c10d::Work>;

static Store& as_store(void* store) { return *static_cast<Store*>(store); }
static Group& as_group(void* group) { return *static_cast<Group*>(group); }

// Operations on several tensors are all started first, so that they overlap, and then waited for.
static void wait_all(std::vector<Work>& begun) {
  for (auto& work : begun) work->wait();
}

extern "C" {

// Connects to the store at host:port, or serves it there if `serve`. All keys begin with `prefix`.
char* torch_shim_store(const char* host, uint16_t port, int serve, const char* prefix, int64_t timeout_ms,
                       void** out) {
  TRY({
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = serve != 0;
    options.waitWorkers = false;
    options.timeout = milliseconds(timeout_ms);
    Store tcp = c10::make_intrusive<c10d::TCPStore>(host, options);
    *out = new Store(c10::make_intrusive<c10d::PrefixStore>(prefix, tcp));
  })
}

char* torch_shim_store_set(void* store, const char* key, const char* value) {
  TRY({ as_store(store)->set(key, std::string(value)); })
}

// The value of a key as a string that the caller frees, or null if the key is not set. Does not wait for it.
char* torch_shim_store_get(void* store, const char* key, char** out) {
  TRY({
    *out = nullptr;
    if (as_store(store)->check({key})) {
      auto value = as_store(store)->get(key);
      *out = strdup(std::string(value.begin(), value.end()).c_str());
    }
  })
}

void torch_shim_store_free(void* store) { delete static_cast<Store*>(store); }

// Connects to the other ranks through the store. Every later operation fails if it takes longer than the timeout.
char* torch_shim_gloo(void* store, int rank, int world, int64_t timeout_ms, void** out) {
  TRY({
    Store keys = c10::make_intrusive<c10d::PrefixStore>("gloo/", as_store(store));
    auto options = c10d::ProcessGroupGloo::Options::create_default(milliseconds(timeout_ms));
    *out = new Group(c10::make_intrusive<c10d::ProcessGroupGloo>(keys, rank, world, options));
  })
}

// Sums each tensor over the ranks, in place.
char* torch_shim_gloo_sum(void* group, size_t count, at::Tensor* const* tensors) {
  TRY({
    std::vector<Work> begun;
    for (auto& tensor : list(tensors, count)) {
      std::vector<at::Tensor> one{tensor};
      begun.push_back(as_group(group)->allreduce(one));
    }
    wait_all(begun);
  })
}

// Broadcast: overwrites the tensors with those of rank 0.
char* torch_shim_gloo_broadcast(void* group, size_t count, at::Tensor* const* tensors) {
  TRY({
    std::vector<Work> begun;
    for (auto& tensor : list(tensors, count)) {
      std::vector<at::Tensor> one{tensor};
      begun.push_back(as_group(group)->broadcast(one));
    }
    wait_all(begun);
  })
}

// All-gather: the rows of all ranks in the order of the ranks; `out` has world_size times the rows of `in`.
char* torch_shim_gloo_gather(void* group, at::Tensor* out, at::Tensor* in) {
  TRY({ as_group(group)->_allgather_base(*out, *in)->wait(); })
}

// Reduce-scatter: sums `in` over the ranks; each rank gets its own part of the rows in `out`.
char* torch_shim_gloo_scatter(void* group, at::Tensor* out, at::Tensor* in) {
  TRY({ as_group(group)->_reduce_scatter_base(*out, *in)->wait(); })
}

void torch_shim_gloo_free(void* group) { delete static_cast<Group*>(group); }
}
