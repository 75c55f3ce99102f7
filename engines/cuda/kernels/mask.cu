// Mask logits [objects,1,low_height,low_width] -> bits, run lengths, area and box at the picture's size.
//
// Bits are in COCO's order, down the columns: bit x * height + y, the lowest of a word first. Run lengths then are the
// distances between changes in one string of bits. Four launches, in this order: bits, place, measure, look.

// What is known of a mask, and right behind it its run lengths; the next mask's are `stride` words further on. As
// MaskRoom of engines/api says.
struct Found {
    u32 area_px;
    // The latter two exclusive; x0 > x1 when nothing is set.
    u32 x0, y0, x1, y1;
    // Changes there are, maybe more than were kept; the first pixel is preceded by a 0.
    u32 changes;
    // A logit is no finite number; one is positive.
    u32 faulty, positive;
};
static_assert(sizeof(Found) == 32, "MaskRoom::HEAD_WORDS of engines/api");

__device__ inline Found* found_of(u32* found, u32 stride, u32 object) { return (Found*)(found + (u64)object * stride); }

// Changes are counted in groups of words and in chunks of groups, so that the number before any word is a short sum.
#define WORDS_PER_GROUP 32
#define WORDS_PER_CHUNK 1024

// As area_pixel_compute_source_index and guard_index_and_lambda of PyTorch's UpSample.h.
__device__ inline int source_of(float scale, int at, int low, float* next_weight) {
    float source = greater_f32(scale * ((float)at + 0.5f) - 0.5f, 0.0f);
    int index = lesser((int)source, low - 1);
    *next_weight = lesser_f32(greater_f32(source - (float)index, 0.0f), 1.0f);
    return index;
}

// A column of the picture, made of two of the logits.
struct Column {
    const float* here;
    const float* there;
    float left, right;
};

__device__ inline Column column_at(const float* low, float scale_x, int low_width, int x) {
    Column column;
    int index = source_of(scale_x, x, low_width, &column.right);
    column.here = low + index;
    column.there = low + lesser(index + 1, low_width - 1);
    column.left = 1.0f - column.right;
    return column;
}

__device__ inline float across(const Column& column, int row, int low_width) {
    u64 at = (u64)row * low_width;
    return column.left * column.here[at] + column.right * column.there[at];
}

// A bit is set where the mask's differs from the one before it. `left`: pixels from here on.
__device__ inline u32 changes_of(u32 here, u32 before, u32 left) {
    u32 valid = left < 32 ? (1u << left) - 1 : 0xffffffffu;
    return (here ^ (here << 1 | before)) & valid;
}

// A thread a word. `group_changes` and `chunk_changes` [objects,groups] and [objects,chunks] are 0 and are so again after
// mask_runs_measure.
extern "C" __global__ void mask_bits(const float* logits, int low_width, int low_height, int width, int height,
                                     u32 words, u32* bits, u32 groups, u32* group_changes, u32 chunks,
                                     u32* chunk_changes) {
    u32 word = blockIdx.x * blockDim.x + threadIdx.x;
    u32 object = blockIdx.y;
    if (word >= words) return;
    const float* low = logits + (u64)object * low_width * low_height;
    float scale_x = (float)low_width / (float)width, scale_y = (float)low_height / (float)height;
    u32 total = (u32)width * (u32)height;
    u32 first = word * 32, end = total - first < 32 ? total : first + 32;
    // The pixel before this word's is looked at as well: whether it is set decides if the first is a change.
    u32 at = first == 0 ? 0 : first - 1, set = 0, before = 0;
    while (at < end) {
        int x = at / height, y = at - (u32)x * height, row = -2;
        Column column = column_at(low, scale_x, low_width, x);
        float upper = 0.0f, lower = 0.0f;
        for (; y < height && at < end; y++, at++) {
            float down;
            int next = source_of(scale_y, y, low_height, &down);
            if (next != row) {
                upper = next == row + 1 ? lower : across(column, next, low_width);
                lower = across(column, lesser(next + 1, low_height - 1), low_width);
                row = next;
            }
            if (!((1.0f - down) * upper + down * lower > 0.0f)) continue;
            if (at < first) before = 1;
            else set |= 1u << (at - first);
        }
    }
    bits[(u64)object * words + word] = set;
    u32 count = __popc(changes_of(set, before, total - first));
    if (count == 0) return;
    atomicAdd(&group_changes[(u64)object * groups + word / WORDS_PER_GROUP], count);
    atomicAdd(&chunk_changes[(u64)object * chunks + word / WORDS_PER_CHUNK], count);
}

