// The few operations between graphs. A thread a value; everything is f32.

extern "C" __global__ void tensor_fill(float value, u64 count, float* to) {
    u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (at < count) to[at] = value;
}

extern "C" __global__ void tensor_clamp(const float* from, float limit, u64 count, float* to) {
    u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (at < count) to[at] = lesser_f32(greater_f32(from[at], -limit), limit);
}

// To the nearest bfloat16, ties to even; a NaN stays one.
extern "C" __global__ void tensor_round_to_bf16(u64 count, u32* values) {
    u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count) return;
    u32 bits = values[at];
    bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    u32 rounded_bits = is_nan ? bits | 0x00400000u : bits + 0x7fffu + (bits >> 16 & 1);
    values[at] = rounded_bits & 0xffff0000u;
}

// `from` and `to` are [channels,per_channel].
extern "C" __global__ void tensor_add_channels(const float* from, const float* values, u64 per_channel, u64 count,
                                               float* to) {
    u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (at < count) to[at] = from[at] + values[at / per_channel];
}
