// The norm of the gradient, and the decisions about the update that depend on it: clipping, loss scale, skipping.
//
//   partials[b] = Σ g² over run b of 65536 elements        norm = √(Σ partials)
//
// grads F32 [1,N]. grad_norm_partials: one block per run. grad_norm: one block adds the partials in a fixed order. 4 bytes
// read per element; bound by memory. control: one thread, f32 arithmetic; its fields are those of `op::Control`.

#include "common.cuh"

constexpr i64 RUN = 65536;

extern "C" __global__ void __launch_bounds__(512) grad_norm_partials(i64 n, const float* grads, float* partials) {
    i64 first = blockIdx.x * RUN, end = first + RUN < n ? first + RUN : n;
    float sum = 0;
#pragma unroll 8
    for (i64 i = first + threadIdx.x; i < end; i += blockDim.x) sum += grads[i] * grads[i];
    sum = block_reduce<Sum>(sum);
    if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

extern "C" __global__ void __launch_bounds__(512) grad_norm(int count, const float* partials, float* norm) {
    float sum = 0;
    for (int i = threadIdx.x; i < count; i += blockDim.x) sum += partials[i];
    sum = block_reduce<Sum>(sum);
    if (threadIdx.x == 0) *norm = sqrtf(sum);
}

enum Field { LOSS_SCALE, GOOD_STEPS, STEP, GRAD_SCALE, LEARNING_RATE, SKIPPED, GRAD_NORM };

// max_norm ≤ 0 turns clipping off, growth_interval 0 turns loss scaling off.
extern "C" __global__ void control(float max_norm, int growth_interval, int rate_count, const float* norm, const float* rates,
                                   float* fields) {
    float scale = fields[LOSS_SCALE], n = *norm / scale;
    bool overflow = !isfinite(n);
    fields[GRAD_NORM] = n;
    fields[SKIPPED] = overflow ? 1.0f : 0.0f;
    if (overflow) {
        if (growth_interval > 0) {
            fields[LOSS_SCALE] = scale * 0.5f;
            fields[GOOD_STEPS] = 0.0f;
        }
        return;
    }
    float clip = max_norm > 0 ? fminf(max_norm / add(n, 1e-6f), 1.0f) : 1.0f;
    fields[GRAD_SCALE] = clip / scale;
    int step = int(fields[STEP]);
    fields[LEARNING_RATE] = rates[step < rate_count ? step : rate_count - 1];
    fields[STEP] += 1.0f;
    if (growth_interval == 0) return;
    fields[GOOD_STEPS] += 1.0f;
    if (fields[GOOD_STEPS] >= float(growth_interval)) {
        fields[LOSS_SCALE] = scale * 2.0f;
        fields[GOOD_STEPS] = 0.0f;
    }
}
