// The driver of an imaginary GPU, for the tests: its memory is the host's, its kernels are ours, compiled as C++ and run a
// thread at a time. It is as lazy as a driver may be: work given to a stream is done when somebody waits for it, or asks
// whether it is done, a step at a time, so that what is not ordered happens in the wrong order here. It also checks that nobody writes
// behind an allocation or frees memory that work still uses. NVRTC's interface is in here too, without a compiler.
//
// SIGHTLINE_IMAGINARY_VERSION and SIGHTLINE_IMAGINARY_DEVICES say what it has: 13000 and 1 unless set.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

// What the kernels' language has and C++ has not.
struct Index { unsigned x = 0, y = 0; };
static thread_local Index blockIdx, threadIdx, blockDim;
#define __global__
#define __device__
static inline unsigned atomicAdd(unsigned* at, unsigned value) { return std::exchange(*at, *at + value); }
static inline unsigned atomicMin(unsigned* at, unsigned value) { return std::exchange(*at, *at < value ? *at : value); }
static inline unsigned atomicMax(unsigned* at, unsigned value) { return std::exchange(*at, *at > value ? *at : value); }
static inline int __popc(unsigned value) { return __builtin_popcount(value); }
static inline int __ffs(int value) { return __builtin_ffs(value); }
#include "common.cuh"
#include "picture.cu"
#include "mask.cu"
#include "overlay.cu"
#include "tensor.cu"

namespace {

using Work = std::function<void()>;
using Bind = std::function<Work(void**)>;

template <class... A, size_t... I>
Work bound(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
    auto copies = std::make_tuple(*static_cast<A*>(arguments[I])...);
    return [=] { std::apply(kernel, copies); };
}
template <class... A> Bind binder(void (*kernel)(A...)) {
    return [=](void** arguments) { return bound(kernel, arguments, std::index_sequence_for<A...>()); };
}

std::map<std::string, Bind> kernels = {
#define KERNEL(name) {#name, binder(name)}
    KERNEL(picture_narrow), KERNEL(picture_shorten_f32), KERNEL(picture_shorten_f16), KERNEL(mask_bits),
    KERNEL(mask_runs_place), KERNEL(mask_runs_measure), KERNEL(mask_look), KERNEL(overlay_fill),
    KERNEL(tensor_fill), KERNEL(tensor_clamp), KERNEL(tensor_round_to_bf16), KERNEL(tensor_add_channels),
};

std::recursive_mutex everything;
// Another thread's call may come between any two of this one's.
#define ALONE std::this_thread::yield(); std::lock_guard<std::recursive_mutex> alone(everything)

[[noreturn]] void wrong(const char* what) {
    fprintf(stderr, "imaginary driver: %s\n", what);
    abort();
}

// Whether this thread has waited for the device since it last gave it work; others may give it some at any time.
thread_local bool waited_for = false;

struct Stream {
    std::deque<Work> queue;
    uint64_t given = 0, done = 0;
    bool capturing = false;
    std::vector<Work> captured;

    void give(Work work) {
        waited_for = false;
        if (capturing) return captured.push_back(work);
        queue.push_back(work);
        given++;
    }
    void run_to(uint64_t target) {
        while (done < target) {
            Work work = std::move(queue.front());
            queue.pop_front();
            work();
            done++;
        }
    }
};
struct Event { Stream* stream = nullptr; uint64_t target = 0; };
struct Graph { std::vector<Work> work; };

Stream default_stream;
std::vector<Stream*> streams = {&default_stream};
std::map<uint64_t, size_t> memory;
// What others allocate by rows. They may free it whenever they like, and what reads it later reads nonsense.
std::set<uint64_t> lent;
std::map<void*, size_t> pinned;
int context_handle, module_handle;
thread_local void* current = nullptr;
thread_local std::vector<void*> below;
unsigned launches = 0;
const size_t GUARD = 256;

Stream* at(void* stream) { return stream ? static_cast<Stream*>(stream) : &default_stream; }
int setting(const char* name, int otherwise) {
    const char* text = getenv(name);
    return text ? atoi(text) : otherwise;
}
void check_guards(uint64_t address, size_t bytes) {
    const unsigned char* start = reinterpret_cast<const unsigned char*>(address);
    for (size_t i = 0; i < GUARD; i++)
        if (start[-1 - (long)i] != 0xa5 || start[bytes + i] != 0xa5) wrong("something was written outside an allocation");
}
bool within(uint64_t address, size_t bytes) {
    auto next = memory.upper_bound(address);
    if (next == memory.begin()) return false;
    --next;
    return address + bytes <= next->first + next->second;
}
bool idle() {
    for (Stream* stream : streams)
        if (stream->done < stream->given) return false;
    return true;
}

} // namespace

