// Mask logits [objects,1,low_height,low_width] -> bits, run lengths, area and box at the picture's size.
//
// Bits are in COCO's order, down the columns: bit x * height + y, the lowest of a word first. Run lengths then are the
// distances between changes in one string of bits. Four launches, in this order: bits, count, place, measure.

struct Found {
    u32 area_px;
    // The latter two exclusive; x0 > x1 when nothing is set.
    u32 x0, y0, x1, y1;
    // Changes there are, maybe more than were kept; the first pixel is preceded by a 0.
    u32 changes;
    u32 unused[2];
};

#define WORDS_PER_CHUNK 256

// As area_pixel_compute_source_index and guard_index_and_lambda of PyTorch's UpSample.h.
__device__ inline int source_of(float scale, int at, int low, float* next_weight) {
    float source = greater_f32(scale * ((float)at + 0.5f) - 0.5f, 0.0f);
    int index = lesser((int)source, low - 1);
    *next_weight = lesser_f32(greater_f32(source - (float)index, 0.0f), 1.0f);
    return index;
}

// A thread a word.
extern "C" __global__ void mask_bits(const float* logits, int low_width, int low_height, int width, int height,
                                     u32 words, u32* bits, u32 chunks, u32* chunk_changes, Found* found) {
    u32 word = blockIdx.x * blockDim.x + threadIdx.x;
    u32 object = blockIdx.y;
    if (word < chunks) chunk_changes[(u64)object * chunks + word] = 0;
    if (word == 0) {
        Found nothing = {0, 0xffffffffu, 0xffffffffu, 0, 0, 0, {0, 0}};
        found[object] = nothing;
    }
    if (word >= words) return;
    const float* low = logits + (u64)object * low_width * low_height;
    float scale_x = (float)low_width / (float)width, scale_y = (float)low_height / (float)height;
    u32 total = (u32)width * (u32)height;
    u32 at = word * 32, end = total - at < 32 ? total : at + 32;
    u32 set = 0, first = at;
    while (at < end) {
        int x = at / height, y = at - (u32)x * height;
        float right;
        int column = source_of(scale_x, x, low_width, &right);
        const float* here = low + column;
        const float* there = low + lesser(column + 1, low_width - 1);
        float left = 1.0f - right, upper = 0.0f, lower = 0.0f;
        int row = -2;
        for (; y < height && at < end; y++, at++) {
            float down;
            int next = source_of(scale_y, y, low_height, &down);
            if (next != row) {
                u64 a = (u64)next * low_width, b = (u64)lesser(next + 1, low_height - 1) * low_width;
                upper = next == row + 1 ? lower : left * here[a] + right * there[a];
                lower = left * here[b] + right * there[b];
                row = next;
            }
            if ((1.0f - down) * upper + down * lower > 0.0f) set |= 1u << (at - first);
        }
    }
    bits[(u64)object * words + word] = set;
}

// A bit is set where the mask's differs from the one before it.
__device__ inline u32 changes_in(const u32* bits, u32 word, u32 total) {
    u32 here = bits[word], before = word == 0 ? 0 : bits[word - 1] >> 31;
    u32 left = total - word * 32;
    u32 valid = left < 32 ? (1u << left) - 1 : 0xffffffffu;
    return (here ^ (here << 1 | before)) & valid;
}

// A thread a word.
extern "C" __global__ void mask_runs_count(const u32* bits, u32 total, u32 words, u32 chunks, u32* chunk_changes,
                                           Found* found) {
    u32 word = blockIdx.x * blockDim.x + threadIdx.x;
    u32 object = blockIdx.y;
    if (word >= words) return;
    u32 count = __popc(changes_in(bits + (u64)object * words, word, total));
    if (count == 0) return;
    atomicAdd(&chunk_changes[(u64)object * chunks + word / WORDS_PER_CHUNK], count);
    atomicAdd(&found[object].changes, count);
}

// A thread a word. Few words have a change; those count the changes before them, a chunk at a time as far as they can.
extern "C" __global__ void mask_runs_place(const u32* bits, u32 total, u32 words, u32 chunks, const u32* chunk_changes,
                                           u32 capacity, u32* places) {
    u32 word = blockIdx.x * blockDim.x + threadIdx.x;
    u32 object = blockIdx.y;
    if (word >= words) return;
    bits += (u64)object * words;
    u32 rest = changes_in(bits, word, total);
    if (rest == 0) return;
    u32 chunk = word / WORDS_PER_CHUNK, index = 0;
    for (u32 other = 0; other < chunk; other++) index += chunk_changes[(u64)object * chunks + other];
    for (u32 other = chunk * WORDS_PER_CHUNK; other < word; other++) index += __popc(changes_in(bits, other, total));
    for (; rest != 0 && index < capacity; index++) {
        places[(u64)object * capacity + index] = word * 32 + __ffs(rest) - 1;
        rest &= rest - 1;
    }
}

// A thread a run of `counts` [objects,capacity + 1]. Runs of odd index are the object's. With more changes than
// `capacity` nothing is written; the bits have it all.
extern "C" __global__ void mask_runs_measure(const u32* places, u32 capacity, int height, u32 total, Found* found,
                                             u32* counts) {
    u32 run = blockIdx.x * blockDim.x + threadIdx.x;
    u32 object = blockIdx.y;
    u32 changes = found[object].changes;
    if (changes > capacity || run > changes) return;
    places += (u64)object * capacity;
    u32 start = run == 0 ? 0 : places[run - 1], end = run == changes ? total : places[run];
    counts[(u64)object * (capacity + 1) + run] = end - start;
    if (run % 2 == 0) return;
    u32 first = start / height, last = (end - 1) / height;
    bool one_column = first == last;
    Found* to = &found[object];
    atomicAdd(&to->area_px, end - start);
    atomicMin(&to->x0, first);
    atomicMax(&to->x1, last + 1);
    atomicMin(&to->y0, one_column ? start - first * height : 0);
    atomicMax(&to->y1, one_column ? end - first * height : height);
}
