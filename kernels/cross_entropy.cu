// Cross-entropy of a chunk of rows, with the gradient of the logits in the same launch.
//
//   lse = log Σ e^logit      logp = logit[target] − lse      dlogit = loss_scale·weight·(e^(logit − lse) − [target])
//
// logits F32 [n,V]; targets I32, weight, logp [n,1]; dlogits [n,V] or absent, may take the place of f32 logits. A target
// of −100 takes no part: logp and the row of dlogits are zero.
// One block per row. First pass: maximum and sum of exponentials together, rescaled when the maximum grows; the
// second pass finds much of the row in the L2 cache. Bytes per row: 8·V read, V·size written: bound by memory.

#include "common.cuh"

constexpr int IGNORE = -100;

// Σ e^(x − top) over what a thread has seen, and top.
struct Exponentials {
    float top, sum;
    __device__ void take(float x) {
        if (x > top) {
            sum *= expf(top - x);
            top = x;
        }
        sum += expf(x - top);
    }
};

extern "C" __global__ void __launch_bounds__(512) cross_entropy(Rows rows, int cols, Mat<const float> logits, Mat<const int> targets,
                                                                Either weight, const float* loss_scale, Either logp,
                                                                Either dlogits) {
    i64 row = blockIdx.x;
    if (row >= rows.count()) return;
    const float* x = logits.row(row);
    int target = *targets.row(row);
    if (target == IGNORE) {
        if (threadIdx.x == 0) store(logp, row, 0, 0.0f);
        if (dlogits.at) {
            for (int i = threadIdx.x; i < cols; i += blockDim.x) store(dlogits, row, i, 0.0f);
        }
        return;
    }

    // A finite start: −inf − (−inf) of a thread without elements would be NaN.
    Exponentials seen = {-3.0e38f, 0.0f};
#pragma unroll 4
    for (int i = threadIdx.x; i < cols; i += blockDim.x) seen.take(x[i]);
    float top = block_reduce<Max>(seen.top);
    float sum = block_reduce<Sum>(seen.sum * expf(seen.top - top));
    float log_sum = logf(sum), of_target = x[target] - top;
    if (threadIdx.x == 0) store(logp, row, 0, of_target - log_sum);
    if (dlogits.at == nullptr) return;

    float scale = *loss_scale * load(weight, row, 0), lse = top + log_sum;
#pragma unroll 4
    for (int i = threadIdx.x; i < cols; i += blockDim.x) {
        float d = scale * expf(x[i] - lse);
        store(dlogits, row, i, i == target ? d - scale : d);
    }
}
