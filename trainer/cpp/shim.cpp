// Functions of libtorch that tch does not offer, as C functions. Each returns null, or an error message that the caller frees.
#include <ATen/ATen.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_fused_adamw.h>
#include <c10/core/GradMode.h>
#include "shim.h"

extern "C" {

// One AdamW step over `count` parameters with the same hyperparameters, in place, without synchronization with the host. The kernel
// needs the number of the step, from 1, so the step counts are incremented first.
char* torch_shim_fused_adamw(size_t count, at::Tensor* const* parameters, at::Tensor* const* gradients,
                             at::Tensor* const* first_moments, at::Tensor* const* second_moments,
                             at::Tensor* const* steps, double lr, double beta1, double beta2,
                             double weight_decay, double eps) {
  TRY({
    c10::AutoGradMode no_grad(false);
    auto p = list(parameters, count), g = list(gradients, count), m = list(first_moments, count),
         v = list(second_moments, count), s = list(steps, count);
    at::_foreach_add_(s, 1);
    at::_fused_adamw_(p, g, m, v, {}, s, lr, beta1, beta2, weight_decay, eps,
                      /*amsgrad=*/false, /*maximize=*/false);
  })
}

// Scales the gradients so that the L2 norm of all of them together is at most `max_norm`, without synchronization with the host.
char* torch_shim_clip_gradients(size_t count, at::Tensor* const* gradients, double max_norm) {
  TRY({
    c10::AutoGradMode no_grad(false);
    auto g = list(gradients, count);
    auto norm = at::linalg_vector_norm(at::stack(at::_foreach_norm(g)));
    at::_foreach_mul_(g, (max_norm / (norm + 1e-6)).clamp_max(1.0));
  })
}

// gelu(x Wᵀ + b) as one operation; on a GPU with the tanh approximation of GELU. (tch's call passes the flag as the factor of b, and
// applies ReLU.)
char* torch_shim_linear_gelu(at::Tensor* x, at::Tensor* weight, at::Tensor* bias, at::Tensor** out) {
  TRY({ *out = new at::Tensor(at::_addmm_activation(*bias, *x, weight->t(), 1, 1, /*use_gelu=*/true)); })
}

// Full precision for float32 matrix products and convolutions on a GPU; by default, convolutions round their inputs to TF32.
char* torch_shim_full_float32() {
  TRY({
    at::globalContext().setFloat32MatmulPrecision("highest");
    at::globalContext().setAllowTF32CuDNN(false);
  })
}
}
