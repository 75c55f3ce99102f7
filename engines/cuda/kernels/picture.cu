// A picture of any format -> resized, normalised [3,height,width].
//
// As Pillow does it and runtime/vision after it: colours to 8 bits (13 bit fixed point, chroma repeated), along the
// rows to 8 bits, down the columns to 8 bits, then a table from level to value. Weights are f32.

__device__ inline int level(int fixed) { return lesser(greater((fixed + 4096) >> 13, 0), 255); }

__device__ inline u32 rgb_of_yuv(const Picture& picture, int y, int u, int v) {
    int luma = (y - picture.black) * picture.luma;
    u -= 128;
    v -= 128;
    u32 red = level(luma + picture.red_of_v * v);
    u32 green = level(luma - picture.green_of_u * u - picture.green_of_v * v);
    u32 blue = level(luma + picture.blue_of_u * u);
    return red | green << 8 | blue << 16;
}

// Red in the lowest byte.
__device__ inline u32 rgb_at(const Picture& picture, int x, int y) {
    const u8* row = picture.plane[0] + (u64)y * picture.stride_bytes[0];
    switch (picture.format) {
    case NV12: {
        const u8* chroma = picture.plane[1] + (u64)(y / 2) * picture.stride_bytes[1] + x / 2 * 2;
        return rgb_of_yuv(picture, row[x], chroma[0], chroma[1]);
    }
    case I420: {
        u8 u = picture.plane[1][(u64)(y / 2) * picture.stride_bytes[1] + x / 2];
        u8 v = picture.plane[2][(u64)(y / 2) * picture.stride_bytes[2] + x / 2];
        return rgb_of_yuv(picture, row[x], u, v);
    }
    case YUY2:
        return rgb_of_yuv(picture, row[2 * x], row[x / 2 * 4 + 1], row[x / 2 * 4 + 3]);
    case RGB:
        return row[3 * x] | row[3 * x + 1] << 8 | row[3 * x + 2] << 16;
    case BGR:
        return row[3 * x + 2] | row[3 * x + 1] << 8 | row[3 * x] << 16;
    case RGBX:
    case RGBA:
        return row[4 * x] | row[4 * x + 1] << 8 | row[4 * x + 2] << 16;
    default:
        return row[4 * x + 2] | row[4 * x + 1] << 8 | row[4 * x] << 16;
    }
}

__device__ inline u32 rounded(float value) { return (u32)lesser_f32(greater_f32(value + 0.5f, 0.0f), 255.0f); }

// Along the rows. A thread a pixel of `to` [picture height, width], red in the lowest byte of each. `weights` is
// [taps,width], of which the first `counts[x]` count.
extern "C" __global__ void picture_narrow(Picture picture, const int* starts, const int* counts, const float* weights,
                                          int width, u32* to) {
    int x = blockIdx.x * blockDim.x + threadIdx.x;
    int y = blockIdx.y;
    if (x >= width) return;
    float red = 0.0f, green = 0.0f, blue = 0.0f;
    int start = starts[x], count = counts[x];
    for (int tap = 0; tap < count; tap++) {
        float weight = weights[(u64)tap * width + x];
        u32 rgb = rgb_at(picture, start + tap, y);
        red += weight * (float)(rgb & 255);
        green += weight * (float)(rgb >> 8 & 255);
        blue += weight * (float)(rgb >> 16);
    }
    to[(u64)y * width + x] = rounded(red) | rounded(green) << 8 | rounded(blue) << 16;
}

// Down the columns of `from` [picture height, width]; gives the levels of one pixel.
__device__ inline u32 shortened(const u32* from, const int* starts, const int* counts, const float* weights, int width,
                                int height, int x, int y) {
    float red = 0.0f, green = 0.0f, blue = 0.0f;
    int start = starts[y], count = counts[y];
    for (int tap = 0; tap < count; tap++) {
        float weight = weights[(u64)tap * height + y];
        u32 rgb = from[(u64)(start + tap) * width + x];
        red += weight * (float)(rgb & 255);
        green += weight * (float)(rgb >> 8 & 255);
        blue += weight * (float)(rgb >> 16);
    }
    return rounded(red) | rounded(green) << 8 | rounded(blue) << 16;
}

// `levels` [3,256] says what a level of a channel becomes: (v / 255 - mean) / std.
extern "C" __global__ void picture_shorten_f32(const u32* from, const int* starts, const int* counts,
                                               const float* weights, int width, int height, const float* levels,
                                               float* to) {
    int x = blockIdx.x * blockDim.x + threadIdx.x;
    int y = blockIdx.y;
    if (x >= width) return;
    u32 rgb = shortened(from, starts, counts, weights, width, height, x, y);
    u64 at = (u64)y * width + x, plane = (u64)width * height;
    to[at] = levels[rgb & 255];
    to[plane + at] = levels[256 + (rgb >> 8 & 255)];
    to[2 * plane + at] = levels[512 + (rgb >> 16)];
}

// The same in halves: a level has one half, so rounding is the table's.
extern "C" __global__ void picture_shorten_f16(const u32* from, const int* starts, const int* counts,
                                               const float* weights, int width, int height, const u16* levels,
                                               u16* to) {
    int x = blockIdx.x * blockDim.x + threadIdx.x;
    int y = blockIdx.y;
    if (x >= width) return;
    u32 rgb = shortened(from, starts, counts, weights, width, height, x, y);
    u64 at = (u64)y * width + x, plane = (u64)width * height;
    to[at] = levels[rgb & 255];
    to[plane + at] = levels[256 + (rgb >> 8 & 255)];
    to[2 * plane + at] = levels[512 + (rgb >> 16)];
}
