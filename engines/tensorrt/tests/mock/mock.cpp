// A library that answers as TensorRT would, as far as the shim asks, and writes down what it was asked. A plan is text:
//
//     mock-plan
//     scratch 4096
//     profiles 2
//     in mem f32 -1 -1 8             an input; -1 is open
//     cover mem 1,1,8 4,7,8          what the next profile covers of it: least, most
//     out pix f32 mem.0 8            an output; mem.0 is the first size of the input mem
//     fail 2                         the second run fails
//
// Runs are done at once, on host memory: each f32 output repeats the first input's values and adds the profile times 1000.

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <sstream>
#include <string>
#include <vector>

#include "mock_classes.h"

using namespace nvinfer1;

namespace
{

std::mutex gLock;
std::string gCalls;
std::string gTaken;
std::string gMode;

void say(char const* format, ...)
{
    char line[512];
    va_list rest;
    va_start(rest, format);
    vsnprintf(line, sizeof line, format, rest);
    va_end(rest);
    std::lock_guard<std::mutex> lock(gLock);
    gCalls += line;
    gCalls += '\n';
}

struct Port
{
    std::string name;
    bool input;
    DataType type;
    TensorLocation where = TensorLocation::kDEVICE;
    std::vector<std::string> sizes;
    std::vector<std::pair<Dims, Dims>> covered;
};

Dims parsed(std::string const& text)
{
    Dims dims{};
    std::istringstream in(text);
    for (std::string size; std::getline(in, size, ',');)
    {
        dims.d[dims.nbDims++] = std::stoll(size);
    }
    return dims;
}

std::string shown(Dims const& dims)
{
    std::string text = "[";
    for (int32_t i = 0; i < dims.nbDims; ++i)
    {
        text += (i ? "," : "") + std::to_string(dims.d[i]);
    }
    return text + "]";
}

struct Model
{
    int64_t scratch = 0;
    int32_t profiles = 1;
    int32_t failing = 0;
    int32_t strict = 0;
    std::vector<Port> ports;

    Port const* port(char const* name) const
    {
        for (auto const& port : ports)
        {
            if (port.name == name)
            {
                return &port;
            }
        }
        return nullptr;
    }

