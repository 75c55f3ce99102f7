// Compiled by NVRTC, without headers, on the machine that runs it; and by a C++ compiler in the tests, where a loop
// takes the place of the threads. So: no barriers, no shared memory, no warp intrinsics. Floats are never contracted
// (--fmad=false), which makes every result that of src/reference, bit for bit.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

__device__ inline int lesser(int a, int b) { return a < b ? a : b; }
__device__ inline int greater(int a, int b) { return a > b ? a : b; }
__device__ inline float lesser_f32(float a, float b) { return a < b ? a : b; }
__device__ inline float greater_f32(float a, float b) { return a > b ? a : b; }

// The order of sightline_core::PixelFormat.
enum Format { NV12, I420, YUY2, RGB, BGR, RGBX, BGRX, RGBA, BGRA };

// A picture, and how its YUV becomes RGB in 13 bit fixed point.
struct Picture {
    u8* plane[3];
    int stride_bytes[3];
    int format;
    int width;
    int height;
    int black;
    int luma;
    int red_of_v;
    int green_of_u;
    int green_of_v;
    int blue_of_u;
};
static_assert(sizeof(Picture) == 72, "PictureParameter of src/picture/colour.rs");
