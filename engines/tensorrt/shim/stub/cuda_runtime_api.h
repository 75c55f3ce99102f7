// All that TensorRT's headers need of CUDA's: two names. Ours, so that no CUDA toolkit is needed to build.
#pragma once
typedef struct CUstream_st* cudaStream_t;
typedef struct CUevent_st* cudaEvent_t;