#define API extern "C" int

API cuDriverGetVersion(int* to) { *to = setting("SIGHTLINE_IMAGINARY_VERSION", 13000); return 0; }
API cuInit(unsigned) { return setting("SIGHTLINE_IMAGINARY_DEVICES", 1) < 0 ? 100 : 0; }
API cuDeviceGetCount(int* to) { *to = setting("SIGHTLINE_IMAGINARY_DEVICES", 1); return 0; }
API cuDeviceGet(int* to, int ordinal) { *to = ordinal; return 0; }
API cuDeviceGetName(char* to, int size, int) { snprintf(to, size, "Imaginary"); return 0; }
API cuDeviceTotalMem_v2(size_t* to, int) { *to = size_t(8) << 30; return 0; }
API cuDeviceGetAttribute(int* to, int which, int) {
    *to = which == 75 ? 9 : which == 16 ? 4 : which == 14 ? 512 : 0;
    return 0;
}
API cuDevicePrimaryCtxRetain(void** to, int) { *to = &context_handle; return 0; }
API cuDevicePrimaryCtxRelease_v2(int) { return 0; }
API cuCtxGetCurrent(void** to) { *to = current; return 0; }
API cuCtxSetCurrent(void* to) { current = to; return 0; }
API cuCtxPushCurrent_v2(void* context) { below.push_back(current); current = context; return 0; }
API cuCtxPopCurrent_v2(void** to) {
    if (below.empty()) return 201;
    if (to) *to = current;
    current = below.back();
    below.pop_back();
    return 0;
}
API cuCtxCreate_v2(void** to, unsigned, int) { *to = new int; return cuCtxPushCurrent_v2(*to); }
API cuCtxDestroy_v2(void* context) { delete static_cast<int*>(context); return 0; }
API cuCtxSynchronize() {
    ALONE;
    // The last stream first: nobody may count on the first.
    for (size_t i = streams.size(); i-- > 0;) streams[i]->run_to(streams[i]->given);
    waited_for = true;
    return 0;
}
API cuGetErrorName(int, const char** to) { *to = "imaginary"; return 0; }
API cuGetErrorString(int, const char** to) { *to = "imaginary"; return 0; }
API cuMemGetInfo_v2(size_t* free, size_t* total) { *free = size_t(4) << 30; *total = size_t(8) << 30; return 0; }

API cuMemAlloc_v2(uint64_t* to, size_t bytes) {
    ALONE;
    if (!current) return 201;
    if (bytes > size_t(4) << 30) return 2;
    size_t all = (bytes + 2 * GUARD + 255) / 256 * 256;
    char* start = static_cast<char*>(aligned_alloc(256, all));
    memset(start, 0xa5, all);
    *to = reinterpret_cast<uint64_t>(start + GUARD);
    memory[*to] = bytes;
    return 0;
}
API cuMemFree_v2(uint64_t address) {
    ALONE;
    auto found = memory.find(address);
    if (found != memory.end() && lent.erase(address)) {
        memset(reinterpret_cast<void*>(address), 0xdd, found->second);
        return 0;
    }
    if (!idle() && !waited_for) wrong("memory was freed while work was under way");
    if (found == memory.end()) wrong("what was freed was no allocation");
    check_guards(address, found->second);
    free(reinterpret_cast<char*>(address) - GUARD);
    memory.erase(found);
    return 0;
}
API cuMemHostAlloc(void** to, size_t bytes, unsigned flags) {
    ALONE;
    if (flags) wrong("pinned memory is to be cached");
    *to = malloc(bytes);
    pinned[*to] = bytes;
    return 0;
}
API cuMemAllocHost_v2(void** to, size_t bytes) { return cuMemHostAlloc(to, bytes, 0); }
API cuMemAllocPitch_v2(uint64_t* to, size_t* pitch, size_t width, size_t height, unsigned) {
    *pitch = (width + 511) / 512 * 512;
    int refused = cuMemAlloc_v2(to, *pitch * height);
    if (!refused) lent.insert(*to);
    return refused;
}
API cuMemFreeHost(void* at) { ALONE; pinned.erase(at); free(at); return 0; }

