// Cross-entropy of a chunk of rows, and the gradient of the logits in the same launch.
//
//   lse = log Σ e^logit      logp = logit[target] − lse      dlogit = loss_scale·weight·(e^(logit − lse) − [target])
//   hit = [the target is the first of the largest logits]
//
// logits F32 [n,V]; targets, hit I32, weight, logp [n,1]; dlogits [n,V] may be absent, and may overwrite f32 logits in
// place. Rows with target −100 are ignored: their logp, hit and dlogits are zero.
// One block per row. The first pass computes the maximum, its position and the sum of exponentials together, and rescales
// the sum when the maximum grows. The second pass finds much of the row in L2. Bytes per row: 8·V read, V·size written.
// Bound by memory.

#include "common.cuh"

constexpr int IGNORE = -100;

// A thread's running maximum `top`, the first column `at` that holds it, and `sum` = Σ e^(x − top).
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
                                                                F32OrElem weight, const float* loss_scale, F32OrElem logp,
                                                                Mat<int> hit, F32OrElem dlogits) {
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

    // A finite initial maximum: a thread without elements would compute −inf − (−inf) = NaN.
    Exponentials seen = {-3.0e38f, 0.0f, cols};
#pragma unroll 4
    for (int i = threadIdx.x; i < cols; i += blockDim.x) seen.take(x[i], i);
    float top = block_reduce<Max>(seen.top);
    float sum = block_reduce<Sum>(seen.sum * expf(seen.top - top));
    float log_sum = logf(sum), of_target = x[target] - top;
    // This is also a barrier: the second pass may overwrite x, so all threads must have read x[target] first.
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
