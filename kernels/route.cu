// Top-2 routing of Mixtral, and its load-balancing loss.
//
//   p = softmax(logits[t]) over all experts; weights = the two largest (the lower index wins ties), renormalized
//   slots[t,k] = the row of (t,k) when all 2T rows are sorted stably by expert; source[row] = the token of a sorted row
//   backward: the renormalized pair equals the softmax of the two chosen logits, so dl_k = w_k·(dw_k − Σ w·dw)
//   aux = coef·E·Σ_{k,e} f[k,e]·P[e] over the rows of all layers together: f is the share of rows whose k-th choice is e, P
//   is the mean probability
//
// logits, dlogits [T,E]; weights, dweights [T,2]; experts, slots I32 [T,2]; source I32 [2T,1]; offsets I32 [E+1,1].
// A few hundred KB per layer: bound by latency. One block does a counting sort. Each thread owns a run of consecutive
// choices, so the rank of a choice is a prefix sum of counts, and no atomics are needed.

#include "common.cuh"

// Softmax of row t: the maximum and the sum of exponentials.
struct Softmax {
    float top, sum;
    __device__ Softmax(F32OrElem logits, i64 t, int experts) {
        top = load(logits, t, 0);
        for (int e = 1; e < experts; e++) top = fmaxf(top, load(logits, t, e));
        sum = 0;
        for (int e = 0; e < experts; e++) sum += expf(load(logits, t, e) - top);
    }
    __device__ float of(float logit) const { return expf(logit - top) / sum; }
};

// The two largest values, in descending order; the first wins ties. Indices stay valid even if a probability is NaN.
struct Top2 {
    int first = -1, second = -1;
    float p_first = 0, p_second = 0;
    __device__ void take(int e, float p) {
        if (first < 0 || p > p_first) {
            second = first, p_second = p_first;
            first = e, p_first = p;
        } else if (second < 0 || p > p_second) {
            second = e, p_second = p;
        }
    }
};

__device__ inline Top2 choose(const Softmax& softmax, F32OrElem logits, i64 t, int experts) {
    Top2 top;
    for (int e = 0; e < experts; e++) top.take(e, softmax.of(load(logits, t, e)));
    return top;
}

// One thread per token.
extern "C" __global__ void route_choose(Rows rows, int experts, F32OrElem logits, F32OrElem weights, int2* chosen) {
    i64 t = global_thread();
    if (t >= rows.count()) return;
    Top2 top = choose(Softmax(logits, t, experts), logits, t, experts);
    float sum = top.p_first + top.p_second;
    store(weights, t, 0, top.p_first / sum);
    store(weights, t, 1, top.p_second / sum);
    chosen[t] = make_int2(top.first, top.second);
}

// One block. Shared memory: experts · blockDim.x counts, then one total per expert. `touched` may be null.
extern "C" __global__ void __launch_bounds__(1024) route_sort(Rows rows, int experts, const int* chosen, int* slots, int* source,
                                                              int* offsets, int* touched) {
    extern __shared__ int shared[];
    int threads = blockDim.x, tid = threadIdx.x;
    int* counts = shared;                       // [experts][threads]: choices per thread, then their exclusive prefix sum
    int* totals = shared + experts * threads;   // [experts]: rows per expert, then their exclusive prefix sum
    int n = 2 * rows.count(), run = (n + threads - 1) / threads;
    int first = min(tid * run, n), end = min(first + run, n);

    for (int e = 0; e < experts; e++) counts[e * threads + tid] = 0;
    for (int i = first; i < end; i++) counts[chosen[i] * threads + tid]++;
    __syncthreads();

    // Each warp scans the counts of one expert.
    int lane = tid % WARP;
    for (int e = tid / WARP; e < experts; e += threads / WARP) {
        int before = 0;
        for (int at = lane; at < threads; at += WARP) {
            int own = counts[e * threads + at], sum = own;
#pragma unroll
            for (int step = 1; step < WARP; step *= 2) {
                int left = __shfl_up_sync(0xffffffff, sum, step);
                if (lane >= step) sum += left;
            }
            counts[e * threads + at] = before + sum - own;
            before += __shfl_sync(0xffffffff, sum, WARP - 1);
        }
        if (lane == 0) totals[e] = before;
    }
    __syncthreads();
    if (tid == 0) {
        int sum = 0;
        for (int e = 0; e < experts; e++) {
            int rows_of_expert = totals[e];
            if (touched && rows_of_expert > 0) touched[e] = 1;
            offsets[e] = totals[e] = sum;
            sum += rows_of_expert;
        }
        offsets[experts] = sum;
    }
    __syncthreads();

    for (int i = first; i < end; i++) {
        int e = chosen[i], slot = totals[e] + counts[e * threads + tid]++;
        slots[i] = slot;
        source[slot] = i / 2;
    }
}

