// TensorRT 10. Its classes share nothing with those of 11 but their names, so each major has its own namespace.
#define nvinfer1 sightline_nvinfer1_10
#define SHIM_MAJOR 10
#define SHIM_TABLE sightline_tensorrt_10
#include "shim.h"
