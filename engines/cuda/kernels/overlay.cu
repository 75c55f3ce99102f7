// Masks tinted into a picture, in place; what runtime/vision's Painter::fill does, to the bit.

#define INKS 16

// Which masks to draw, in this order, and how.
struct Inks {
    u32 count;
    // Index of each mask.
    u32 mask[INKS];
    // Y U V, or the first three bytes of a packed pixel; the first in the lowest byte.
    u32 bytes[INKS];
    // 0 (nothing) to 256 (opaque).
    u32 weight[INKS];
};
static_assert(sizeof(Inks) == 196, "InksParameter of src/kernels/overlay.rs");

__device__ inline u8 blend(u8 from, u32 to, u32 weight) { return (from * (256 - weight) + to * weight + 128) >> 8; }

__device__ inline void blend_all(u8* pixel, int bytes, u32 ink, u32 weight) {
    for (int byte = 0; byte < bytes; byte++) pixel[byte] = blend(pixel[byte], ink >> (8 * byte) & 255, weight);
}

__device__ inline u32 bit_at(const u32* bits, const Picture& picture, int x, int y) {
    if (x >= picture.width || y >= picture.height) return 0;
    u32 at = (u32)x * picture.height + y;
    return bits[at / 32] >> (at % 32) & 1;
}

// A thread a block of 2x2 pixels, which share their chroma. `bits` is [masks,words], as mask_bits writes it.
extern "C" __global__ void overlay_fill(Picture picture, const u32* bits, u32 words, Inks inks) {
    int x0 = (blockIdx.x * blockDim.x + threadIdx.x) * 2, y0 = blockIdx.y * 2;
    if (x0 >= picture.width) return;
    for (u32 index = 0; index < inks.count; index++) {
        const u32* mask = bits + (u64)inks.mask[index] * words;
        u32 ink = inks.bytes[index], weight = inks.weight[index], any = 0;
        for (int y = y0; y < y0 + 2; y++) {
            u8* row = picture.plane[0] + (u64)y * picture.stride_bytes[0];
            u32 any_in_row = 0;
            for (int x = x0; x < x0 + 2; x++) {
                if (!bit_at(mask, picture, x, y)) continue;
                any_in_row = 1;
                switch (picture.format) {
                case NV12:
                case I420: blend_all(row + x, 1, ink, weight); break;
                case YUY2: blend_all(row + 2 * x, 1, ink, weight); break;
                case RGB:
                case BGR: blend_all(row + 3 * x, 3, ink, weight); break;
                default: blend_all(row + 4 * x, 3, ink, weight);
                }
            }
            any |= any_in_row;
            if (any_in_row && picture.format == YUY2) {
                u8* quad = row + x0 * 2;
                quad[1] = blend(quad[1], ink >> 8 & 255, weight);
                quad[3] = blend(quad[3], ink >> 16 & 255, weight);
            }
        }
        if (!any) continue;
        u64 chroma = (u64)(y0 / 2);
        if (picture.format == NV12) {
            blend_all(picture.plane[1] + chroma * picture.stride_bytes[1] + x0, 2, ink >> 8, weight);
        } else if (picture.format == I420) {
            blend_all(picture.plane[1] + chroma * picture.stride_bytes[1] + x0 / 2, 1, ink >> 8, weight);
            blend_all(picture.plane[2] + chroma * picture.stride_bytes[2] + x0 / 2, 1, ink >> 16, weight);
        }
    }
}