    // Sizes as the plan has them, or as far as the shapes of inputs make them known.
    Dims shape(Port const& port, std::map<std::string, Dims> const& given) const
    {
        if (port.input && given.count(port.name))
        {
            return given.at(port.name);
        }
        Dims dims{};
        for (auto const& size : port.sizes)
        {
            auto const dot = size.find('.');
            int64_t value = -1;
            if (dot == std::string::npos)
            {
                value = std::stoll(size);
            }
            else if (auto const input = given.find(size.substr(0, dot)); input != given.end())
            {
                value = input->second.d[std::stoi(size.substr(dot + 1))];
            }
            dims.d[dims.nbDims++] = value;
        }
        return dims;
    }
};

bool read(std::string const& plan, Model& model)
{
    std::istringstream lines(plan);
    std::string line;
    if (!std::getline(lines, line) || line != "mock-plan")
    {
        return false;
    }
    std::map<std::string, DataType> const types{{"f32", DataType::kFLOAT}, {"f16", DataType::kHALF},
        {"bf16", DataType::kBF16}, {"i64", DataType::kINT64}, {"i32", DataType::kINT32}};
    while (std::getline(lines, line))
    {
        std::istringstream words(line);
        std::string what, name, type;
        words >> what;
        if (what == "scratch")
        {
            words >> model.scratch;
        }
        else if (what == "profiles")
        {
            words >> model.profiles;
        }
        else if (what == "fail")
        {
            words >> model.failing;
        }
        else if (what == "host")
        {
            words >> name;
            const_cast<Port*>(model.port(name.c_str()))->where = TensorLocation::kHOST;
        }
        else if (what == "cover")
        {
            std::string least, most;
            words >> name >> least >> most;
            const_cast<Port*>(model.port(name.c_str()))->covered.emplace_back(parsed(least), parsed(most));
        }
        else if (what == "in" || what == "out")
        {
            words >> name >> type;
            Port port{name, what == "in", types.at(type)};
            for (std::string size; words >> size;)
            {
                port.sizes.push_back(size);
            }
            model.ports.push_back(port);
        }
    }
    return true;
}

class Context final : public IExecutionContext, public mock::VExecutionContextDefault
{
public:
    Context(Model const& model, ILogger* logger)
        : mModel(model)
        , mLogger(logger)
    {
        mImpl = this;
    }
    ~Context() noexcept override
    {
        say("~context");
    }
    IExecutionContext* getPImpl() noexcept override
    {
        return this;
    }
    void setDeviceMemoryV2(void* memory, int64_t size) noexcept override
    {
        say("scratch %d", static_cast<int>(size >= mModel.scratch && memory));
        mScratch = memory;
    }
    bool setOptimizationProfileAsync(int32_t profile, cudaStream_t) noexcept override
    {
        say("profile %d", profile);
        mProfile = profile;
        mShapes.clear();
        return profile < mModel.profiles;
    }
    bool setInputShape(char const* name, Dims const& dims) noexcept override
    {
        Port const* port = mModel.port(name);
        bool fits = port && port->input && dims.nbDims == static_cast<int32_t>(port->sizes.size());
        for (int32_t i = 0; fits && i < dims.nbDims; ++i)
        {
            int64_t const size = std::stoll(port->sizes[i]);
            auto const in = [&](auto const& c) { return dims.d[i] >= c.first.d[i] && dims.d[i] <= c.second.d[i]; };
            fits = size >= 0 ? dims.d[i] == size : mProfile >= 0 && in(port->covered.at(mProfile));
        }
        // A number no profile should let through, for the test of a shape that only TensorRT refuses.
        fits = fits && !(dims.nbDims > 0 && dims.d[0] == 13);
        say("shape %s %s%s", name, shown(dims).c_str(), fits ? "" : " refused");
        if (!fits)
        {
            mLogger->log(ILogger::Severity::kERROR, "IExecutionContext::setInputShape: Error Code 3: mock");
            return false;
        }
        mShapes[name] = dims;
        return true;
    }
    Dims getTensorShape(char const* name) const noexcept override
    {
        return mModel.shape(*mModel.port(name), mShapes);
    }
    int32_t inferShapes(int32_t, char const**) noexcept override
    {
        int32_t missing = 0;
        for (auto const& port : mModel.ports)
        {
            missing += port.input && !mShapes.count(port.name);
        }
        say("infer %d", missing);
        return missing;
    }
    bool setTensorAddress(char const* name, void* data) noexcept override
    {
        mAddresses[name] = data;
        return mModel.port(name) != nullptr;
    }
    bool enqueueV3(cudaStream_t stream) noexcept override
    {
        ++mRuns;
        if (mRuns == mModel.failing)
        {
            say("enqueue failed");
            mLogger->log(ILogger::Severity::kERROR, "IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime (mock)");
            return false;
        }
        std::string text = "enqueue stream " + std::to_string(reinterpret_cast<uintptr_t>(stream));
        bool ready = mScratch != nullptr;
        std::vector<float> values;
        for (auto const& port : mModel.ports)
        {
            Dims const dims = mModel.shape(port, mShapes);
            auto* const at = static_cast<float*>(mAddresses[port.name]);
            ready = ready && at;
            text += " " + port.name + shown(dims);
            int64_t count = 1;
            for (int32_t i = 0; i < dims.nbDims; ++i)
            {
                count *= dims.d[i];
            }
            if (!ready || port.type != DataType::kFLOAT)
            {
                continue;
            }
            if (port.input && values.empty())
            {
                values.assign(at, at + count);
            }
            for (int64_t i = 0; !port.input && i < count; ++i)
            {
                at[i] = values[static_cast<size_t>(i) % values.size()] + 1000.0F * static_cast<float>(mProfile);
            }
        }
        say("%s%s", text.c_str(), ready ? "" : " not ready");
        return ready;
    }

private:
    Model mModel;
    ILogger* mLogger;
    void* mScratch = nullptr;
    int32_t mProfile = -1;
    int32_t mRuns = 0;
    std::map<std::string, Dims> mShapes;
    std::map<std::string, void*> mAddresses;
};

class Engine final : public ICudaEngine, public mock::VCudaEngineDefault
{
public:
    Engine(Model const& model, ILogger* logger)
        : mModel(model)
        , mLogger(logger)
    {
        mImpl = this;
    }
    ~Engine() noexcept override
    {
        say("~engine");
    }
    ICudaEngine* getPImpl() noexcept override
    {
        return this;
    }
    int32_t getNbIOTensors() const noexcept override
    {
        return static_cast<int32_t>(mModel.ports.size());
    }
    char const* getIOTensorName(int32_t index) const noexcept override
    {
        return mModel.ports.at(index).name.c_str();
    }
    TensorIOMode getTensorIOMode(char const* name) const noexcept override
    {
        return mModel.port(name)->input ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
    }
    TensorLocation getTensorLocation(char const* name) const noexcept override
    {
        return mModel.port(name)->where;
    }
    DataType getTensorDataType(char const* name) const noexcept override
    {
        return mModel.port(name)->type;
    }
    Dims getTensorShape(char const* name) const noexcept override
    {
        return mModel.shape(*mModel.port(name), {});
    }
    int32_t getNbOptimizationProfiles() const noexcept override
    {
        return mModel.profiles;
    }
    Dims getProfileShape(char const* name, int32_t profile, OptProfileSelector select) const noexcept override
    {
        auto const& covered = mModel.port(name)->covered.at(profile);
        return select == OptProfileSelector::kMAX ? covered.second : covered.first;
    }
    int64_t getDeviceMemorySizeV2() const noexcept override
    {
        return mModel.scratch;
    }
    IExecutionContext* createExecutionContext(ExecutionContextAllocationStrategy strategy) noexcept override
    {
        say("context %s", strategy == ExecutionContextAllocationStrategy::kUSER_MANAGED ? "user managed" : "greedy");
        if (gMode == "no context")
        {
            mLogger->log(ILogger::Severity::kERROR, "createExecutionContext: Error Code 2: OutOfMemory (mock)");
            return nullptr;
        }
        return new Context(mModel, mLogger);
    }

private:
    Model mModel;
    ILogger* mLogger;
};

class Runtime final : public IRuntime, public mock::VRuntimeDefault
{
public:
    explicit Runtime(ILogger* logger)
        : mLogger(logger)
    {
        mImpl = this;
    }
    ~Runtime() noexcept override
    {
        say("~runtime");
    }
    IRuntime* getPImpl() noexcept override
    {
        return this;
    }
    void setEngineHostCodeAllowed(bool allowed) noexcept override
    {
        say("host code %d", allowed);
    }
    ICudaEngine* deserializeCudaEngine(void const* blob, std::size_t size) noexcept override
    {
        Model model;
        if (!read(std::string(static_cast<char const*>(blob), size), model))
        {
            say("deserialize refused");
            mLogger->log(ILogger::Severity::kERROR, "IRuntime::deserializeCudaEngine: Error Code 1: magic tag (mock)");
            return nullptr;
        }
        say("deserialize");
        return new Engine(model, mLogger);
    }

private:
    ILogger* mLogger;
};

} // namespace