__device__ inline u32 changes_in(const u32* bits, u32 word, u32 total) {
    return changes_of(bits[word], word == 0 ? 0 : bits[word - 1] >> 31, total - word * 32);
}

// A thread a word. Few words have a change; those count the changes before them.
extern "C" __global__ void mask_runs_place(const u32* bits, u32 total, u32 words, u32 groups, const u32* group_changes,
                                           u32 chunks, const u32* chunk_changes, u32 capacity, u32* places,
                                           u32* found, u32 stride) {
    u32 word = blockIdx.x * blockDim.x + threadIdx.x;
    u32 object = blockIdx.y;
    if (word >= words) return;
    bits += (u64)object * words;
    group_changes += (u64)object * groups;
    chunk_changes += (u64)object * chunks;
    if (word == 0) {
        Found nothing = {0, 0xffffffffu, 0xffffffffu, 0, 0, 0, 0, 0};
        for (u32 chunk = 0; chunk < chunks; chunk++) nothing.changes += chunk_changes[chunk];
        *found_of(found, stride, object) = nothing;
    }
    u32 rest = changes_in(bits, word, total);
    if (rest == 0) return;
    u32 group = word / WORDS_PER_GROUP, chunk = word / WORDS_PER_CHUNK, index = 0;
    for (u32 other = 0; other < chunk; other++) index += chunk_changes[other];
    for (u32 other = chunk * (WORDS_PER_CHUNK / WORDS_PER_GROUP); other < group; other++) index += group_changes[other];
    for (u32 other = group * WORDS_PER_GROUP; other < word; other++) index += __popc(changes_in(bits, other, total));
    for (; rest != 0 && index < capacity; index++) {
        places[(u64)object * capacity + index] = word * 32 + __ffs(rest) - 1;
        rest &= rest - 1;
    }
}

// A thread a run, up to `capacity` + 1 an object, and a group. Runs of odd index are the object's. With more changes than
// `capacity` no run is written; the bits have it all.
extern "C" __global__ void mask_runs_measure(const u32* places, u32 capacity, int height, u32 total, u32* found,
                                             u32 stride, u32 groups, u32* group_changes, u32 chunks,
                                             u32* chunk_changes) {
    u32 run = blockIdx.x * blockDim.x + threadIdx.x;
    u32 object = blockIdx.y;
    if (run < groups) group_changes[(u64)object * groups + run] = 0;
    if (run < chunks) chunk_changes[(u64)object * chunks + run] = 0;
    Found* to = found_of(found, stride, object);
    u32 changes = to->changes, *counts = (u32*)(to + 1);
    if (changes > capacity || run > changes) return;
    places += (u64)object * capacity;
    u32 start = run == 0 ? 0 : places[run - 1], end = run == changes ? total : places[run];
    counts[run] = end - start;
    if (run % 2 == 0) return;
    u32 first = start / height, last = (end - 1) / height;
    bool one_column = first == last;
    atomicAdd(&to->area_px, end - start);
    atomicMin(&to->x0, first);
    atomicMax(&to->x1, last + 1);
    atomicMin(&to->y0, one_column ? start - first * height : 0);
    atomicMax(&to->y1, one_column ? end - first * height : height);
}

// A thread a logit. All who find something write the same.
extern "C" __global__ void mask_look(const float* logits, u32 elements, u32* found, u32 stride) {
    u32 at = blockIdx.x * blockDim.x + threadIdx.x;
    u32 object = blockIdx.y;
    if (at >= elements) return;
    float logit = logits[(u64)object * elements + at];
    Found* to = found_of(found, stride, object);
    // Of what is no finite number, less itself, nothing is left but NaN.
    if (!(logit - logit == 0.0f)) to->faulty = 1;
    if (logit > 0.0f) to->positive = 1;
}
