// AdamW over the tensors of a segment table, in three variants that differ in the order of their roundings. The results are
// bit-equal to those of `device::cpu::adamw`, so no operation may be contracted.
//
//   torch          p ← p·(1 − lr·wd);  m ← lerp(m, g, 1−β₁);  v ← β₂v + (1−β₂)g²;  p ← p − lr/(1−β₁ᵗ)·m / (√v/√(1−β₂ᵗ) + eps)
//   bitsandbytes   m ← β₁m + (1−β₁)g;  v as above;  p ← p − lr·√(1−β₂ᵗ)/(1−β₁ᵗ) · m/(√v + eps·√(1−β₂ᵗ));  p ← p·(1 − lr·wd)
//   8 bit          as bitsandbytes, with m and v stored as codes of the dynamic maps, one scale per 256 elements of a tensor
//
// master, grads F32 [1,N]; m, v F32 or U8; segments I64 [S,5] and rates F32 [S,2] as in `op`; steps I32 [S,1].
// adamw_prepare: one thread per segment increments its step count and computes the scalars that its elements share.
// adamw_32, adamw_8: grid (segments, parts); the blocks of a segment take its runs of 256 elements in turn.
// Bytes per element: 28 with f32 state, 16 with 8-bit state. Bound by memory.

#include "quant8.cuh"

// A row of the segment table.
struct Segment {
    i64 offset, length, state, block, touched;
};

// Scalars shared by all elements of a segment.
struct Step {
    float decay, step_size, root, eps;  // root: torch's √(1−β₂ᵗ)
    int active, decays;
};

enum Field { LEARNING_RATE = 4, SKIPPED = 5, GRAD_SCALE = 3 };

extern "C" __global__ void adamw_prepare(int count, int torch, double beta1, double beta2, double eps, const Segment* segments,
                                         const float* rates, int* steps, const int* touched, const float* control, Step* out) {
    int i = global_thread();
    if (i >= count) return;
    Step step = {};
    i64 group = segments[i].touched;
    // An expert that received no token in any micro-batch has no gradient in PyTorch, which then skips its update.
    step.active = control[SKIPPED] == 0.0f && (group < 0 || touched[group] != 0);
    if (step.active) {
        steps[i] += 1;
        double lr = __dmul_rn(control[LEARNING_RATE], rates[2 * i]), decay = rates[2 * i + 1], t = steps[i];
        step.decays = decay > 0;
        if (torch) {
            // torch computes scalars in f64 and rounds them to f32 when it combines them with a tensor.
            step.decays = 1;
            step.decay = float(__dadd_rn(1.0, -__dmul_rn(lr, decay)));
            step.step_size = float(-(lr / (1.0 - pow(beta1, t))));
            step.root = float(sqrt(1.0 - pow(beta2, t)));
            step.eps = float(eps);
        } else {
            float correction1 = 1.0f - float(pow(double(float(beta1)), t));
            float correction2 = sqrtf(1.0f - float(pow(double(float(beta2)), t)));
            step.decay = add(1.0f, -mul(float(lr), float(decay)));
            step.step_size = mul(-float(lr), correction2) / correction1;
            step.eps = mul(correction2, float(eps));
        }
    }
    out[i] = step;
}

// The decay rates of both moments, and 1 − decay (rest), as f32; the host rounds them as the chosen variant does.
struct Decays {
    float beta1, rest1, beta2, rest2;
};

// torch.lerp, which starts from the nearer end.
__device__ inline float lerp(float start, float end, float weight) {
    float way = add(end, -start);
    return weight < 0.5f ? add(start, mul(weight, way)) : add(end, -mul(way, 1.0f - weight));
}

__device__ inline float first_moment(const Decays& d, float m, float g) { return add(mul(m, d.beta1), mul(d.rest1, g)); }
__device__ inline float second_moment(const Decays& d, float v, float g) { return add(mul(v, d.beta2), mul(mul(d.rest2, g), g)); }

__device__ inline float bitsandbytes(const Step& step, float p, float m, float v) {
    p = add(p, mul(step.step_size, m / add(sqrtf(v), step.eps)));
    return step.decays ? mul(p, step.decay) : p;
}

constexpr int THREADS = 256;

extern "C" __global__ void __launch_bounds__(THREADS) adamw_32(int torch, Decays decays, const Segment* segments, const Step* steps,
                                                               const float* control, const float* grads, float* master, float* m,
                                                               float* v) {
    Segment segment = segments[blockIdx.x];
    Step step = steps[blockIdx.x];
    if (!step.active) return;
    float grad_scale = control[GRAD_SCALE];
    grads += segment.offset, master += segment.offset, m += segment.state, v += segment.state;
    for (i64 i = i64(blockIdx.y) * THREADS + threadIdx.x; i < segment.length; i += i64(gridDim.y) * THREADS) {
        float g = mul(grads[i], grad_scale), p = master[i], first = m[i];
        float second = second_moment(decays, v[i], g);
        if (torch) {
            first = lerp(first, g, decays.rest1);
            float denominator = add(sqrtf(second) / step.root, step.eps);
            p = add(mul(p, step.decay), mul(step.step_size, first) / denominator);
        } else {
            first = first_moment(decays, first, g);
            p = bitsandbytes(step, p, first, second);
        }
        m[i] = first, v[i] = second, master[i] = p;
    }
}

// Moves the code of a first moment by one if the code's value has the opposite sign, so that a small moment is never stored
// with the wrong sign.
__device__ inline int keep_sign(const float* map, float moment, int code) {
    if (signbit(map[code]) == signbit(moment)) return code;
    return (moment > 0 ? code + 1 : code - 1) & 255;
}

// A run of 256 elements is one block of the 8-bit state. The update uses the new moments before they are quantized again. If
// a gradient is not finite, the parameter keeps its value and its moments become zero.
extern "C" __global__ void __launch_bounds__(THREADS) adamw_8(Decays decays, const Segment* segments, const Step* steps,
                                                              const float* control, const float* grads, float* master,
                                                              unsigned char* m, unsigned char* v, float* absmax_m, float* absmax_v) {
    __shared__ float map_m[256], map_v[256];
    Segment segment = segments[blockIdx.x];
    Step step = steps[blockIdx.x];
    if (!step.active) return;
    map_m[threadIdx.x] = SIGNED[threadIdx.x];
    map_v[threadIdx.x] = UNSIGNED[threadIdx.x];
    __syncthreads();
    float grad_scale = control[GRAD_SCALE];
    grads += segment.offset, master += segment.offset, m += segment.state, v += segment.state;
    for (i64 run = blockIdx.y; run * BLOCK8 < segment.length; run += gridDim.y) {
        i64 i = run * BLOCK8 + threadIdx.x, block = segment.block + run;
        bool inside = i < segment.length;
        float first = 0, second = 0;
        if (inside) {
            float g = mul(grads[i], grad_scale);
            if (isfinite(g)) {
                first = first_moment(decays, mul(map_m[m[i]], absmax_m[block]), g);
                second = second_moment(decays, mul(map_v[v[i]], absmax_v[block]), g);
                master[i] = bitsandbytes(step, master[i], first, second);
            }
        }
        // The barriers in block_reduce also ensure that all threads have read the old scales before they are overwritten.
        float scale_m = block_reduce<Max>(fabsf(first)), scale_v = block_reduce<Max>(fabsf(second));
        if (threadIdx.x == 0) {
            absmax_m[block] = scale_m;
            absmax_v[block] = scale_v;
        }
        if (inside) {
            m[i] = keep_sign(map_m, first, nearest(map_m, first / scale_m));
            v[i] = nearest(map_v, second / scale_v);
        }
    }
}
