// TensorRT 11. Its classes share nothing with those of 10 but their names, so each major has its own namespace.
#define nvinfer1 sightline_nvinfer1_11
#define SHIM_MAJOR 11
#define SHIM_TABLE sightline_tensorrt_11
#include "shim.h"