// One thread per token. `plus` may be absent, and may alias `dlogits`.
extern "C" __global__ void route_bwd(Rows rows, int experts, F32OrElem dweights, F32OrElem logits, const int2* chosen,
                                     F32OrElem plus, F32OrElem dlogits) {
    i64 t = global_thread();
    if (t >= rows.count()) return;
    int2 pair = chosen[t];
    float l0 = load(logits, t, pair.x), l1 = load(logits, t, pair.y), top = fmaxf(l0, l1);
    float e0 = expf(l0 - top), e1 = expf(l1 - top), w0 = e0 / (e0 + e1), w1 = e1 / (e0 + e1);
    float dw0 = load(dweights, t, 0), dw1 = load(dweights, t, 1), mean = w0 * dw0 + w1 * dw1;
    for (int e = 0; e < experts; e++) {
        float d = plus.at ? load(plus, t, e) : 0.0f;
        if (e == pair.x) d += w0 * (dw0 - mean);
        if (e == pair.y) d += w1 * (dw1 - mean);
        store(dlogits, t, e, d);
    }
}

// ---- Load balancing -----------------------------------------------------------------------------------------------------

constexpr int LAYERS = 80;
constexpr int EXPERTS = 80;
constexpr int CHUNK = 256;  // tokens per partial sum

// The logits (or their gradients) of all layers.
struct Layers {
    void* at[LAYERS];
    i64 ld;
    int is_f32;
    __device__ F32OrElem layer(int i) const { return {at[i], ld, is_f32}; }
};

// Grid (chunks, layers), one thread per token. partials[layer][chunk] = E sums of probabilities, then E counts of choices.
extern "C" __global__ void __launch_bounds__(CHUNK) aux_partials(Rows rows, int experts, Layers logits, float* partials) {
    int live = rows.count(), chunks = (live + CHUNK - 1) / CHUNK;
    if (blockIdx.x >= chunks) return;
    i64 t = i64(blockIdx.x) * CHUNK + threadIdx.x;
    F32OrElem layer = logits.layer(blockIdx.y);
    bool inside = t < live;
    i64 row = inside ? t : 0;
    Softmax softmax(layer, row, experts);
    Top2 top = choose(softmax, layer, row, experts);
    float* out = partials + (i64(blockIdx.y) * chunks + blockIdx.x) * 2 * experts;
    for (int e = 0; e < experts; e++) {
        float p = block_reduce<Sum>(inside ? softmax.of(load(layer, row, e)) : 0.0f);
        float chosen = block_reduce<Sum>(inside && (top.first == e || top.second == e) ? 1.0f : 0.0f);
        if (threadIdx.x == 0) {
            out[e] = p;
            out[experts + e] = chosen;
        }
    }
}

// One block of at least 2E threads; each adds its partials in ascending order. share[e] = Σ_k f[k,e]; factor = coef·E.
extern "C" __global__ void aux_total(Rows rows, int experts, int layers, float factor, const float* partials, float* share, float* aux) {
    __shared__ float sums[2 * EXPERTS];
    int live = rows.count(), chunks = (live + CHUNK - 1) / CHUNK, e = threadIdx.x;
    float n = float(layers) * float(live);
    if (e < 2 * experts) {
        float sum = 0;
        for (int i = 0; i < layers * chunks; i++) sum += partials[i64(i) * 2 * experts + e];
        sums[e] = sum / n;
        if (e >= experts) share[e - experts] = sums[e];
    }
    __syncthreads();
    if (e > 0) return;
    float sum = 0;
    for (int i = 0; i < experts; i++) sum += sums[experts + i] * sums[i];
    *aux = factor * sum;
}

// One thread per (token, layer): dlogits = loss_scale·factor/n · p·(share − ⟨p, share⟩).
extern "C" __global__ void aux_grad(Rows rows, int experts, int layers, float factor, const float* loss_scale, const float* share,
                                    Layers logits, Layers dlogits) {
    i64 t = global_thread();
    if (t >= rows.count()) return;
    F32OrElem from = logits.layer(blockIdx.y), to = dlogits.layer(blockIdx.y);
    Softmax softmax(from, t, experts);
    float along = 0;
    for (int e = 0; e < experts; e++) along += softmax.of(load(from, t, e)) * share[e];
    float scale = *loss_scale * factor / (float(layers) * float(rows.count()));
    for (int e = 0; e < experts; e++) {
        store(to, t, e, scale * softmax.of(load(from, t, e)) * (share[e] - along));
    }
}
