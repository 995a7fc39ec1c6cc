// Cross-entropy of a chunk of rows, with the gradient of the logits in the same launch.
//
//   lse = log Σ e^logit      logp = logit[target] − lse      dlogit = loss_scale·weight·(e^(logit − lse) − [target])
//   hit = [the target is the first of the largest logits]
//
// logits F32 [n,V]; targets, hit I32, weight, logp [n,1]; dlogits [n,V] or absent, may take the place of f32 logits. A
// target of −100 takes no part: logp, hit and the row of dlogits are zero.
// One block per row. First pass: maximum, where it is, and the sum of exponentials together, rescaled when the maximum
// grows; the second pass finds much of the row in the L2 cache. Bytes per row: 8·V read, V·size written: bound by memory.

#include "common.cuh"

constexpr int IGNORE = -100;

// Σ e^(x − top) over what a thread has seen, top, and the column where it was first seen.
struct Exponentials {
    float top, sum;
    int at;
    __device__ void take(float x, int i) {
        if (x > top) {
            sum *= expf(top - x);
            top = x;
            at = i;
        }
        sum += expf(x - top);
    }
};

extern "C" __global__ void __launch_bounds__(512) cross_entropy(Rows rows, int cols, Mat<const float> logits, Mat<const int> targets,
                                                                Either weight, const float* loss_scale, Either logp,
                                                                Mat<int> hit, Either dlogits) {
    i64 row = blockIdx.x;
    if (row >= rows.count()) return;
    const float* x = logits.row(row);
    int target = *targets.row(row);
    if (target == IGNORE) {
        if (threadIdx.x == 0) {
            store(logp, row, 0, 0.0f);
            *hit.row(row) = 0;
        }
        if (dlogits.at) {
            for (int i = threadIdx.x; i < cols; i += blockDim.x) store(dlogits, row, i, 0.0f);
        }
        return;
    }

    // A finite start: −inf − (−inf) of a thread without elements would be NaN.
    Exponentials seen = {-3.0e38f, 0.0f, cols};
#pragma unroll 4
    for (int i = threadIdx.x; i < cols; i += blockDim.x) seen.take(x[i], i);
    float top = block_reduce<Max>(seen.top);
    float sum = block_reduce<Sum>(seen.sum * expf(seen.top - top));
    float log_sum = logf(sum), of_target = x[target] - top;
    // A barrier, too: the second pass may write where x is, when everyone has read its target.
    bool earlier = __syncthreads_or(seen.top == top && seen.at < target);
    if (threadIdx.x == 0) {
        store(logp, row, 0, of_target - log_sum);
        *hit.row(row) = of_target == 0.0f && !earlier;
    }
    if (dlogits.at == nullptr) return;

    float scale = *loss_scale * load(weight, row, 0), lse = top + log_sum;
#pragma unroll 4
    for (int i = threadIdx.x; i < cols; i += blockDim.x) {
        float d = scale * expf(x[i] - lse);
        store(dlogits, row, i, i == target ? d - scale : d);
    }
}
