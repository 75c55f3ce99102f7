// The functions of TensorRT that we call, as a table of plain C functions. Included once for each major.
//
// Nothing is decided here: every check is Rust's (src/checked.rs). Only functions that TensorRT 10.3 and 11.0 have are
// called: within a major, later versions only add to the tables of virtual functions, so a shim that was compiled
// against any minor's headers works with any minor's library.

#include <cstddef>
#include <cstdint>
#include <new>

#include "NvInferRuntime.h"
#include "NvInferVersion.h"

static_assert(NV_TENSORRT_MAJOR == SHIM_MAJOR, "these headers are of another major");
static_assert(SHIM_MAJOR > 10 || NV_TENSORRT_MINOR >= 3, "TensorRT 10.3 or later is needed");

namespace
{

using namespace nvinfer1;

// Mirrored in src/raw/table.rs, as is everything below down to the table.
struct ShimDims
{
    int32_t rank;
    int64_t sizes[Dims::MAX_DIMS];
};
static_assert(Dims::MAX_DIMS == 8, "the mirror in Rust has eight");

enum ShimDtype : int32_t
{
    kOther = -1,
    kF32 = 0,
    kF16 = 1,
    kBf16 = 2,
    kI64 = 3,
};

using LogFn = void (*)(void* user, int32_t severity, char const* text);
using CreateFn = void* (*) (void* logger, int32_t version);

class Logger final : public ILogger
{
public:
    Logger(LogFn fn, void* user) noexcept
        : mFn(fn)
        , mUser(user)
    {
    }

