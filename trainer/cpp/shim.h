// The return value of all functions of the shim: null on success, or the message of libtorch, which the caller frees.
#pragma once
#include <ATen/core/Tensor.h>
#include <cstring>
#include <exception>
#include <vector>

#define TRY(...)                              \
  try {                                       \
    __VA_ARGS__;                              \
    return nullptr;                           \
  } catch (const std::exception& e) {         \
    return strdup(e.what());                  \
  } catch (...) {                             \
    return strdup("unknown C++ exception");   \
  }

inline std::vector<at::Tensor> list(at::Tensor* const* tensors, size_t count) {
  std::vector<at::Tensor> out;
  out.reserve(count);
  for (size_t i = 0; i < count; ++i) out.push_back(*tensors[i]);
  return out;
}
