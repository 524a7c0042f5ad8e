// libtorch's profiler: records kernels and operators and writes a Chrome trace.
#include <ATen/Context.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include "shim.h"

namespace profiler = torch::autograd::profiler;

extern "C" {

char* torch_shim_profiler_start() {
  TRY({
    std::set<profiler::ActivityType> activities{profiler::ActivityType::CPU};
    if (at::hasCUDA()) activities.insert(profiler::ActivityType::CUDA);
    profiler::ProfilerConfig config(profiler::ProfilerState::KINETO);
    profiler::prepareProfiler(config, activities);
    profiler::enableProfiler(config, activities);
  })
}

// Stops recording and writes the trace to `path`, which may end in .gz for a smaller file.
char* torch_shim_profiler_stop(const char* path) {
  TRY({ profiler::disableProfiler()->save(path); })
}
}