// Before a copy between the device and pinned memory is done: that memory must still be there.
void expect_pinned(const void* at, size_t bytes) {
    auto after = pinned.upper_bound(const_cast<void*>(at));
    if (after != pinned.begin()) {
        auto [start, size] = *std::prev(after);
        if (static_cast<const char*>(at) + bytes <= static_cast<const char*>(start) + size) return;
    }
    wrong("pinned memory was freed under a copy");
}

API cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, void* stream) {
    ALONE;
    if (!within(to, bytes)) return 1;
    at(stream)->give([=] { memset(reinterpret_cast<void*>(to), value, bytes); });
    return 0;
}
API cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void* stream) {
    ALONE;
    if (!within(to, bytes)) return 1;
    at(stream)->give([=] {
        expect_pinned(from, bytes);
        memcpy(reinterpret_cast<void*>(to), from, bytes);
    });
    return 0;
}
API cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void* stream) {
    ALONE;
    // For the tests, one that fails: 1013 floats.
    if (!within(from, bytes) || bytes == 4052) return 1;
    at(stream)->give([=] {
        expect_pinned(to, bytes);
        memcpy(to, reinterpret_cast<void*>(from), bytes);
    });
    return 0;
}
API cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void* stream) {
    ALONE;
    if (!within(to, bytes) || !within(from, bytes)) return 1;
    at(stream)->give([=] { memcpy(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes); });
    return 0;
}

struct Array { size_t row, rows; std::vector<char> bytes; };
struct ArrayDescriptor { size_t width, height; int format; unsigned channels; };
API cuArrayCreate_v2(void** to, const ArrayDescriptor* wanted) {
    ALONE;
    if (wanted->format != 1) return 1; // unsigned bytes
    size_t row = wanted->width * wanted->channels;
    *to = new Array{row, wanted->height, std::vector<char>(row * wanted->height)};
    return 0;
}
API cuArrayDestroy(void* array) { ALONE; delete static_cast<Array*>(array); return 0; }

struct Copy2d {
    size_t from_x, from_y; int from_type; const char* from_host; uint64_t from_device; Array* from_array; size_t from_pitch;
    size_t to_x, to_y; int to_type; char* to_host; uint64_t to_device; Array* to_array; size_t to_pitch;
    size_t width, height;
};
// Where a side's row begins: host 1, device 2, array 3.
char* row_of(int type, const char* host, uint64_t device, Array* array, size_t pitch, size_t x, size_t y) {
    if (type == 3) return array->bytes.data() + y * array->row + x;
    char* start = type == 1 ? const_cast<char*>(host) : reinterpret_cast<char*>(device);
    return start + y * pitch + x;
}
bool holds(int type, uint64_t device, Array* array, size_t pitch, size_t x, size_t y, size_t width, size_t height) {
    if (type == 3) return x + width <= array->row && y + height <= array->rows;
    return type == 1 || within(device + y * pitch + x, (height - 1) * pitch + width);
}
// A byte in a file for each copy by rows to the host: how others fetch pictures. We ourselves never do.
void note_fetched() {
    const char* path = getenv("SIGHTLINE_IMAGINARY_FETCHED");
    FILE* file = path ? fopen(path, "a") : nullptr;
    if (!file) return;
    fputc('.', file);
    fclose(file);
}
API cuMemcpy2DAsync_v2(const Copy2d* wanted, void* stream) {
    ALONE;
    Copy2d c = *wanted;
    if (!holds(c.from_type, c.from_device, c.from_array, c.from_pitch, c.from_x, c.from_y, c.width, c.height) ||
        !holds(c.to_type, c.to_device, c.to_array, c.to_pitch, c.to_x, c.to_y, c.width, c.height))
        return 1;
    if (c.to_type == 1) note_fetched();
    at(stream)->give([=] {
        for (size_t y = 0; y < c.height; y++)
            memcpy(row_of(c.to_type, c.to_host, c.to_device, c.to_array, c.to_pitch, c.to_x, c.to_y + y),
                   row_of(c.from_type, c.from_host, c.from_device, c.from_array, c.from_pitch, c.from_x, c.from_y + y),
                   c.width);
    });
    return 0;
}

