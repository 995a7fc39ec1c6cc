// Routing of tokens to experts, and its load-balancing loss.
//
//   p = softmax(logits[t]) over all experts; weights = the K largest (the lower index wins ties), divided by their sum if
//   `renormalize`
//   slots[t,k] = the row of (t,k) when all K·T rows are sorted stably by expert; source[row] = the token of a sorted row
//   backward: dl_e = p_e·(dw_e − Σ p·dw), where dw is 0 for the experts not chosen. Renormalized weights are the softmax of the
//   chosen logits alone: p is that softmax, and the other logits have no gradient
//   aux = coef·E·Σ_{k,e} f[k,e]·P[e] over the rows of all layers together: f is the share of rows whose k-th choice is e, P
//   is the mean probability
//
// logits, dlogits [T,E]; weights, dweights [T,K]; experts, slots I32 [T,K]; source I32 [K·T,1]; offsets I32 [E+1,1];
// K ≤ MAX_CHOICES.
// A few hundred KB per layer: bound by latency. One block does a counting sort. Each thread owns a run of consecutive
// choices, so the rank of a choice is a prefix sum of counts, and no atomics are needed.

#include "common.cuh"

constexpr int MAX_CHOICES = 8;

// Softmax of row t over all experts, or over the chosen ones: the maximum and the sum of exponentials.
struct Softmax {
    float top, sum = 0;
    __device__ Softmax(F32OrElem logits, i64 t, int experts) : top(load(logits, t, 0)) {
        for (int e = 1; e < experts; e++) top = fmaxf(top, load(logits, t, e));
        for (int e = 0; e < experts; e++) sum += expf(load(logits, t, e) - top);
    }
    __device__ Softmax(F32OrElem logits, i64 t, const int* chosen, int choices) : top(load(logits, t, chosen[0])) {
        for (int k = 1; k < choices; k++) top = fmaxf(top, load(logits, t, chosen[k]));
        for (int k = 0; k < choices; k++) sum += expf(load(logits, t, chosen[k]) - top);
    }
    __device__ float of(float logit) const { return expf(logit - top) / sum; }
};

// The largest values, in descending order; the first wins ties. Indices stay valid even if a probability is NaN. All loops are
// unrolled, so that the arrays stay in registers.
struct Largest {
    int expert[MAX_CHOICES];
    float p[MAX_CHOICES];
    __device__ Largest(const Softmax& softmax, F32OrElem logits, i64 t, int experts, int choices) {
#pragma unroll
        for (int k = 0; k < MAX_CHOICES; k++) expert[k] = -1;
        for (int e = 0; e < experts; e++) insert(e, softmax.of(load(logits, t, e)), choices);
    }
    __device__ void insert(int e, float value, int choices) {
        bool inserted = false;  // what stood there moves on by one place
#pragma unroll
        for (int k = 0; k < MAX_CHOICES; k++) {
            if (k >= choices || !(inserted || expert[k] < 0 || value > p[k])) continue;
            int moved = expert[k];
            float moved_p = p[k];
            expert[k] = e, p[k] = value;
            e = moved, value = moved_p;
            inserted = true;
        }
    }
    __device__ bool has(int e, int choices) const {
        bool found = false;
#pragma unroll
        for (int k = 0; k < MAX_CHOICES; k++) found |= k < choices && expert[k] == e;
        return found;
    }
};

// One thread per token.
extern "C" __global__ void route_choose(Rows rows, int experts, int choices, int renormalize, F32OrElem logits, F32OrElem weights,
                                        int* chosen) {
    i64 t = global_thread();
    if (t >= rows.count()) return;
    Largest largest(Softmax(logits, t, experts), logits, t, experts, choices);
    float sum = renormalize ? 0.0f : 1.0f;
#pragma unroll
    for (int k = 0; k < MAX_CHOICES; k++) {
        if (renormalize && k < choices) sum += largest.p[k];
    }
#pragma unroll
    for (int k = 0; k < MAX_CHOICES; k++) {
        if (k >= choices) break;
        store(weights, t, k, largest.p[k] / sum);
        chosen[t * choices + k] = largest.expert[k];
    }
}

// One block. Shared memory: experts · blockDim.x counts, then one total per expert. `touched` may be null.
extern "C" __global__ void __launch_bounds__(1024) route_sort(Rows rows, int experts, int choices, const int* chosen, int* slots,
                                                              int* source, int* offsets, int* touched) {
    extern __shared__ int shared[];
    int threads = blockDim.x, tid = threadIdx.x;
    int* counts = shared;                       // [experts][threads]: choices per thread, then their exclusive prefix sum
    int* totals = shared + experts * threads;   // [experts]: rows per expert, then their exclusive prefix sum
    int n = choices * rows.count(), run = (n + threads - 1) / threads;
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
        source[slot] = i / choices;
    }
}

// One thread per token. `plus` may be absent, and may alias `dlogits`.
extern "C" __global__ void route_bwd(Rows rows, int experts, int choices, int renormalize, F32OrElem dweights, F32OrElem logits,
                                     const int* all_chosen, F32OrElem plus, F32OrElem dlogits) {
    i64 t = global_thread();
    if (t >= rows.count()) return;
    const int* chosen = all_chosen + t * choices;
    Softmax softmax = renormalize ? Softmax(logits, t, chosen, choices) : Softmax(logits, t, experts);
    float mean = 0;
    for (int k = 0; k < choices; k++) mean += softmax.of(load(logits, t, chosen[k])) * load(dweights, t, k);
    for (int e = 0; e < experts; e++) {
        float d = plus.at ? load(plus, t, e) : 0.0f, dw = 0;
        bool counts = !renormalize;
        for (int k = 0; k < choices; k++) {
            if (chosen[k] == e) dw = load(dweights, t, k), counts = true;
        }
        if (counts) d += softmax.of(load(logits, t, e)) * (dw - mean);
        store(dlogits, t, e, d);
    }
}

// ---- Load balancing -----------------------------------------------------------------------------------------------------

constexpr int LAYERS = 96;
constexpr int EXPERTS = 128;
constexpr int CHUNK = 256;  // tokens per partial sum

// The logits (or their gradients) of all layers.
struct Layers {
    void* at[LAYERS];
    i64 ld;
    int is_f32;
    __device__ F32OrElem layer(int i) const { return {at[i], ld, is_f32}; }
};

// Grid (chunks, layers), one thread per token. partials[layer][chunk] = E sums of probabilities, then E counts of choices.
extern "C" __global__ void __launch_bounds__(CHUNK) aux_partials(Rows rows, int experts, int choices, Layers logits,
                                                               float* partials) {
    int live = rows.count(), chunks = (live + CHUNK - 1) / CHUNK;
    if (blockIdx.x >= chunks) return;
    i64 t = i64(blockIdx.x) * CHUNK + threadIdx.x;
    F32OrElem layer = logits.layer(blockIdx.y);
    bool inside = t < live;
    i64 row = inside ? t : 0;
    Softmax softmax(layer, row, experts);
    Largest largest(softmax, layer, row, experts, choices);
    float* out = partials + (i64(blockIdx.y) * chunks + blockIdx.x) * 2 * experts;
    for (int e = 0; e < experts; e++) {
        float p = block_reduce<Sum>(inside ? softmax.of(load(layer, row, e)) : 0.0f);
        float chosen = block_reduce<Sum>(inside && largest.has(e, choices) ? 1.0f : 0.0f);
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