void unexpected(char const* name) noexcept
{
    say("unexpected %s", name);
}

extern "C" {

int32_t getInferLibMajorVersion() noexcept
{
    return NV_TENSORRT_MAJOR;
}
int32_t getInferLibMinorVersion() noexcept
{
    return NV_TENSORRT_MINOR;
}
int32_t getInferLibPatchVersion() noexcept
{
    return NV_TENSORRT_PATCH;
}
int32_t getInferLibBuildVersion() noexcept
{
    return NV_TENSORRT_BUILD;
}
void* createInferBuilder_INTERNAL(void*, int32_t) noexcept
{
    return nullptr;
}
void* createInferRuntime_INTERNAL(void* logger, int32_t version) noexcept
{
    auto* const log = static_cast<ILogger*>(logger);
    say("runtime %d", version == NV_TENSORRT_VERSION);
    if (gMode == "no driver")
    {
        // What NVIDIA's library does: an error in the log, and null plus the offset of a base.
        log->log(ILogger::Severity::kERROR, "CUDA initialization failure with error: 35 (mock)");
        return reinterpret_cast<void*>(0x228);
    }
    if (gMode == "garbage")
    {
        return reinterpret_cast<void*>(0x228);
    }
    log->log(ILogger::Severity::kINFO, "mock");
    auto* const runtime = new Runtime(log);
    if (gMode == "complains")
    {
        log->log(ILogger::Severity::kERROR, "something is wrong (mock)");
    }
    return static_cast<IRuntime*>(runtime);
}

// What was called since the last time, a line a call.
char const* mock_take()
{
    std::lock_guard<std::mutex> lock(gLock);
    gTaken.swap(gCalls);
    gCalls.clear();
    return gTaken.c_str();
}

void mock_mode(char const* mode)
{
    gMode = mode;
}
}