API cuStreamCreate(void** to, unsigned) { ALONE; streams.push_back(new Stream); *to = streams.back(); return 0; }
API cuStreamDestroy_v2(void* stream) { ALONE; at(stream)->run_to(at(stream)->given); return 0; }
API cuStreamDestroy(void* stream) { return cuStreamDestroy_v2(stream); }
API cuStreamSynchronize(void* stream) { ALONE; at(stream)->run_to(at(stream)->given); return 0; }
API cuStreamWaitEvent(void* stream, void* event, unsigned) {
    ALONE;
    Event waited = *static_cast<Event*>(event);
    if (at(stream)->capturing) return 900;
    if (waited.stream) at(stream)->give([=] { waited.stream->run_to(waited.target); });
    return 0;
}
API cuMemcpy2D_v2(const Copy2d* wanted) {
    int refused = cuMemcpy2DAsync_v2(wanted, nullptr);
    return refused ? refused : cuStreamSynchronize(nullptr);
}
API cuEventCreate(void** to, unsigned) { *to = new Event; return 0; }
API cuEventDestroy_v2(void* event) { delete static_cast<Event*>(event); return 0; }
API cuEventDestroy(void* event) { return cuEventDestroy_v2(event); }
API cuEventRecord(void* event, void* stream) {
    ALONE;
    if (at(stream)->capturing) return 900;
    *static_cast<Event*>(event) = {at(stream), at(stream)->given};
    return 0;
}
// 2 is relaxed. Whoever asks in another mode while a graph is captured elsewhere would end that.
thread_local int capture_mode = 0;
API cuThreadExchangeStreamCaptureMode(int* mode) {
    std::swap(capture_mode, *mode);
    return 0;
}
API cuEventQuery(void* event) {
    if (capture_mode != 2) wrong("an event was asked about in a mode that ends others' captures");
    ALONE;
    Event& asked = *static_cast<Event*>(event);
    if (!asked.stream || asked.stream->done >= asked.target) return 0;
    asked.stream->run_to(asked.stream->done + 1);
    return asked.stream->done >= asked.target ? 0 : 600;
}
API cuEventSynchronize(void* event) {
    ALONE;
    Event& waited = *static_cast<Event*>(event);
    if (waited.stream) waited.stream->run_to(waited.target);
    return 0;
}

API cuModuleLoadData(void** to, const void* image) {
    *to = &module_handle;
    return memcmp(image, "\177ELF imaginary", 14) ? 200 : 0;
}
API cuModuleUnload(void*) { return 0; }
API cuModuleGetFunction(void** to, void*, const char* name) {
    auto found = kernels.find(name);
    if (found == kernels.end()) return 500;
    *to = &found->second;
    return 0;
}
API cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                   unsigned block_z, unsigned, void* stream, void** arguments, void**) {
    ALONE;
    if (!grid_x || !grid_y || grid_y > 65535 || grid_z != 1 || block_x > 1024 || block_y != 1 || block_z != 1) return 1;
    // Forwards and backwards in turn: the order of threads is nobody's to count on.
    bool backwards = launches++ % 2;
    Work thread = (*static_cast<Bind*>(function))(arguments);
    at(stream)->give([=] {
        uint64_t blocks = uint64_t(grid_x) * grid_y;
        blockDim = {block_x, 1};
        for (uint64_t i = 0; i < blocks; i++) {
            uint64_t block = backwards ? blocks - 1 - i : i;
            blockIdx = {unsigned(block % grid_x), unsigned(block / grid_x)};
            for (unsigned j = 0; j < block_x; j++) {
                threadIdx = {backwards ? block_x - 1 - j : j, 0};
                thread();
            }
        }
        for (auto& [address, bytes] : memory) check_guards(address, bytes);
    });
    return 0;
}