    void log(Severity severity, AsciiChar const* text) noexcept override
    {
        mFn(mUser, static_cast<int32_t>(severity), text);
    }

private:
    LogFn mFn;
    void* mUser;
};

void toShim(Dims const& dims, ShimDims* out) noexcept
{
    out->rank = dims.nbDims;
    for (int32_t i = 0; i < Dims::MAX_DIMS; ++i)
    {
        out->sizes[i] = i < dims.nbDims ? dims.d[i] : 0;
    }
}

IRuntime* runtime(void* p) noexcept
{
    return static_cast<IRuntime*>(p);
}

ICudaEngine* engine(void* p) noexcept
{
    return static_cast<ICudaEngine*>(p);
}

IExecutionContext* context(void* p) noexcept
{
    return static_cast<IExecutionContext*>(p);
}

void* loggerNew(LogFn fn, void* user) noexcept
{
    return static_cast<ILogger*>(new (std::nothrow) Logger(fn, user));
}

void loggerDelete(void* p) noexcept
{
    delete static_cast<Logger*>(static_cast<ILogger*>(p));
}

void* runtimeNew(CreateFn create, void* logger) noexcept
{
    return create(logger, NV_TENSORRT_VERSION);
}

void runtimeDelete(void* p) noexcept
{
    delete runtime(p);
}

void runtimeAllowHostCode(void* p) noexcept
{
    runtime(p)->setEngineHostCodeAllowed(true);
}

void* engineNew(void* p, void const* plan, size_t bytes) noexcept
{
    return runtime(p)->deserializeCudaEngine(plan, bytes);
}

void engineDelete(void* p) noexcept
{
    delete engine(p);
}

int32_t enginePorts(void* p) noexcept
{
    return engine(p)->getNbIOTensors();
}

char const* enginePortName(void* p, int32_t index) noexcept
{
    return engine(p)->getIOTensorName(index);
}

// 1 an input, 2 an output, 0 neither.
int32_t enginePortMode(void* p, char const* name) noexcept
{
    switch (engine(p)->getTensorIOMode(name))
    {
    case TensorIOMode::kINPUT: return 1;
    case TensorIOMode::kOUTPUT: return 2;
    default: return 0;
    }
}

int32_t enginePortOnDevice(void* p, char const* name) noexcept
{
    return engine(p)->getTensorLocation(name) == TensorLocation::kDEVICE;
}

int32_t enginePortDtype(void* p, char const* name) noexcept
{
    switch (engine(p)->getTensorDataType(name))
    {
    case DataType::kFLOAT: return kF32;
    case DataType::kHALF: return kF16;
    case DataType::kBF16: return kBf16;
    case DataType::kINT64: return kI64;
    default: return kOther;
    }
}

void enginePortShape(void* p, char const* name, ShimDims* out) noexcept
{
    toShim(engine(p)->getTensorShape(name), out);
}

int32_t engineProfiles(void* p) noexcept
{
    return engine(p)->getNbOptimizationProfiles();
}

// The least (0) or the most (1) that a profile covers.
void engineProfileShape(void* p, char const* name, int32_t profile, int32_t most, ShimDims* out) noexcept
{
    toShim(engine(p)->getProfileShape(name, profile, most ? OptProfileSelector::kMAX : OptProfileSelector::kMIN), out);
}

int64_t engineScratchBytes(void* p) noexcept
{
    return engine(p)->getDeviceMemorySizeV2();
}

void* contextNew(void* p) noexcept
{
    return engine(p)->createExecutionContext(ExecutionContextAllocationStrategy::kUSER_MANAGED);
}

void contextDelete(void* p) noexcept
{
    delete context(p);
}

void contextScratch(void* p, void* memory, int64_t bytes) noexcept
{
    context(p)->setDeviceMemoryV2(memory, bytes);
}

int32_t contextProfile(void* p, int32_t profile, void* stream) noexcept
{
    return context(p)->setOptimizationProfileAsync(profile, static_cast<cudaStream_t>(stream));
}

int32_t contextInputShape(void* p, char const* name, ShimDims const* dims) noexcept
{
    Dims sizes{};
    sizes.nbDims = dims->rank;
    for (int32_t i = 0; i < Dims::MAX_DIMS; ++i)
    {
        sizes.d[i] = dims->sizes[i];
    }
    return context(p)->setInputShape(name, sizes);
}

// How many inputs still lack a shape; negative when shapes contradict each other.
int32_t contextInferShapes(void* p) noexcept
{
    return context(p)->inferShapes(0, nullptr);
}

void contextPortShape(void* p, char const* name, ShimDims* out) noexcept
{
    toShim(context(p)->getTensorShape(name), out);
}

int32_t contextAddress(void* p, char const* name, void* address) noexcept
{
    return context(p)->setTensorAddress(name, address);
}

int32_t contextEnqueue(void* p, void* stream) noexcept
{
    return context(p)->enqueueV3(static_cast<cudaStream_t>(stream));
}

struct ShimTable
{
    int32_t headerVersion;
    void* (*loggerNew)(LogFn, void*) noexcept;
    void (*loggerDelete)(void*) noexcept;
    void* (*runtimeNew)(CreateFn, void*) noexcept;
    void (*runtimeDelete)(void*) noexcept;
    void (*runtimeAllowHostCode)(void*) noexcept;
    void* (*engineNew)(void*, void const*, size_t) noexcept;
    void (*engineDelete)(void*) noexcept;
    int32_t (*enginePorts)(void*) noexcept;
    char const* (*enginePortName)(void*, int32_t) noexcept;
    int32_t (*enginePortMode)(void*, char const*) noexcept;
    int32_t (*enginePortOnDevice)(void*, char const*) noexcept;
    int32_t (*enginePortDtype)(void*, char const*) noexcept;
    void (*enginePortShape)(void*, char const*, ShimDims*) noexcept;
    int32_t (*engineProfiles)(void*) noexcept;
    void (*engineProfileShape)(void*, char const*, int32_t, int32_t, ShimDims*) noexcept;
    int64_t (*engineScratchBytes)(void*) noexcept;
    void* (*contextNew)(void*) noexcept;
    void (*contextDelete)(void*) noexcept;
    void (*contextScratch)(void*, void*, int64_t) noexcept;
    int32_t (*contextProfile)(void*, int32_t, void*) noexcept;
    int32_t (*contextInputShape)(void*, char const*, ShimDims const*) noexcept;
    int32_t (*contextInferShapes)(void*) noexcept;
    void (*contextPortShape)(void*, char const*, ShimDims*) noexcept;
    int32_t (*contextAddress)(void*, char const*, void*) noexcept;
    int32_t (*contextEnqueue)(void*, void*) noexcept;
};

constexpr ShimTable kTable{NV_TENSORRT_VERSION, loggerNew, loggerDelete, runtimeNew, runtimeDelete,
    runtimeAllowHostCode, engineNew, engineDelete, enginePorts, enginePortName, enginePortMode, enginePortOnDevice,
    enginePortDtype, enginePortShape, engineProfiles, engineProfileShape, engineScratchBytes, contextNew, contextDelete,
    contextScratch, contextProfile, contextInputShape, contextInferShapes, contextPortShape, contextAddress,
    contextEnqueue};

} // namespace

extern "C" ShimTable const* SHIM_TABLE()
{
    return &kTable;
}