API cuStreamBeginCapture_v2(void* stream, int) { ALONE; at(stream)->capturing = true; return 0; }
API cuStreamEndCapture(void* stream, void** to) {
    ALONE;
    Stream* captured = at(stream);
    captured->capturing = false;
    *to = captured->captured.empty() ? nullptr : new Graph{std::exchange(captured->captured, {})};
    return 0;
}
API cuGraphInstantiateWithFlags(void** to, void* graph, unsigned long long) {
    *to = new Graph(*static_cast<Graph*>(graph));
    return 0;
}
API cuGraphUpload(void*, void*) { return 0; }
API cuGraphLaunch(void* graph, void* stream) {
    ALONE;
    for (Work& work : static_cast<Graph*>(graph)->work) at(stream)->give(work);
    return 0;
}
API cuGraphDestroy(void* graph) { delete static_cast<Graph*>(graph); return 0; }
API cuGraphExecDestroy(void* graph) { delete static_cast<Graph*>(graph); return 0; }

API nvrtcVersion(int* major, int* minor) { *major = 13; *minor = 0; return 0; }
API nvrtcGetNumSupportedArchs(int* to) { *to = 1; return 0; }
API nvrtcGetSupportedArchs(int* to) { *to = 90; return 0; }
API nvrtcCreateProgram(void** to, const char*, const char*, int, const char* const*, const char* const*) {
    *to = new int;
    return 0;
}
API nvrtcDestroyProgram(void** program) { delete static_cast<int*>(*program); return 0; }
API nvrtcCompileProgram(void*, int, const char* const*) { return 0; }
API nvrtcGetProgramLogSize(void*, size_t* to) { *to = 1; return 0; }
API nvrtcGetProgramLog(void*, char* to) { *to = 0; return 0; }
API nvrtcGetCUBINSize(void*, size_t* to) { *to = 14; return 0; }
API nvrtcGetCUBIN(void*, char* to) { memcpy(to, "\177ELF imaginary", 14); return 0; }
API nvrtcGetPTXSize(void*, size_t* to) { *to = 0; return 0; }
API nvrtcGetPTX(void*, char*) { return 0; }

// What GStreamer's loader looks up in a driver and in a decoder library, and these tests never call.
#define REFUSED(name) API name() { return 801; }
REFUSED(cuCtxEnablePeerAccess) REFUSED(cuCtxDisablePeerAccess) REFUSED(cuDeviceCanAccessPeer)
REFUSED(cuTexObjectCreate) REFUSED(cuTexObjectDestroy)
REFUSED(cuGraphicsMapResources) REFUSED(cuGraphicsUnmapResources) REFUSED(cuGraphicsUnregisterResource)
REFUSED(cuGraphicsResourceSetMapFlags) REFUSED(cuGraphicsResourceSetMapFlags_v2)
REFUSED(cuGraphicsSubResourceGetMappedArray)
REFUSED(cuGraphicsResourceGetMappedPointer) REFUSED(cuGraphicsResourceGetMappedPointer_v2)
REFUSED(cuGraphicsGLRegisterImage) REFUSED(cuGraphicsGLRegisterBuffer)
REFUSED(cuGLGetDevices) REFUSED(cuGLGetDevices_v2)
REFUSED(cuIpcGetEventHandle) REFUSED(cuIpcOpenEventHandle) REFUSED(cuIpcGetMemHandle) REFUSED(cuIpcOpenMemHandle)
REFUSED(cuIpcOpenMemHandle_v2) REFUSED(cuIpcCloseMemHandle)
REFUSED(cuvidCtxLockCreate) REFUSED(cuvidCtxLockDestroy) REFUSED(cuvidCtxLock) REFUSED(cuvidCtxUnlock)
REFUSED(cuvidCreateDecoder) REFUSED(cuvidDestroyDecoder) REFUSED(cuvidDecodePicture) REFUSED(cuvidCreateVideoParser)
REFUSED(cuvidParseVideoData) REFUSED(cuvidDestroyVideoParser) REFUSED(cuvidMapVideoFrame) REFUSED(cuvidMapVideoFrame64)
REFUSED(cuvidUnmapVideoFrame) REFUSED(cuvidUnmapVideoFrame64) REFUSED(cuvidGetDecoderCaps)
